"""l2_argmin as a torch op: public function, checks, fake, autograd, vmap."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .. import _checks, _dispatch, _pairs, _transforms
from .native import PRECISIONS


class L2Argmin(NamedTuple):
    """What l2_argmin returns: value [..., N] and index [..., N] (int64), which unpack as a tuple."""

    value: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody misses here


# torch.load(weights_only=True) and torch.export.save know the results of ops by these names
torch.serialization.add_safe_globals([L2Argmin])
pytree._register_namedtuple(L2Argmin, serialized_type_name="otkernels.L2Argmin")


def l2_argmin(
    x: Tensor, y: Tensor, potential: Tensor | None = None, *, precision: str = "exact", impl: str = "auto"
) -> L2Argmin:
    """Nearest assignment without the N x M matrix: the c-transform of a potential (Peyre & Cuturi 2019, ch. 5).

        value_i = min_j |x_i - y_j|^2 - potential_j
        index_i = the lowest j that attains it

    Args:
        x: [..., N, D] queries; float32, float64, float16 or bfloat16.
        y: [..., M, D] points, M >= 1, the same leading dimensions, dtype and device.
        potential: [..., M], or None for zeros. +inf makes its point the nearest (value -inf), -inf never is.
        precision: "exact" (default): the index attains the float64 minimum within the rounding error of a distance
            summed from differences. "tf32" and "bf16" choose the index from tensor-core products of that precision,
            where the implementation has them. The value always is recomputed from the winning pair's differences.
        impl: "auto", "cpu", "triton", "cuda" or "reference"; one that cannot run raises and says why.

    Returns:
        value [..., N] in the inputs' dtype (float32 for half precisions) and index [..., N] int64. Squared units of x.
        A row whose costs hold a NaN gives NaN and -1.

    Gradients reach x, y and potential through the winning pair (Danskin), twice; torch.func and forward mode work, too.
    NaN rows give x a NaN gradient and leave y and potential alone. Memory is O(N + M). Under autocast half precisions
    become float32.

    Raises:
        ValueError: a shape, dtype, device or option is wrong; the message names it.
        RuntimeError: the named impl cannot run here.
        NotImplementedError: forward mode inside forward mode, or inside torch.compile.
    """
    x, y, potential = _checks.autocast(x, y, potential)
    _pairs.check("l2_argmin", x, y, potential)
    _checks.choice("l2_argmin", "precision", precision, PRECISIONS)
    if x.dim() == 2 and x.device.type == "cpu" and _dispatch.is_plain_call(x, y, potential):
        name, module = _dispatch.choose("l2_argmin", impl, x)
        if name == "cpu":  # at N = M = 64 torch's dispatcher and the views below would cost as much as the kernel
            return L2Argmin(*module.l2_argmin(x, y, potential, precision))
    _dispatch.check("l2_argmin", impl)
    lead, n = x.shape[:-2], x.shape[-2]
    value, index = _call(*_pairs.one_batch(x, y, potential), precision, impl)
    return L2Argmin(value.view(*lead, n), index.view(*lead, n))


def _forward(x: Tensor, y: Tensor, potential: Tensor | None, precision: str, impl: str) -> tuple[Tensor, Tensor]:
    _, module = _dispatch.choose("l2_argmin", impl, x)
    return module.l2_argmin(x, y, potential, precision)


def _fake(x: Tensor, y: Tensor, potential: Tensor | None, precision: str, impl: str) -> tuple[Tensor, Tensor]:
    dtype = _checks.widened(x.dtype)
    return x.new_empty(x.shape[:2], dtype=dtype), x.new_empty(x.shape[:2], dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, potential, _, _ = inputs
    ctx.save_for_backward(x, y, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.potential_dtype = None if potential is None else potential.dtype


def _backward(ctx: Any, grad_value: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, y, index = ctx.saved_tensors
    needs, dtype = ctx.needs_input_grad[:3], ctx.potential_dtype
    return *_pairs.gradients(x, y, index[..., None], grad_value[..., None], needs, dtype), None, None


def _vmap(
    info: Any,
    in_dims: tuple[int | None, ...],
    x: Tensor,
    y: Tensor,
    potential: Tensor | None,
    precision: str,
    impl: str,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    lead, points = _pairs.mapped(info, in_dims, x, y, potential)
    value, index = _call(*points, precision, impl)
    return (value.unflatten(0, lead), index.unflatten(0, lead)), (0, 0)


def _jvp(ctx: Any, dx: Tensor | None, dy: Tensor | None, dpotential: Tensor | None, *_: None) -> tuple[Tensor, None]:
    x, y, index = ctx.saved_tensors
    return _pairs.tangent(x, y, index, dx, dy, dpotential), None


NAME = "otkernels::l2_argmin"
torch.library.define(NAME, "(Tensor x, Tensor y, Tensor? potential, str precision, str impl) -> (Tensor, Tensor)")
torch.library.impl(NAME, ("cpu", "cuda"), _forward)
torch.library.register_fake(NAME, _fake)
_call = _transforms.register("l2_argmin", _setup_context, _backward, _jvp, _vmap)
