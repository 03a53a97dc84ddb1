"""l2_topk as a torch op: public function, checks, fake, autograd, vmap."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .. import _checks, _dispatch, _pairs, _transforms

MOST = 128  # the largest k


class L2TopK(NamedTuple):
    """What l2_topk returns: value [..., N, k] and index [..., N, k] (int64), which unpack as a tuple."""

    value: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody misses here


# torch.load(weights_only=True) and torch.export.save know the results of ops by these names
torch.serialization.add_safe_globals([L2TopK])
pytree._register_namedtuple(L2TopK, serialized_type_name="otkernels.L2TopK")


def l2_topk(x: Tensor, y: Tensor, k: int, potential: Tensor | None = None, *, impl: str = "auto") -> L2TopK:
    """The k nearest points without the N x M matrix: the least terms of l2_argmin's minimum, in ascending order.

        cost_ij  = |x_i - y_j|^2 - potential_j
        index_ic = the j of the c-th least cost of row i, c = 0 .. k - 1; among equal costs the lowest j comes first
        value_ic = cost_ij at j = index_ic

    Args:
        x: [..., N, D] queries; float32, float64, float16 or bfloat16.
        y: [..., M, D] points, M >= 1, the same leading dimensions, dtype and device.
        k: how many, 1 <= k <= min(M, 128).
        potential: [..., M], or None for zeros. +inf puts its point first (value -inf), -inf puts it last (+inf).
        impl: "auto", "cpu", "triton" or "reference"; one that cannot run raises and says why.

    Returns:
        value [..., N, k] in the inputs' dtype (float32 for half precisions) and index [..., N, k] int64. Squared units
        of x. Distances are summed from (x - y)^2 in that dtype; points whose costs differ by less than the rounding of
        this sum may change places. A row with a NaN among its costs gives NaN and -1 throughout; a NaN in y is among
        every row's.

    First and second gradients reach x, y and potential through each chosen pair (Danskin); torch.func and forward mode
    work, too. NaN rows give x a NaN gradient and leave y and potential alone. Memory is O((N + M) k). Under autocast
    half precisions become float32. For k = 1 l2_argmin gives the same, faster.

    Raises:
        ValueError: a shape, dtype, device or option is wrong; the message names it.
        RuntimeError: the named impl cannot run here.
        NotImplementedError: forward mode inside forward mode, or inside torch.compile.
    """
    x, y, potential = _checks.autocast(x, y, potential)
    _pairs.check("l2_topk", x, y, potential)
    k, m = _checks.count("l2_topk", "k", k), y.shape[-2]
    if k > min(m, MOST):
        raise ValueError(f"l2_topk: k must be at most min(M, {MOST}) with M={m}, got {k}")
    if x.dim() == 2 and x.device.type == "cpu" and _dispatch.is_plain_call(x, y, potential):
        name, module = _dispatch.choose("l2_topk", impl, x)
        if name == "cpu":  # at N = M = 64 torch's dispatcher and the views below would cost as much as the kernel
            return L2TopK(*module.l2_topk(x, y, k, potential))
    _dispatch.check("l2_topk", impl)
    lead, n = x.shape[:-2], x.shape[-2]
    value, index = _call(*_pairs.one_batch(x, y, potential), k, impl)
    return L2TopK(value.view(*lead, n, k), index.view(*lead, n, k))


def _forward(x: Tensor, y: Tensor, potential: Tensor | None, k: int, impl: str) -> tuple[Tensor, Tensor]:
    _, module = _dispatch.choose("l2_topk", impl, x)
    return module.l2_topk(x, y, k, potential)


def _fake(x: Tensor, y: Tensor, potential: Tensor | None, k: int, impl: str) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:2], k)
    return x.new_empty(shape, dtype=_checks.widened(x.dtype)), x.new_empty(shape, dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, potential, _, _ = inputs
    ctx.save_for_backward(x, y, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.potential_dtype = None if potential is None else potential.dtype


def _backward(ctx: Any, grad_value: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, y, index = ctx.saved_tensors
    needs, dtype = ctx.needs_input_grad[:3], ctx.potential_dtype
    return *_pairs.gradients(x, y, index, grad_value, needs, dtype), None, None


def _vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, y: Tensor, potential: Tensor | None, k: int, impl: str
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    lead, points = _pairs.mapped(info, in_dims, x, y, potential)
    value, index = _call(*points, k, impl)
    return (value.unflatten(0, lead), index.unflatten(0, lead)), (0, 0)


def _jvp(ctx: Any, dx: Tensor | None, dy: Tensor | None, dpotential: Tensor | None, *_: None) -> tuple[Tensor, None]:
    x, y, index = ctx.saved_tensors
    return torch.stack([_pairs.tangent(x, y, chosen, dx, dy, dpotential) for chosen in index.unbind(-1)], -1), None


NAME = "otkernels::l2_topk"
torch.library.define(NAME, "(Tensor x, Tensor y, Tensor? potential, SymInt k, str impl) -> (Tensor, Tensor)")
torch.library.impl(NAME, ("cpu", "cuda"), _forward)
torch.library.register_fake(NAME, _fake)
_call = _transforms.register("l2_topk", _setup_context, _backward, _jvp, _vmap)
