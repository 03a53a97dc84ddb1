"""Random problems of fit_transport and transport_cost, and whether an implementation solves them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from otkernels import AdamState, fit_transport, transport_cost
from tests.fuzz.draw import NAN, Choices, dense, laid_out, randn, same_bits, within
from tests.otkernels.transports import cost_error, one_step_error

POINTS = (1, 2, 3, 5, 8, 9, 16, 17, 31, 33, 64, 65)
WIDTHS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 37, 65)


class Transport(NamedTuple):
    z_r: Tensor
    z_g: Tensor
    thresholds: Tensor
    leaves: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor
    options: dict[str, object]
    iters: int
    impl: str

    def solve(self, iters: int) -> tuple[Tensor, Tensor]:
        """Updates leaves and moments in place."""
        return fit_transport(*self[:4], AdamState(*self[4:7]), iters=iters, impl=self.impl, **self.options)

    def copy(self) -> Transport:
        """With a state of its own to update."""
        return self._replace(**{name: getattr(self, name).clone() for name in self._fields[3:7]})


def draw(choices: Choices) -> Transport:
    lead = choices.pick("lead", ((), (), (1,), (3,), (2, 2), (0,)))
    pairing = choices.pick("pairing", ("cover", "literal"))
    n, m = choices.pick("n", POINTS), choices.pick("m", POINTS)
    depth, trees = choices.pick("depth", (0, 1, 2, 3, 4, 6)), choices.pick("trees", (1, 2, 3, 5, 16))
    d, d_out = choices.pick("d", WIDTHS), choices.pick("d_out", WIDTHS)
    n, m, d_out = within((1 << 15) // max(1, math.prod(lead)), n, m, d_out)
    m = n if pairing == "literal" else m
    own = choices.pick("thresholds", ((), lead))
    leaves = (*lead, trees, 2**depth, d_out)
    z_r, z_g, thresholds = (randn(choices, *s) for s in ((*lead, n, d_out), (*lead, m, d), (*own, trees, 2**depth - 1)))
    if choices.pick("z_g", ("normal", "normal", "copies")) == "copies":
        z_g = z_g[..., torch.arange(m) % 2, :] if m > 1 else z_g
    scale = choices.pick("scale", (1.0, 1.0, 1e-6, 1e4))
    z_r, trained = scale * z_r, scale * randn(choices, *leaves) * trees**0.5
    exp_avg, exp_avg_sq = scale * randn(choices, *leaves) / n, (scale * randn(choices, *leaves) / n).square()
    step = choices.pick("step", (3.0, 0.0, 1.0, 1000.0))
    if step == 0:
        exp_avg, exp_avg_sq = torch.zeros_like(exp_avg), torch.zeros_like(exp_avg_sq)
    for k in range(choices.pick("NaN", (0, 0, 0, 0, 1, 2))):
        tensor = {"z_r": z_r, "z_g": z_g}[choices.pick(f"NaN {k} in", ("z_r", "z_g"))]
        if tensor.numel():
            tensor.view(-1)[choices.pick(f"NaN {k} at", range(tensor.numel()))] = NAN
    dtype = choices.pick("dtype", (torch.float32, torch.float32, torch.float64))
    options = {
        "pairing": pairing,
        "lr": choices.pick("lr", (0.01, 2e-4, 1.0, 0.0)),
        "betas": choices.pick("betas", ((0.5, 0.9), (0.9, 0.999), (0.0, 0.9), (0.3, 0.0))),
        "eps": choices.pick("eps", (1e-8, 1e-3)),
    }
    views = (laid_out(choices, n, t.to(dtype)) for n, t in (("z_r", z_r), ("z_g", z_g), ("thresholds", thresholds)))
    state = (t.to(dtype).contiguous() for t in (trained, exp_avg, exp_avg_sq))
    impl = choices.pick("impl", ("cpu", "cpu", "auto", "reference"))
    return Transport(*views, *state, torch.tensor(step), options, choices.pick("iters", (1, 2, 3)), impl)


def judge(p: Transport) -> float:
    """Step by step; then all steps in one call, which must leave the same bits, whatever the strides."""
    by_step, error, costs = p.copy(), 0.0, []
    lost = _lost(p)  # [...]: entries that hold a NaN
    for _ in range(p.iters):
        before = by_step.copy()
        index, cost = by_step.solve(1)
        costs.append(cost)
        assert (index.shape, cost.shape) == (p.z_r.shape[:-1], (*p.z_r.shape[:-2], 1)), "shapes"
        _judge_lost(by_step, index, cost, lost)
        if not lost.all():
            kept = _kept(before, by_step, index, cost, ~lost)
            error = max(error, one_step_error(*kept, **p.options))
    plain = p.copy()._replace(**{name: dense(getattr(p, name)) for name in ("z_r", "z_g", "thresholds")})
    at_once = plain.solve(p.iters)
    ours, theirs = [*by_step[3:7], index, torch.cat(costs, -1)], [*plain[3:7], *at_once]
    assert same_bits(ours, theirs), "many steps in one call, or other strides, change the result"
    return error


def _kept(before: Transport, after: Transport, index: Tensor, cost: Tensor, kept: Tensor) -> tuple:
    """The arguments of one_step_error, of the entries that hold numbers alone."""
    if kept.dim() == 0:
        return before[:7], after[3:7], index, cost
    own = before.thresholds.dim() > 2
    thresholds = before.thresholds[kept] if own else before.thresholds
    first = (before.z_r[kept], before.z_g[kept], thresholds, *(t[kept] for t in before[3:6]), before.step)
    return first, (*(t[kept] for t in after[3:6]), after.step), index[kept], cost[kept]


def _lost(p: Transport) -> Tensor:
    """Entries in which a distance is NaN: one of z_r, or of z_g where the forest has nodes that read it."""
    nodes = p.thresholds.shape[-2] * p.thresholds.shape[-1]
    read = p.z_g[..., : min(nodes, p.z_g.shape[-1])]
    return p.z_r.isnan().any(-1).any(-1) | read.isnan().any(-1).any(-1)


def _judge_lost(p: Transport, index: Tensor, cost: Tensor, lost: Tensor) -> None:
    assert cost[lost].isnan().all(), "a cost without a NaN"
    for name, tensor in p._asdict().items():
        if name in ("leaves", "exp_avg", "exp_avg_sq"):
            assert tensor[lost].isnan().all(), f"{name} of an entry with a NaN is a number"
    rows = p.z_r.isnan().any(-1) & lost[..., None]
    assert (index[rows] == -1).all(), "a row with a NaN has no index -1"


def judge_cost(p: Transport) -> float:
    """transport_cost of the same problem: its results, its gradient, and the same bits whatever the strides."""
    found, lost = _paid(p), _lost(p)
    plain = p._replace(**{name: dense(getattr(p, name)) for name in ("z_r", "z_g", "thresholds")})
    assert same_bits(found, _paid(plain)), "other strides change the result"
    lead = p.z_r.shape[:-2]
    assert [t.shape for t in found] == [lead, lead, p.z_r.shape[:-1], p.z_g.shape], "shapes"
    thresholds = p.thresholds.expand(*lead, *p.thresholds.shape[-2:])
    flat = [t.reshape(math.prod(lead), *t.shape[len(lead) :]) for t in (*p[:2], thresholds, p.leaves, *found)]
    lost = lost.reshape(math.prod(lead))
    z_r, z_g, thresholds, leaves, cost, used, index, grad = flat
    assert cost[lost].isnan().all() and used[lost].isnan().all(), "a cost or a share without a NaN"  # noqa: PT018
    if lost.all():
        return 0.0
    z_r, z_g, thresholds, leaves, cost, used, index, grad = (t[~lost] for t in flat)
    return cost_error(z_r, z_g, thresholds, leaves, (cost, used, index), grad, p.options["pairing"])


def _paid(p: Transport) -> list[Tensor]:
    z_g = p.z_g.detach().requires_grad_()
    found = transport_cost(p.z_r, z_g, p.thresholds, p.leaves, pairing=p.options["pairing"], impl=p.impl)
    (grad,) = torch.autograd.grad(found.cost.sum(), z_g)
    return [*(t.detach() for t in found), grad]
