"""The potential of a semidiscrete or capacity-constrained transport problem, by ascent on l2_argmin passes.

How the ascent was chosen: the largest error of a cell's mass, in units of 1 / M, that 300 passes over x reach, with N
points of x, equal weights, float32 and one seed a row; M / N is one point. "apart" and "noise to data" are a normal law
and a shifted one or ten clusters; in "clusters" both laws have eight tight clusters, in other places.

    law, N x M x d                 M / N  gradient  momentum  Nesterov  Rprop  Adam, cosine  steps below  and coarser
    gaussian 4096 x 64 x 2         0.016    0.06      0.03      0.02     0.02      0.02          0.02         0.02
    clusters 4096 x 64 x 2         0.016    7.3       7.2       3.3      15        3.0           1.0          0.09
    clusters 4096 x 64 x 128       0.016    7.4       7.5       1.2      12        4.5           0.08         0.08
    gaussian 16384 x 1024 x 2      0.063    1.1       0.8       0.9      0.3       0.8           1.0          0.12
    apart 16384 x 1024 x 2         0.063    20        26        6.0      74        0.4           1.0          0.12
    noise to data 16384 x 1024 x 2 0.063    3.2       1.4       1.2      35        22            1.0          0.12
    clusters 16384 x 1024 x 2      0.063    130       130       120      130       46            24           1.1

Potentials of clustered points have two scales, the distance of the clusters and their width. Steps that start at the
first and shrink to the second, and a start from a coarser problem where a cluster is one point, find both; steps that
adapt to what they meet (Rprop, or shrinking where the dual value stalls) stop at one. 1000 passes in float64 bring the
last row to 0.2. Batches of 4 M rows reach 0.1 to 0.5 where M = 64, 0.2 where M = 1024 outside clusters and 1.1 in them,
for a quarter to a sixteenth of the work. Averaging the potentials on the way gained little outside clusters and lost in
them (nine cases, with a last step of 1e-4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from . import _checks
from .l2_argmin import l2_argmin

COARSEST = 16  # cells or fewer start from zero potentials
COARSE_PASSES, COARSE_TOLERANCE = 100, 0.05
FIRST_STEP, LAST_STEP = 0.3, 1e-5  # of the costs' spread
MEMORY = (0.8, 0.95)  # of the moving averages of the slope and of its square
SATURATION = 0.1  # slopes well above it are moved by a whole step, below it in proportion


class Semidiscrete(NamedTuple):
    """What semidiscrete returns; leading dimensions are those of x and y.

    Attributes:
        potential: [..., M], in x's dtype (float32 for half precisions), with mean zero under weights_y.
        value: [...] float64, the dual value at the potential: a lower bound of the transport cost.
        marginal_error: [...] float64, max_j |mass_j - b_j|, where mass_j is the sum of the a_i with index_i = j.
        converged: [...] bool, whether the error is within the tolerance.
        iterations: steps made at the finest level, by the slowest of the problems.
    """

    potential: Tensor
    value: Tensor
    marginal_error: Tensor
    converged: Tensor
    iterations: int


torch.serialization.add_safe_globals([Semidiscrete])
pytree._register_namedtuple(Semidiscrete, serialized_type_name="otkernels.Semidiscrete")


class _Problem(NamedTuple):
    """x [B, N, D], y [B, M, D] in float32 or float64; weights a [B, N] and b [B, M] in float64, each of sum 1."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    impl: str

    def evaluate(self, potential: Tensor) -> tuple[Tensor, Tensor]:
        """Masses of the cells [B, M] and the dual value [B]."""
        value, index = l2_argmin(self.x, self.y, potential, impl=self.impl)
        mass = torch.zeros_like(self.b).scatter_add_(1, index, self.a)
        return mass, (self.a * value).sum(1) + (self.b * potential.where(self.b > 0, 0)).sum(1)

    def centred(self, potential: Tensor) -> Tensor:
        return potential - (self.b * potential.where(self.b > 0, 0)).sum(1, keepdim=True)

    def sample(self, batch: int, shares: Tensor, generator: torch.Generator | None) -> _Problem:
        """With `batch` rows of x, drawn in proportion to a; shares [B, N] are the sums of a up to each row."""
        at = torch.rand(len(shares), batch, dtype=shares.dtype, device=shares.device, generator=generator)
        rows = torch.searchsorted(shares, at, right=True).clamp_max(self.x.shape[1] - 1)
        return self._replace(x=self.x.take_along_dim(rows[..., None], 1), a=torch.full_like(at, 1 / batch))


@torch.no_grad()
def semidiscrete(
    x: Tensor,
    y: Tensor,
    weights_x: Tensor | None = None,
    weights_y: Tensor | None = None,
    *,
    start: Tensor | None = None,
    batch: int | None = None,
    iterations: int = 500,
    tolerance: float = 0.01,
    generator: torch.Generator | None = None,
    impl: str = "auto",
) -> Semidiscrete:
    """The potential g of y whose cells have the masses b: semidiscrete transport (Peyre & Cuturi 2019, ch. 5).

        maximise over g   sum_i a_i min_j (|x_i - y_j|^2 - g_j) + sum_j b_j g_j

    The slope in g_j is b_j less the mass of cell j, the a_i of all x_i for which j attains the minimum. Once g is
    found, `l2_argmin(x, y, potential=g).index` pairs these and any further x; weights_y are capacities of the cells.

    Args:
        x: [..., N, D] points of the law to divide up; float32, float64, float16 or bfloat16.
        y: [..., M, D] points, M >= 1, the same leading dimensions, dtype and device.
        weights_x: [..., N] a, not negative; divided by their sum. None for equal ones.
        weights_y: [..., M] b, likewise. Where b_j = 0 the potential is -inf: no x is paired with y_j.
        start: [..., M] potential to start from. None starts from that of a coarser problem with M / 4 points, and so on
            (Merigot 2011, multiscale), or from zeros where iterations = 0.
        batch: how many rows of x, drawn afresh, one step looks at; None for all. The coarser problems look at as many.
        iterations: steps at most; 0 evaluates `start` alone. The steps' sizes are spread over this number.
        tolerance: stop once marginal_error <= tolerance / M + max_i a_i. Take N >= 100 M or so: with fewer points the
            second term lets cells be off by a large part of their mass. Of small weights b_j the same is true; compare
            marginal_error with them.
        generator: what draws rows for `batch`, on x's device; None for torch's own.
        impl: of l2_argmin.

    A cell's mass is a sum of whole a_i, so an error of zero need not be possible: therefore max_i a_i in the tolerance.
    Copies of a point among x go to one cell together, and copies of a point among y have one cell between them, that
    of the largest potential and lowest index: where such copies weigh more than the tolerance, it is not reached,
    `iterations` are made and converged is False. So it is where float32 is too coarse for the potential: costs of
    |x - y|^2 = 1e4 have steps of 1e-3. Where masses must be exact, `balanced` rounds.

    The steps shrink geometrically from 0.3 to 1e-5 of the spread of |x_i - y_j|^2 over j. With batch=None the potential
    of the least error is returned, which is never worse than `start`, and the first that meets the tolerance ends the
    ascent. With a batch all iterations are made; the last potential is returned, which may be worse than `start`, and
    its value and error are those on all of x.

    Memory O(N + M). A problem with NaN or infinite points, or with costs that overflow, has NaN as potential, value and
    error, and has not converged. Nothing here is differentiable. By Danskin's theorem the gradient of the value is that
    of the formula with g held fixed, which l2_argmin gives.

    Raises:
        ValueError: a shape, dtype, device, weight or option is wrong; the message names it.
    """
    x, y, start = _checks.autocast(x, y, start)
    problem, g = _problem(x, y, weights_x, weights_y, start, impl)
    iterations = iterations if iterations == 0 else _checks.count("semidiscrete", "iterations", iterations)
    tolerance = _checks.number("semidiscrete", "tolerance", tolerance)
    if batch is not None:
        batch = min(_checks.count("semidiscrete", "batch", batch), x.shape[-2])
    lead, m = x.shape[:-2], y.shape[-2]
    broken = _broken(problem, g)
    x, y = (points.masked_fill(broken[:, None, None], 0) for points in problem[:2])
    problem = problem._replace(x=x, y=y)
    goal = (tolerance / m + problem.a.amax(1)).masked_fill(broken, torch.inf)  # [B]
    sample = problem if batch is None else problem.sample(batch, problem.a.cumsum(1), generator)
    parents = None
    if g is None and iterations > 0:
        g, parents = _from_coarser(sample)
    elif g is None:
        g = y.new_zeros(problem.b.shape)
    g = problem.centred(g.masked_fill(broken[:, None], 0).masked_fill(problem.b == 0, -torch.inf)).to(x.dtype)
    step = FIRST_STEP * _spread(sample, parents)
    if batch is None:
        g, made = _climb(problem, g, step, iterations, goal)
    else:
        g, made = _climb_batches(problem, g, step, iterations, batch, generator)
    mass, value = problem.evaluate(g)
    error = (mass - problem.b).abs().amax(1)
    g, value, error = (t.masked_fill(broken.view(-1, *[1] * (t.dim() - 1)), torch.nan) for t in (g, value, error))
    return Semidiscrete(g.view(*lead, m), value.view(lead), error.view(lead), (error <= goal).view(lead), made)


def _problem(
    x: Tensor, y: Tensor, weights_x: Tensor | None, weights_y: Tensor | None, start: Tensor | None, impl: str
) -> tuple[_Problem, Tensor | None]:
    """The arguments, checked, with one leading dimension; half precisions become float32."""
    _checks.alike("semidiscrete", x=x, y=y)
    if x.dim() < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"semidiscrete: x must be [..., N, D] with N, D >= 1, got {_checks.shape(x)}")
    lead, d = x.shape[:-2], x.shape[-1]
    if y.dim() != x.dim() or y.shape[:-2] != lead or y.shape[-1] != d or y.shape[-2] < 1:
        shape = _checks.named(lead, "M, D")
        raise ValueError(f"semidiscrete: y must be {shape} with D={d} and M >= 1, got {_checks.shape(y)}")
    a, b = _weights("weights_x", weights_x, x, "N"), _weights("weights_y", weights_y, y, "M")
    x, y = (t.float() if t.dtype in _checks.HALVES else t for t in (x, y))
    if start is not None:
        _checks.alike("semidiscrete", x=x, start=start)
        if start.shape != y.shape[:-1]:
            shape = _checks.named(lead, "M")
            raise ValueError(f"semidiscrete: start must be {shape} with M={y.shape[-2]}, got {_checks.shape(start)}")
        start = start.reshape(-1, y.shape[-2])
    x, y = (t.reshape(-1, *t.shape[-2:]) for t in (x, y))
    return _Problem(x, y, a, b, impl), start


def _weights(name: str, weights: Tensor | None, points: Tensor, count: str) -> Tensor:
    """[B, count] in float64 with sum 1 from weights [..., count]."""
    size = points.shape[-2]
    if weights is None:
        return points.new_full((points[..., 0].numel() // size, size), 1 / size, dtype=torch.float64)
    _checks.alike("semidiscrete", **{name: weights})
    if weights.shape != points.shape[:-1] or weights.device != points.device:
        shape = f"{_checks.named(points.shape[:-2], count)} with {count}={size} on {points.device}"
        raise ValueError(f"semidiscrete: {name} must be {shape}, got {_checks.shape(weights)} on {weights.device}")
    wide = weights.double().reshape(-1, size)
    total = wide.sum(1, keepdim=True)
    if not ((wide >= 0).all() and (total > 0).all() and total.isfinite().all()):
        raise ValueError(f"semidiscrete: {name} must be finite, not negative and not all zero, got {weights}")
    return wide / total


def _broken(p: _Problem, start: Tensor | None) -> Tensor:
    """[B]: which problems have points or a start that are not finite, or costs beyond the dtype."""
    size = p.x.square().sum(2).amax(1) + p.y.square().sum(2).amax(1)  # costs are at most twice as large
    broken = ~(4 * size).isfinite()
    return broken if start is None else broken | (~start.isfinite() & (p.b > 0)).any(1)


class _Ascent:
    """Steps of Adam in the relative error of the masses, 1 - mass_j / b_j, whose size falls geometrically."""

    def __init__(self, p: _Problem, step: Tensor, iterations: int) -> None:
        self.step, self.iterations, self.made = step[:, None], iterations, 0
        self.first = self.second = torch.zeros_like(p.b)

    def move(self, p: _Problem, g: Tensor, mass: Tensor) -> Tensor:
        slope = torch.where(p.b > 0, 1 - mass / p.b, 0)
        shrink = (LAST_STEP / FIRST_STEP) ** (self.made / self.iterations)
        self.made += 1
        first, second = MEMORY
        self.first = first * self.first + (1 - first) * slope
        self.second = second * self.second + (1 - second) * slope.square()
        size = (self.second / (1 - second**self.made)).sqrt()
        return p.centred(g + self.step * shrink * self.first / (1 - first**self.made) / (size + SATURATION))


def _climb(p: _Problem, g: Tensor, step: Tensor, iterations: int, goal: Tensor) -> tuple[Tensor, int]:
    """The potential of the least error within so many steps, the first whose error is within the goal [B]."""
    ascent = _Ascent(p, step, iterations)
    least, found, g = torch.full_like(goal, torch.inf), g, g.double()
    while True:
        rounded = g.to(p.x.dtype)
        mass, _ = p.evaluate(rounded)
        error = (mass - p.b).abs().amax(1)
        better = (error < least) & (least > goal)
        least = error.where(better, least)
        found = rounded.where(better[:, None], found)
        if ascent.made == iterations or (least <= goal).all():
            return found, ascent.made
        g = ascent.move(p, g, mass)


def _climb_batches(
    p: _Problem, g: Tensor, step: Tensor, iterations: int, batch: int, generator: torch.Generator | None
) -> tuple[Tensor, int]:
    """The potential after all steps, each by rows drawn afresh."""
    ascent = _Ascent(p, step, iterations)
    shares, dtype, g = p.a.cumsum(1), g.dtype, g.double()
    for _ in range(iterations):
        part = p.sample(batch, shares, generator)
        g = ascent.move(part, g, part.evaluate(g.to(dtype))[0])
    return g.to(dtype), iterations


def _from_coarser(p: _Problem) -> tuple[Tensor, Tensor | None]:
    """A potential [B, M] to start from, by a problem with a quarter of the points, and each point's stand-in there.

    The coarse potential is carried over by two c-transforms: v_i = min_k |x_i - c_k|^2 - g_k, g_j = min_i |x_i - y_j|^2
    - v_i (Merigot 2011 takes g_k of the nearest c_k, which knows nothing of where in the cell y_j lies).
    """
    if p.y.shape[1] <= COARSEST:
        return p.y.new_zeros(p.b.shape), None
    coarse, parents = _coarser(p)
    g, grandparents = _from_coarser(coarse)
    g = coarse.centred(g.masked_fill(coarse.b == 0, -torch.inf)).to(p.x.dtype)
    goal = COARSE_TOLERANCE / (coarse.b > 0).sum(1) + p.a.amax(1)
    g, _ = _climb(coarse, g, FIRST_STEP * _spread(coarse, grandparents), COARSE_PASSES, goal)
    v = l2_argmin(p.x, coarse.y, g, impl=p.impl).value
    return l2_argmin(p.y, p.x, v, impl=p.impl).value, parents


def _coarser(p: _Problem) -> tuple[_Problem, Tensor]:
    """Every fourth y after two of Lloyd's steps, with the weights of the y nearest to it; and each y's nearest."""
    centres = p.y[:, ::4]
    for last in (False, False, True):
        nearest = l2_argmin(p.y, centres, impl=p.impl).index  # [B, M]
        at = nearest[..., None].expand_as(p.y)
        weight = torch.zeros_like(p.b[:, ::4]).scatter_add_(1, nearest, p.b)
        if not last:
            sums = torch.zeros_like(centres, dtype=p.b.dtype).scatter_add_(1, at, p.y * p.b[..., None])
            means = (sums / weight[..., None]).to(p.y.dtype)
            centres = torch.where(weight[..., None] > 0, means, centres)
    return p._replace(y=centres, b=weight), centres.gather(1, at)


def _spread(p: _Problem, parents: Tensor | None) -> Tensor:
    """Standard deviation over j of |x_i - y_j|^2, less |x_i - parent_j|^2; the mean over at most 64 x_i: [B]."""
    if len(p.x) == 0:
        return torch.zeros_like(p.b[:, 0])  # torch warns of the deviation of nothing
    rows = torch.linspace(0, p.x.shape[1] - 1, min(64, p.x.shape[1]), device=p.x.device).long()
    centre = p.y.mean(1, keepdim=True)
    x, y = (points.double() for points in (p.x[:, rows] - centre, p.y - centre))  # which no autocast makes halves of
    cost = y.square().sum(2)[:, None] - 2 * x @ y.mT  # [B, 64, M]
    if parents is not None:
        parents = (parents - centre).double()
        cost = cost - parents.square().sum(2)[:, None] + 2 * x @ parents.mT
    return cost.std(2, correction=0).mean(1)
