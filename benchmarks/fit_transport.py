"""fit_transport, Algorithm 1 of POT-GAN whole, against its reference and against the ops that it is composed of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import otkernels
from otkernels.soft_forest import reference as forest

from .contestants import OURS, Case, Contestant, Inputs, Run, Suite, Verdict

TREES = {128: 18, 2: 16}  # by d: the paper's images and its toy data
DEPTH, ITERS = 3, 5
LR, BETAS, EPS = 2e-4, (0.5, 0.9), 1e-8
STEP = 100  # Adam is warm: its bias corrections and its moments are those of a run under way
SEED = 69  # with it no row of the judged sets has two costs within 3e-5 of each other, which rounding could swap
UNIT = 2.0**-24
TOLERANCE = 1e-4  # of a cost or of a moment's largest entry: sums of up to 256 * 128 float32 terms, about 2^-16


def case_of(n: int, d: int) -> Case:
    return Case("fit_transport", n, 0, d, f"d = {d}, T = {TREES[d]}")


def ours(impl: str = "auto") -> Any:
    """The loader of one implementation of the op; it returns the index, the costs and what it changed in place."""

    def load(case: Case) -> Run:
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            problem, state = inputs[:4], otkernels.AdamState(*inputs[4:])
            fitted = otkernels.fit_transport(
                *problem, state, iters=ITERS, lr=LR, betas=BETAS, eps=EPS, pairing="cover", impl=impl
            )
            return (fitted.index, fitted.cost, *inputs[3:])

        return run

    return load


def composed(case: Case) -> Run:
    """Algorithm 1 from soft_forest, l2_argmin, autograd and Adam, as the POT-GAN game plays it without the op."""

    def run(z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *moments, optimizer = rest
        costs = []
        for _ in range(ITERS):
            optimizer.zero_grad(set_to_none=True)
            transformed = otkernels.soft_forest(z_g, thresholds, leaves)  # [N, d]
            index = otkernels.l2_argmin(z_r, transformed.detach()).index
            cost = (z_r - transformed[index]).square().sum(1).mean()
            cost.backward()
            optimizer.step()
            costs.append(cost.detach())
        return (index, torch.stack(costs), leaves.detach(), *moments)

    return run


def own_state(inputs: Inputs) -> tuple[Any, ...]:
    """Copies of the tensors that a call changes, so that the inputs as drawn stay for the judge."""
    return (*inputs[:3], *(tensor.clone() for tensor in inputs[3:]))


def with_optimizer(inputs: Inputs) -> tuple[Any, ...]:
    """The same, and torch's fused Adam whose state these tensors are."""
    z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, step = own_state(inputs)
    leaves.requires_grad_()
    # capturable: on a GPU a CUDA graph must be able to replay it, and the eager call is to do the same work
    optimizer = torch.optim.Adam([leaves], lr=LR, betas=BETAS, eps=EPS, fused=True, capturable=leaves.is_cuda)
    optimizer.state[leaves] = {"step": step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    return z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, step, optimizer


def draw(case: Case, number: int, device: str = "cpu") -> Inputs:
    """z_r, z_g [N, d], thresholds [T, 2^D - 1], leaves, exp_avg, exp_avg_sq [T, 2^D, d], step [].

    Drawn on the CPU whatever the device. Moments are of the gradients' size, and exp_avg_sq is away from 0, where Adam
    would magnify rounding.
    """
    generator = torch.Generator().manual_seed(SEED + number)
    trees, leaf = TREES[case.d], (TREES[case.d], 2**DEPTH, case.d)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    z_r, z_g, thresholds = randn(case.n, case.d), randn(case.n, case.d), randn(trees, 2**DEPTH - 1)
    state = (trees**0.5 * randn(*leaf), 0.01 * randn(*leaf), 1e-4 * (0.5 + torch.rand(leaf, generator=generator)))
    return tuple(tensor.to(device) for tensor in (z_r, z_g, thresholds, *state, torch.tensor(float(STEP))))


def expect(inputs: Inputs, case: Case) -> Inputs:
    """The last step's pair costs [N, N], the costs [iters] and the state afterwards, by hand in float64."""
    z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, step = (tensor.double() for tensor in inputs)
    routes = forest.routing(z_g[None], thresholds[None])[0][0].flatten(1) / len(leaves)  # F = routes @ leaves
    costs = []
    for _ in range(ITERS):
        transformed = routes @ leaves.flatten(0, 1)  # [N, d]
        pairs = (z_r[:, None] - transformed).square().sum(2)
        least, index = pairs.min(1)
        costs.append(least.mean())
        pull = torch.zeros_like(transformed).index_add(0, index, 2 / case.n * (transformed[index] - z_r))
        gradient = (routes.T @ pull).view_as(leaves)
        step = step + 1
        exp_avg = BETAS[0] * exp_avg + (1 - BETAS[0]) * gradient
        exp_avg_sq = BETAS[1] * exp_avg_sq + (1 - BETAS[1]) * gradient.square()
        scale = (exp_avg_sq / (1 - BETAS[1] ** step)).sqrt() + EPS
        leaves = leaves - LR * exp_avg / (1 - BETAS[0] ** step) / scale
    return pairs, torch.stack(costs), leaves, exp_avg, exp_avg_sq, step


def judge(contestant: Contestant, case: Case, inputs: Inputs, result: Any, expected: Inputs) -> Verdict:
    """The leaves' largest difference from float64, relative to how far they move; index, costs, moments and step too.

    A leaf may lose 2 roundings of its size a step, and 1e-3 of the movement: an Adam that is only nearly Adam's differs
    by more. index must attain the last step's least costs.
    """
    index, costs, leaves, exp_avg, exp_avg_sq, step = (tensor.detach() for tensor in result)
    pairs, *wanted, step_after = expected
    if index.shape != (case.n,) or index.min() < 0 or index.max() >= case.n or step != step_after:
        return Verdict(False, float("inf"))
    start = inputs[3].double()
    moved = (wanted[1] - start).abs().max()
    error = float((leaves.double() - wanted[1]).abs().max() / moved)
    least = pairs.amin(1)
    excess = pairs.gather(1, index[:, None])[:, 0] - least
    figures = zip((costs, exp_avg, exp_avg_sq), (wanted[0], wanted[2], wanted[3]), strict=True)
    right = (
        error <= 1e-3 + 2 * ITERS * UNIT * float(start.abs().max() / moved)
        and bool((excess <= TOLERANCE * least).all())
        and all(bool((got.double() - want).abs().max() <= TOLERANCE * want.abs().max()) for got, want in figures)
    )
    return Verdict(right, error)


ABOUT = (
    f"float32, D = {DEPTH}, {ITERS} inner steps a call, pairing `cover`, Adam (lr {LR:g}, betas {BETAS}) from step "
    f"{STEP}; the state changes in place from call to call. Error: the leaves' largest difference from float64, "
    f"relative to how far they move in the call; timed only if within 1e-3 and {2 * ITERS} roundings of a leaf, and if "
    f"index attains the least costs and costs and moments are within {TOLERANCE:g}."
)

SUITE = Suite(
    op="fit_transport",
    cases=(case_of(64, 128), case_of(256, 128), case_of(64, 2), case_of(256, 2)),
    quick=(case_of(64, 128),),
    contestants=(
        Contestant(OURS, ours(), convert=own_state),
        Contestant("composed ops", composed, convert=with_optimizer),
        Contestant("reference", ours("reference"), convert=own_state),
    ),
    draw=draw,
    expect=expect,
    judge=judge,
    error_name="error",
    steps=ITERS,
    about=(
        ABOUT + " Contestants: `otkernels.fit_transport`; the composed ops (`soft_forest`, `l2_argmin`, autograd, "
        "`torch.optim.Adam(fused=True)`); the op's reference implementation."
    ),
)
