"""transport_cost as a torch op: public function, checks, fake, and the gradient that the call itself computes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .. import _checks, _dispatch, _transforms
from . import native, reference
from .op import check_latents, check_pairing, check_thresholds

OP = "transport_cost"


class TransportCost(NamedTuple):
    """What transport_cost returns.

    cost [...]; used [...], how many different numbers index holds, as a share of M; index [..., N] int64.
    """

    cost: Tensor
    used: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody misses here


# torch.load(weights_only=True) and torch.export.save know the results of ops by these names
torch.serialization.add_safe_globals([TransportCost])
pytree._register_namedtuple(TransportCost, serialized_type_name="otkernels.TransportCost")


def transport_cost(
    z_r: Tensor,
    z_g: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
    *,
    pairing: str = "cover",
    impl: str = "auto",
) -> TransportCost:
    """What POT-GAN's generator pays for latent transport (Avraham et al. 2019, Eq. 13), with its gradient, in one call.

        index_i = argmin_j |z_r[i] - F(z_g[j])|^2

        cost, cover:    mean_i |z_r[i] - F(z_g[index_i])|^2
        cost, literal:  mean_i |z_r[index_i] - F(z_g[i])|^2, N = M (Algorithm 1 as it is printed)

    F is `soft_forest(., thresholds, leaves)`, and `fit_transport` trains its leaves for the same cost. Pairs are held
    fixed in the gradient.

    Args:
        z_r: [..., N, d_out] real latents; float32 or float64.
        z_g: [..., M, d] generated latents, before F; the gradient of cost reaches them.
        thresholds: [T, 2^D - 1], or [..., T, 2^D - 1] with z_r's leading dimensions.
        leaves: [T, 2^D, d_out], or [..., T, 2^D, d_out] likewise.
        pairing: "cover" or "literal", as for fit_transport.
        impl: "auto", "cpu", "cuda" or "reference"; one that cannot run raises and says why.

    Returns:
        cost [...] (squared units of z_r), differentiable once and in z_g alone; used [...], for "cover" the share of
        generated latents that have a pair; index [..., N]. If a batch element holds a NaN or infinite z_r or F(z_g),
        its cost, its used and the gradients of its pairs are NaN, and rows whose distances are all NaN get index -1.

    Pairs are found in units of the largest coordinate, so that no square overflows or vanishes on the way to them.
    Deterministic: the same bits on every run and for every number of threads.

    Raises:
        ValueError: a shape, dtype, device or option is wrong, or z_r, thresholds or leaves require a gradient, which
            they would not get; the message names it.
        RuntimeError: the named impl cannot run here, or a gradient of the gradient is asked for.
        NotImplementedError: torch.func or forward mode differentiates the call.

    Example:
        >>> z_r, z_g = torch.randn(64, 2), torch.randn(64, 2, requires_grad=True)
        >>> forest = otkernels.nn.SoftForest(2)
        >>> paid = otkernels.transport_cost(z_r, z_g, forest.thresholds, forest.leaves.detach())
        >>> paid.cost.backward()
    """
    lead = _check(z_r, z_g, thresholds, leaves)
    check_pairing(OP, pairing, z_r, z_g)
    _dispatch.check(OP, impl)
    batch = math.prod(lead)
    z_r, z_g = (x.reshape(batch, *x.shape[-2:]) for x in (z_r, z_g))
    if thresholds.dim() == 2:
        thresholds = thresholds.expand(batch, *thresholds.shape)
    if leaves.dim() == 3:
        leaves = leaves.expand(batch, *leaves.shape)
    thresholds, leaves = thresholds.reshape(batch, *thresholds.shape[-2:]), leaves.reshape(batch, *leaves.shape[-3:])
    cost, used, index, _ = torch.ops.otkernels.transport_cost(z_r, z_g, thresholds, leaves, pairing, impl)
    return TransportCost(cost.view(lead), used.view(lead), index.view(*lead, z_r.shape[-2]))


def _check(z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor) -> torch.Size:
    """Raises what is wrong; returns the leading dimensions."""
    held = {"z_r": z_r, "thresholds": thresholds, "leaves": leaves}
    _checks.alike(OP, z_g=z_g, **held)
    _transforms.refuse_tangents(OP, z_r, z_g, thresholds, leaves)
    if _transforms.derivatives():
        raise NotImplementedError(
            f"{OP}: torch.func does not differentiate it: take torch.autograd, or compose soft_forest and l2_argmin"
        )
    lead, d_out = check_latents(OP, z_r, z_g), z_r.shape[-1]
    trees, width = leaves.shape[-3:-1] if leaves.dim() > 2 else (0, 0)
    forest = (trees, width, d_out)
    if trees < 1 or width < 1 or width & (width - 1) or leaves.shape not in (forest, (*lead, *forest)):
        raise ValueError(
            f"{OP}: leaves must be [T, 2^D, d_out] or {_checks.named(lead, 'T, 2^D, d_out')} with d_out={d_out}, "
            f"got {_checks.shape(leaves)}"
        )
    check_thresholds(OP, thresholds, leaves, lead)
    for name, tensor in held.items():
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{OP}: {name} must not require a gradient, which only z_g gets: pass {name}.detach()")
    return lead


def _forward(
    z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, pairing: str, impl: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """On the CPU compiled as one; on a GPU made of the ops, each with the implementation that is chosen for it."""
    name, _ = _dispatch.choose(OP, impl, z_r)
    if name == "cpu":
        return native.transport_cost(z_r, z_g, thresholds, leaves, pairing)
    return reference.transport_cost(z_r, z_g, thresholds, leaves, pairing, impl)


def _fake(z_r: Tensor, z_g: Tensor, thresholds: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, n = z_r.shape[:2]
    index = z_r.new_empty(batch, n, dtype=torch.int64)
    return z_r.new_empty(batch), z_r.new_empty(batch), index, z_g.new_empty(z_g.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[3])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad_cost: Tensor, *rest: object) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{OP}: has no second derivative; compose soft_forest and l2_argmin, which are differentiable any number "
            "of times"
        )
    (grad_z,) = ctx.saved_tensors
    return None, grad_cost[:, None, None] * grad_z, None, None, None, None


NAME = "otkernels::transport_cost"
torch.library.define(
    NAME,
    "(Tensor z_r, Tensor z_g, Tensor thresholds, Tensor leaves, str pairing, str impl) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl(NAME, ("cpu", "cuda"), _forward)
torch.library.register_fake(NAME, _fake)
torch.library.register_autograd(NAME, _backward, setup_context=_setup_context)
