"""Random problems of semidiscrete, and whether what it reports is so."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from otkernels import Semidiscrete, semidiscrete
from tests.fuzz.draw import INF, NAN, PLAIN, Choices, batched, cloud, laid_out, randn
from tests.otkernels.cells import reported_error, weights
from tests.otkernels.nearest import costs, in_units

POINTS = (1, 2, 3, 5, 8, 16, 17, 33, 65, 100)
CENTRES = (1, 2, 3, 5, 16, 17, 20, 33)


class Cells(NamedTuple):
    x: Tensor
    y: Tensor
    weights_x: Tensor | None
    weights_y: Tensor | None
    start: Tensor | None
    options: dict[str, int | float | None]
    seed: int

    def solve(self) -> Semidiscrete:
        generator = torch.Generator().manual_seed(self.seed)
        return semidiscrete(*self[:4], start=self.start, generator=generator, **self.options)


def draw(choices: Choices) -> Cells:
    lead = choices.pick("lead", ((), (), (1,), (3,), (2, 2), (0,)))
    n, m, d = choices.pick("n", POINTS), choices.pick("m", CENTRES), choices.pick("d", (1, 2, 3, 4, 5, 8, 17, 33))
    x, y = cloud(choices, (*lead, n, d), (*lead, m, d), PLAIN)
    dtype = choices.pick("dtype", (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16))
    x, y = x.to(dtype), y.to(dtype)
    for k in range(choices.pick("special values", (0, 0, 0, 0, 1))):
        tensor = {"x": x, "y": y}[choices.pick(f"special {k} in", ("x", "y"))]
        if tensor.numel():
            at = choices.pick(f"special {k} at", range(tensor.numel()))
            tensor.view(-1)[at] = choices.pick(f"special {k}", (NAN, INF, -INF))
    given = []
    for name, shape in (("weights_x", (*lead, n)), ("weights_y", (*lead, m))):
        kind = choices.pick(name, ("equal", "equal", "random", "some zero"))
        drawn = randn(choices, *shape).abs() + 0.1
        if kind == "some zero":
            drawn[..., 1::3] = 0
        given.append(None if kind == "equal" else laid_out(choices, name, drawn.float()))
    start = randn(choices, *lead, m) if choices.pick("start", ("none", "none", "random")) == "random" else None
    start = None if start is None else start.to(torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype)
    options = {
        "iterations": choices.pick("iterations", (10, 0, 1, 30)),
        "tolerance": choices.pick("tolerance", (0.01, 0.0, 0.5)),
        "batch": choices.pick("batch", (None, None, 8)),
    }
    seed = choices.pick("seed of batches", range(1000))
    return Cells(laid_out(choices, "x", x), laid_out(choices, "y", y), *given, start, options, seed)


def judge(p: Cells) -> float:
    """The worst error in units of its tolerance; AssertionError for what no rounding excuses."""
    found, lead = p.solve(), p.x.shape[:-2]
    n, m = p.x.shape[-2], p.y.shape[-2]
    compute = torch.float64 if p.x.dtype == torch.float64 else torch.float32
    assert (found.potential.shape, found.potential.dtype) == (p.y.shape[:-1], compute), "potential's shape or dtype"
    assert found.value.shape == found.marginal_error.shape == found.converged.shape == lead, "shapes"
    x, y = (batched(t.to(compute), len(lead)) for t in (p.x, p.y))
    a, b = (batched(weights(w, t), len(lead)) for w, t in ((p.weights_x, p.x), (p.weights_y, p.y)))
    every = Semidiscrete(*(batched(part, len(lead)) for part in found[:4]), 0)
    whole = (4 * sum(t.square().sum(2).amax(1) for t in (x, y))).isfinite()  # costs are at most twice the sum
    for part in every[:3]:
        assert part[~whole].isnan().all(), "a problem that is not finite has a number"
    assert not every.converged[~whole].any(), "and has converged"
    every = Semidiscrete(*(part[whole] for part in every[:4]), 0)
    x, y, a, b = (t[whole] for t in (x, y, a, b))
    if not len(x):
        return 0.0
    goal = p.options["tolerance"] / m + a.amax(1)
    assert torch.equal(every.converged, every.marginal_error <= goal), "converged is not what the error says"
    assert (every.potential[b == 0] == -INF).all(), "a point without weight may be chosen"
    # any plan costs at least the dual value: that of independent pairs, too
    g, u = every.potential.double().where(b > 0, 0), torch.finfo(compute).eps
    apart = (a[:, :, None] * b[:, None] * costs(x, y)).sum((1, 2))
    size = costs(x, y).amax((1, 2)) + 2 * g.abs().amax(1)
    rounding = (n + m + x.shape[-1] + 3) * u * size
    mean = (b * g).sum(1).abs()  # of potentials that were as large as costs, or as the start, before
    before = size if p.start is None else size + batched(p.start, len(lead))[whole].double().abs().amax(1)
    return max(
        reported_error(every, x, y, a, b),
        in_units((every.value - apart).clamp_min(0), rounding),
        in_units(mean, (m + 2) * (u * g.abs().amax(1) + 2.0**-52 * before)),
    )
