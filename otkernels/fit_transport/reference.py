"""The definition of fit_transport, Algorithm 1 of POT-GAN, from the definitions of its parts, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..l2_argmin import l2_argmin
from ..l2_argmin import reference as nearest
from ..soft_forest import reference as forest
from ..soft_forest import soft_forest
from .state import AdamState


@torch.no_grad()
def fit_transport(
    z_r: Tensor,
    z_g: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
    state: AdamState,
    iters: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    pairing: str,
) -> tuple[Tensor, Tensor]:
    """`iters` times: pair, matched cost, one Adam step on the leaves. Updates leaves and state in place.

    z_r [B, N, o], z_g [B, M, d], thresholds [B, T, 2^D - 1], leaves and moments [B, T, 2^D, o]
    -> index [B, N] int64 of the last step, cost [B, iters], each before its update.
    """
    cost = z_r.new_empty(len(z_r), iters)
    for t in range(iters):
        transformed = forest.soft_forest(z_g, thresholds, leaves)  # [B, M, o]
        index = nearest.argmin(z_r, transformed, None)
        cost[:, t], grad = matched_cost(z_r, transformed, index, pairing)
        grad_leaves = forest.soft_forest_backward(grad, z_g, thresholds, leaves)[2]
        adam(leaves, grad_leaves, state, lr, betas, eps)
    return index, cost


def matched_cost(z_r: Tensor, transformed: Tensor, index: Tensor, pairing: str) -> tuple[Tensor, Tensor]:
    """The mean of |z_r[real] - F[generated]|^2 over the pairs [B], and its gradient to F [B, M, o].

    A pair whose index is -1 (distances with a NaN) makes both NaN.
    """
    n, m = z_r.shape[1], transformed.shape[1]
    each = torch.arange(n, device=index.device).expand_as(index)
    real, generated = (each, index % m) if pairing == "cover" else (index % n, each)  # -1 stands for the last row
    weight = z_r.new_full((), 1 / n).where(index >= 0, torch.nan)  # [B, N]
    at = generated[..., None].expand_as(z_r)
    difference = transformed.gather(1, at) - z_r.gather(1, real[..., None].expand_as(z_r))  # [B, N, o]
    grad = torch.zeros_like(transformed).scatter_add(1, at, 2 * weight[..., None] * difference)
    return (weight * difference.square().sum(-1)).sum(-1), grad


def transport_cost(
    z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, pairing: str, impl: str = "reference"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The matched cost [B], the share of F(z_g) in index [B], index [B, N] int64, and the gradient to z_g [B, M, d].

    NaN for a batch entry with a NaN or infinite z_r or F(z_g): cost, share and the gradients of pairs. ``impl``: of the
    ops of which it is made.
    """
    transformed = soft_forest(z_g, thresholds, leaves, impl=impl)  # [B, M, o]
    index = l2_argmin(*in_units(z_r, transformed), impl=impl).index
    lost = ~(z_r.isfinite().all((1, 2)) & transformed.isfinite().all((1, 2)))
    cost, grad = matched_cost(z_r, transformed, index.masked_fill(lost[:, None], -1), pairing)
    grad_z, _, _ = torch.ops.otkernels.soft_forest_backward(grad, z_g, thresholds, leaves, impl)
    return cost, share(index, transformed.shape[1]).masked_fill(lost, torch.nan).to(cost.dtype), index, grad_z


def in_units(z_r: Tensor, transformed: Tensor) -> tuple[Tensor, Tensor]:
    """Both divided by the power of two that brings the largest magnitude of a batch entry into [1, 2)."""
    largest = torch.maximum(z_r.abs().amax((1, 2)), transformed.abs().amax((1, 2)))
    unit = (largest / (2 * largest.frexp().mantissa)).nan_to_num(1)[:, None, None]  # NaN at 0, NaN and infinity
    return z_r / unit, transformed / unit


def share(index: Tensor, candidates: int) -> Tensor:
    """How many of ``candidates`` occur in index [B, N], as a share [B]; -1 counts as 0."""
    hit = torch.zeros(len(index), candidates, dtype=torch.float64, device=index.device)
    return hit.scatter(1, index.clamp(min=0), 1.0).mean(1)


def adam(
    leaves: Tensor,
    grad: Tensor,
    state: AdamState,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One step of Adam (Kingma and Ba 2015, Algorithm 1) in the operations of torch.optim.Adam, in place."""
    exp_avg, exp_avg_sq, step = state
    beta1, beta2 = betas
    step += 1
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    count = float(step)
    correction1, correction2 = 1 - beta1**count, 1 - beta2**count
    denominator = (exp_avg_sq.sqrt() / correction2**0.5).add_(eps)
    leaves.addcdiv_(exp_avg, denominator, value=-lr / correction1)
