"""assign as a torch op: public function, checks, fake, vmap, and the certificate."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .. import _checks, _dispatch
from .certificate import Certified, primal_cost, unsolved


class Assignment(NamedTuple):
    """What assign returns, with any leading dimensions [...]; unpacks as a tuple."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody misses here
    """[..., N] int64: sigma(i), the column of each row; -1 where the problem cannot be solved (see assign)."""
    u: Tensor
    """[..., N] float64: the rows' dual potential."""
    v: Tensor
    """[..., M] float64: the columns' dual potential."""
    primal: Tensor
    """[...] float64: sum_i |x_i - y_sigma(i)|^2 - potential_sigma(i). Differentiable in x, y and potential."""
    dual: Tensor
    """[...] float64: sum_i u_i + sum_j v_j, which no matching's cost is below."""
    gap: Tensor
    """[...] float64: primal - dual; optimal when it is at rounding size."""


torch.serialization.add_safe_globals([Assignment])
pytree._register_namedtuple(Assignment, serialized_type_name="otkernels.Assignment")


def assign(
    x: Tensor, y: Tensor, *, potential: Tensor | None = None, tolerance: float = 0.0, impl: str = "auto"
) -> Assignment:
    """The one-to-one matching of least total cost, with a proof, from the coordinates (Peyre & Cuturi 2019, ch. 3).

        sigma = argmin sum_i c_{i sigma(i)} over injective sigma,   c_ij = |x_i - y_j|^2 - potential_j
        u_i + v_j <= c_ij for all pairs, = for matched ones;  where N < M also v <= 0, and v_j = 0 for unmatched columns
        (with tolerance > 0 the inequalities alone)

    Args:
        x: [..., N, D]; float32, float64, float16 or bfloat16.
        y: [..., M, D], N <= M, the same leading dimensions, dtype and device. Leading dimensions are problems of their
            own.
        potential: [..., M], or None for zeros: what is taken off the cost of each y_j, finite. To leave a point out,
            leave it out of y: a potential of -1e30 takes the digits of all other costs.
        tolerance: 0 (default): optimal to the rounding of float64. Larger: any matching whose gap is at most tolerance
            * |primal|.
        impl: "auto", "cpu", "cuda" or "reference"; one that cannot run raises and says why.

    Returns:
        An Assignment: index [..., N], the potentials u [..., N] and v [..., M], and the certificate primal, dual and
        gap [...], in float64 from the coordinates. Where N = M, v has mean 0. ``verify`` checks it by two l2_argmin
        calls. A problem that holds a NaN, an infinity or a number beyond 1e150 has index -1 and NaN everywhere else.

    Everything is deterministic, whatever the number of threads. No gradient passes through sigma; ``primal`` is
    differentiable at the sigma that was found, which is the gradient of the least cost itself (Danskin's theorem).
    Memory: the cost matrix, 8 bytes a pair, where N M <= 2^20 (8 MiB). Beyond, no matrix but a list of at most 128
    candidates for each row (2.5 KiB); only where N <= 256, or where lists turn out to be of no use, it is the matrix up
    to N M = 2^24 (128 MiB). Points on a GPU are copied to the host once; candidates are found on the GPU and matched on
    the host, and index and potentials come back to the GPU.

    Raises:
        ValueError: a shape, dtype, device or option is wrong; the message names it.
        RuntimeError: the named impl cannot run here.
    """
    x, y, potential = _checks.autocast(x, y, potential)
    check("assign", x, y, potential)
    tolerance = _checks.number("assign", "tolerance", tolerance)
    _dispatch.check("assign", impl)
    lead, (n, d), m = x.shape[:-2], x.shape[-2:], y.shape[-2]
    plain = _dispatch.is_plain_call(x, y, potential)
    if plain and not lead and x.device.type == "cpu":
        # at N = 64 torch's dispatcher would cost as much as the solver
        solved = _forward(x[None], y[None], None if potential is None else potential[None], tolerance, impl)
    else:
        batch = math.prod(lead)
        offsets = None if potential is None else potential.detach().reshape(batch, m)
        solved = torch.ops.otkernels.assign(
            x.detach().reshape(batch, n, d), y.detach().reshape(batch, m, d), offsets, tolerance, impl
        )
    index, u, v, primal, dual = (part.view(lead + part.shape[1:]) for part in solved)
    if not plain:
        cost = primal_cost(x, y, potential, index)
        primal = cost + (primal - cost).detach()  # its gradients, and to the bit the value that a plain call has
    return Assignment(index, u, v, primal, dual, primal.detach() - dual)


def check(op: str, x: Tensor, y: Tensor, potential: Tensor | None) -> None:
    if potential is None:
        _checks.alike(op, x=x, y=y)
    else:
        _checks.alike(op, x=x, y=y, potential=potential)
    if x.dim() < 2 or x.shape[-1] < 1:
        raise ValueError(f"{op}: x must be [..., N, D] with D >= 1, got {_checks.shape(x)}")
    lead, (n, d) = x.shape[:-2], x.shape[-2:]
    if y.dim() != x.dim() or y.shape[:-2] != lead or y.shape[-1] != d:
        raise ValueError(f"{op}: y must be {_checks.named(lead, 'M, D')} with D={d}, got {_checks.shape(y)}")
    m = y.shape[-2]
    if m < n:
        raise ValueError(f"{op}: y must hold at least as many points as x (M >= N={n}), got {_checks.shape(y)}")
    if potential is not None and potential.shape != y.shape[:-1]:
        raise ValueError(
            f"{op}: potential must be {_checks.named(lead, 'M')} with M={m}, got {_checks.shape(potential)}"
        )


def _forward(x: Tensor, y: Tensor, potential: Tensor | None, tolerance: float, impl: str) -> Certified:
    _, module = _dispatch.choose("assign", impl, x)
    if x.shape[0] == 0 or x.shape[1] == 0:
        return unsolved(x, y)
    return module.assign(x, y, potential, tolerance)


def _fake(x: Tensor, y: Tensor, potential: Tensor | None, tolerance: float, impl: str) -> Certified:
    index = x.new_empty(x.shape[:2], dtype=torch.int64)
    u, v, primal, dual = (
        x.new_empty(shape, dtype=torch.float64) for shape in (x.shape[:2], y.shape[:2], x.shape[:1], x.shape[:1])
    )
    return index, u, v, primal, dual


def _vmap(
    info: Any,
    in_dims: tuple[int | None, ...],
    x: Tensor,
    y: Tensor,
    potential: Tensor | None,
    tolerance: float,
    impl: str,
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    def front(tensor: Tensor, dim: int | None) -> Tensor:
        return tensor.movedim(dim, 0) if dim is not None else tensor.expand(info.batch_size, *tensor.shape)

    x, y = front(x, in_dims[0]), front(y, in_dims[1])
    offsets = None if potential is None else front(potential, in_dims[2]).flatten(0, 1)
    solved = torch.ops.otkernels.assign(x.flatten(0, 1), y.flatten(0, 1), offsets, tolerance, impl)
    return tuple(part.unflatten(0, x.shape[:2]) for part in solved), (0,) * len(solved)


NAME = "otkernels::assign"
torch.library.define(
    NAME,
    "(Tensor x, Tensor y, Tensor? potential, float tolerance, str impl) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl(NAME, ("cpu", "cuda"), _forward)
torch.library.register_fake(NAME, _fake)
torch.library.register_vmap(NAME, _vmap)
