"""Ops on problems that are large enough for several OpenMP threads, each with all of its results and gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from otkernels import AdamState, assign, balanced, fit_transport, l2_argmin, l2_topk, soft_forest, transport_cost

Results = tuple[Tensor, ...]


def make_ops(seed: int) -> dict[str, Callable[[], Results]]:
    """By name; every call of one returns the same bits, whatever the thread and the number of threads."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, y, potential = randn(600, 40), randn(700, 40), randn(700)
    many_x, many_y = randn(12, 100, 40), randn(12, 120, 40)
    low_x, low_y = randn(1500, 3), randn(1800, 3)
    few_x, few_y = randn(8, 60, 20), randn(8, 70, 20)
    long_x, long_y = randn(1100, 8), randn(1100, 8)
    z, thresholds, leaves = randn(1500, 9), randn(6, 15), randn(6, 16, 12)
    weight, tangents = randn(1500, 12), (randn(1500, 9), randn(6, 15), randn(6, 16, 12))
    z_r, z_g, splits, start = randn(300, 24), randn(300, 9), randn(8, 15), randn(8, 16, 24)

    def nearest_with_gradients() -> Results:
        inputs = [t.detach().requires_grad_() for t in (x, y, potential)]
        value, index = l2_argmin(*inputs)
        return value.detach(), index, *torch.autograd.grad(value.sum(), inputs)

    def forest_with_gradients() -> Results:
        inputs = [t.detach().requires_grad_() for t in (z, thresholds, leaves)]
        out = soft_forest(*inputs)
        grads = torch.autograd.grad(out, inputs, weight, create_graph=True)
        second = torch.autograd.grad(grads, inputs, tangents)
        return tuple(t.detach() for t in (out, *grads, *second))

    def transport() -> Results:
        moved = start.clone()
        state = AdamState.zeros_like(moved)
        return *fit_transport(z_r, z_g, splits, moved, state, iters=2, lr=0.01), moved, *state

    def cost_with_gradient() -> Results:
        z = z_g.detach().requires_grad_()
        found = transport_cost(z_r, z, splits, start)
        return *(t.detach() for t in found), torch.autograd.grad(found.cost.sum(), z)[0]

    return {
        "l2_argmin": lambda: l2_argmin(x, y, potential),
        "l2_argmin, a batch": lambda: l2_argmin(many_x, many_y),
        "l2_argmin, few dimensions": lambda: l2_argmin(low_x, low_y),
        "l2_argmin, gradients": nearest_with_gradients,
        "l2_topk": lambda: l2_topk(x, y, 9, potential),
        "l2_topk, a batch": lambda: l2_topk(many_x, many_y, 9),
        "l2_topk, few dimensions": lambda: l2_topk(low_x, low_y, 9),
        "soft_forest, gradients and theirs": forest_with_gradients,
        "fit_transport": transport,
        "transport_cost": cost_with_gradient,
        "assign, matrices": lambda: assign(few_x, few_y)[:3],  # primal and dual are torch's sums
        "assign, lists": lambda: assign(long_x, long_y)[:3],
        "balanced": lambda: (balanced(few_x, few_y[:, :7]),),
    }


def equal(first: Results, second: Results) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
