"""soft_forest as a torch op: public function, checks, fake, autograd, vmap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _checks, _dispatch, _transforms
from . import reference


def soft_forest(z: Tensor, thresholds: Tensor, leaves: Tensor, *, impl: str = "auto") -> Tensor:
    """Soft decision forest: the latent transformation of POT-GAN (Avraham et al. 2019, section 4.2, Fig. 2).

        F(z) = (1/T) sum_t sum_l mu[t, l](z) leaf[t, l]

    where mu is the product of the shares on the way from the root to the leaf; node n of tree t (breadth-first) sends
    sigmoid(z[f] - threshold[t, n]) to its left child, f = (t (2^D - 1) + n) mod d, and the rest to its right child.

    Args:
        z: [..., N, d]; float32, float64, float16 or bfloat16.
        thresholds: [T, 2^D - 1], or [..., T, 2^D - 1] with z's leading dimensions for one forest per batch element.
        leaves: [T, 2^D, d_out], or [..., T, 2^D, d_out] likewise. Leaves left to right.
        impl: "auto", "cpu", "triton", "cuda" or "reference"; one that cannot run raises and says why.

    Returns:
        [..., N, d_out] in the inputs' dtype, in the leaves' units.

    Differentiable in all three, any number of times, also by torch.func and in forward mode. Gradients are
    deterministic; the first and second have kernels (impl="triton" runs the reference's formula for the second). Under
    autocast half precisions become float32.

    Raises:
        ValueError: a shape, dtype, device or option is wrong; the message names it.
        RuntimeError: the named impl cannot run here.
        NotImplementedError: forward mode inside forward mode, or inside torch.compile.
    """
    z, thresholds, leaves = _checks.autocast(z, thresholds, leaves)
    shared = _check(z, thresholds, leaves)
    _dispatch.check("soft_forest", impl)
    lead, n = z.shape[:-2], z.shape[-2]
    if shared:
        z = z.reshape(1, math.prod(z.shape[:-1]), z.shape[-1])  # one forest: leading dimensions are more rows
        thresholds, leaves = thresholds[None], leaves[None]
    else:
        z, thresholds, leaves = z.flatten(0, -3), thresholds.flatten(0, -3), leaves.flatten(0, -4)
    out = _call(z, thresholds, leaves, impl)
    return out.view(*lead, n, out.shape[-1])


def _check(z: Tensor, thresholds: Tensor, leaves: Tensor) -> bool:
    """Raises what is wrong; returns whether one forest serves all rows."""
    _checks.alike("soft_forest", z=z, thresholds=thresholds, leaves=leaves)
    if z.dim() < 2 or z.shape[-1] < 1:
        raise ValueError(f"soft_forest: z must be [..., N, d] with d >= 1, got {_checks.shape(z)}")
    if leaves.dim() < 3:
        raise ValueError(f"soft_forest: leaves must be [..., T, 2^D, d_out], got {_checks.shape(leaves)}")
    trees, width, d_out = leaves.shape[-3:]
    if trees < 1 or d_out < 1 or width < 1 or width & (width - 1):
        raise ValueError(
            "soft_forest: leaves must be [..., T, 2^D, d_out] with T, d_out >= 1 and a power of two of leaves a tree, "
            f"got {_checks.shape(leaves)}"
        )
    lead = leaves.shape[:-3]
    if lead and lead != z.shape[:-2]:
        raise ValueError(
            f"soft_forest: leaves must be [T, 2^D, d_out] or have z's leading dimensions {list(z.shape[:-2])}, "
            f"got {_checks.shape(leaves)}"
        )
    if thresholds.shape != (*lead, trees, width - 1):
        raise ValueError(
            f"soft_forest: thresholds must be {[*lead, trees, width - 1]} for leaves {_checks.shape(leaves)}, "
            f"got {_checks.shape(thresholds)}"
        )
    return len(lead) == 0  # Dynamo traces no `not` of a shape


def _forward(z: Tensor, thresholds: Tensor, leaves: Tensor, impl: str) -> Tensor:
    _, module = _dispatch.choose("soft_forest", impl, z)
    return module.soft_forest(z, thresholds, leaves)


def _fake(z: Tensor, thresholds: Tensor, leaves: Tensor, impl: str) -> Tensor:
    return z.new_empty(z.shape[0], z.shape[1], leaves.shape[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, thresholds, leaves, ctx.impl = inputs
    ctx.save_for_backward(z, thresholds, leaves)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    grads = _call_backward(grad_out, *ctx.saved_tensors, ctx.impl)
    return (*grads, None)


def _jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
    """The first result of the double backward pass: what the tangents give however they are weighed."""
    z, thresholds, leaves = ctx.saved_tensors
    weights = z.new_zeros(*z.shape[:2], leaves.shape[-1])
    return _call_double_backward(*tangents[:3], weights, z, thresholds, leaves, ctx.impl)[0]


def _forward_backward(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    _, module = _dispatch.choose("soft_forest", impl, z)
    return module.soft_forest_backward(grad_out, z, thresholds, leaves)


def _fake_backward(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    # new_empty, not empty_like: gradients are dense even where an input is an expanded view
    return z.new_empty(z.shape), thresholds.new_empty(thresholds.shape), leaves.new_empty(leaves.shape)


def _setup_backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.impl = inputs[4]
    ctx.save_for_backward(*inputs[:4])
    ctx.set_materialize_grads(False)  # a gradient penalty uses grad_z alone: None spares the products with zeros


def _double_backward(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*_call_double_backward(*tangents, *ctx.saved_tensors, ctx.impl), None)


def _jvp_backward(ctx: Any, dgrad_out: Tensor | None, *rest: Tensor | None) -> tuple[Tensor, ...]:
    """Gradients are linear in grad_out, and what the double backward pass gives is also their derivative (symmetry)."""
    grad_out, *inputs = ctx.saved_tensors
    parts = []
    if dgrad_out is not None:
        parts.append(_call_backward(dgrad_out, *inputs, ctx.impl))
    if any(tangent is not None for tangent in rest[:3]):
        parts.append(_call_double_backward(*rest[:3], grad_out, *inputs, ctx.impl)[1:])
    return tuple(sum(terms) for terms in zip(*parts, strict=True))


def _forward_double_backward(
    dz: Tensor | None,
    dthresholds: Tensor | None,
    dleaves: Tensor | None,
    grad_out: Tensor,
    z: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """impl="triton" has no kernel of its own for this op: it runs the reference's formula."""
    name, module = _dispatch.choose("soft_forest", impl, z)
    function = (reference if name == "triton" else module).soft_forest_double_backward
    return function(dz, dthresholds, dleaves, grad_out, z, thresholds, leaves)


def _fake_double_backward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_out, z, thresholds, leaves = (tensor.new_empty(tensor.shape) for tensor in inputs[3:7])
    return grad_out, z, thresholds, leaves


def _setup_double_backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.given = [k for k, tensor in enumerate(inputs[:7]) if tensor is not None]
    ctx.save_for_backward(*(inputs[k] for k in ctx.given))


def _triple_backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiates the reference's formula: [B, N, T, 2^D] in memory, never times d_out."""
    _, pull, *_ = torch.func.vjp(_formula(ctx.given), *ctx.saved_tensors)
    grads = dict(zip(ctx.given, pull(cotangents), strict=True))
    return tuple(grads.get(k) for k in range(8))


def _jvp_double_backward(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
    saved = ctx.saved_tensors
    along = (tangents[k] for k in ctx.given)
    moved = tuple(torch.zeros_like(t) if d is None else d for t, d in zip(saved, along, strict=True))
    return torch.func.jvp(_formula(ctx.given), saved, moved)[1]


def _formula(given: list[int]) -> Callable[..., tuple[Tensor, ...]]:
    """The double backward pass as a function of those of its inputs that are tensors."""

    def formula(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(given, tensors, strict=True))
        return reference.soft_forest_double_backward(*(inputs.get(k) for k in range(7)))  # type: ignore[arg-type]

    return formula


def _front(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    return tensor.movedim(dim, 0) if dim is not None else tensor.expand(size, *tensor.shape)


def _vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
    tensors = [_front(t, dim, info.batch_size) for t, dim in zip(inputs[:3], in_dims[:3], strict=True)]
    out = _call(*(t.flatten(0, 1) for t in tensors), inputs[3])
    return out.unflatten(0, tensors[0].shape[:2]), 0


def _vmap_backward(
    info: Any, in_dims: tuple[int | None, ...], *inputs: Any
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    tensors = [_front(t, dim, info.batch_size) for t, dim in zip(inputs[:4], in_dims[:4], strict=True)]
    grads = _call_backward(*(t.flatten(0, 1) for t in tensors), inputs[4])
    return tuple(grad.unflatten(0, tensors[0].shape[:2]) for grad in grads), (0, 0, 0)


def _vmap_double_backward(
    info: Any, in_dims: tuple[int | None, ...], *inputs: Any
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    given = zip(inputs[:7], in_dims[:7], strict=True)
    tensors = [None if t is None else _front(t, dim, info.batch_size) for t, dim in given]
    flat = (None if t is None else t.flatten(0, 1) for t in tensors)
    grads = _call_double_backward(*flat, inputs[7])
    lead = _front(inputs[4], in_dims[4], info.batch_size).shape[:2]
    return tuple(grad.unflatten(0, lead) for grad in grads), (0, 0, 0, 0)


FORWARD, BACKWARD = "otkernels::soft_forest", "otkernels::soft_forest_backward"
DOUBLE_BACKWARD = "otkernels::soft_forest_double_backward"
torch.library.define(FORWARD, "(Tensor z, Tensor thresholds, Tensor leaves, str impl) -> Tensor")
torch.library.impl(FORWARD, ("cpu", "cuda"), _forward)
torch.library.register_fake(FORWARD, _fake)
_call = _transforms.register("soft_forest", _setup_context, _backward, _jvp, _vmap)
torch.library.define(
    BACKWARD,
    "(Tensor grad_out, Tensor z, Tensor thresholds, Tensor leaves, str impl) -> (Tensor, Tensor, Tensor)",
)
torch.library.impl(BACKWARD, ("cpu", "cuda"), _forward_backward)
torch.library.register_fake(BACKWARD, _fake_backward)
_call_backward = _transforms.register(
    "soft_forest_backward", _setup_backward_context, _double_backward, _jvp_backward, _vmap_backward
)
torch.library.define(
    DOUBLE_BACKWARD,
    "(Tensor? dz, Tensor? dthresholds, Tensor? dleaves, Tensor grad_out, Tensor z, Tensor thresholds, Tensor leaves, "
    "str impl) -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl(DOUBLE_BACKWARD, ("cpu", "cuda"), _forward_double_backward)
torch.library.register_fake(DOUBLE_BACKWARD, _fake_double_backward)
_call_double_backward = _transforms.register(
    "soft_forest_double_backward",
    _setup_double_backward_context,
    _triple_backward,
    _jvp_double_backward,
    _vmap_double_backward,
)
