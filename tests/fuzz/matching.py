"""Random problems of assign and balanced, and whether an implementation solves them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

from otkernels import Assignment, assign, balanced, verify
from tests.fuzz.draw import CLOUDS, Choices, batched, cloud, dense, laid_out, potential, same_bits, with_special, within
from tests.otkernels.matching import UNIT, assert_agrees_with_scipy, optimal_error
from tests.otkernels.nearest import costs, in_units

native, sparse = (importlib.import_module(f"otkernels.assign.{name}") for name in ("native", "sparse"))
LARGEST = 1e150  # beyond which a problem is not solved
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 31, 32, 33, 40, 63, 64, 65)
DIMENSIONS = (1, 2, 3, 4, 5, 7, 8, 16, 17, 20, 33, 65)
LEADS = ((), (), (), (1,), (3,), (2, 2), (0,))
DTYPES = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Matching(NamedTuple):
    x: Tensor
    y: Tensor
    potential: Tensor | None
    tolerance: float
    impl: str

    def solve(self, tolerance: float | None = None) -> Assignment:
        """By the implementation that is asked for; "lists" are the compiled ones that large problems take."""
        tolerance = self.tolerance if tolerance is None else tolerance
        impl = "cpu" if self.impl == "lists" else self.impl
        with lists_for_all() if self.impl == "lists" else contextlib.nullcontext():
            return assign(self.x, self.y, potential=self.potential, tolerance=tolerance, impl=impl)


@contextlib.contextmanager
def lists_for_all() -> Iterator[None]:
    """No problem is small enough for a matrix, but for the coarsest levels."""
    with (
        mock.patch.multiple(native, MOST_DENSE=0, MOST_DENSE_LOW=0, MOST_OF_FEW=0),
        mock.patch.object(sparse, "COARSEST", 4),
    ):
        yield


def draw_assign(choices: Choices) -> Matching:
    impl = choices.pick("impl", ("cpu", "cpu", "lists", "auto", "reference"))
    lead = choices.pick("lead", LEADS)
    n, d = choices.pick("n", (*SIZES, 0)), choices.pick("d", DIMENSIONS)
    more = choices.pick("m - n", (0, 0, 1, 2, 7, 33))
    (n,) = within(20, n) if impl == "reference" else (n,)  # which is slow
    x, y, offsets = _points(choices, (*lead, n, d), (*lead, n + more, d))
    return Matching(x, y, offsets, choices.pick("tolerance", (0.0, 0.0, 0.0, 0.1)), impl)


def draw_balanced(choices: Choices) -> Matching:
    lead = choices.pick("lead", LEADS)
    n, m, d = choices.pick("n", SIZES), choices.pick("m", SIZES[:12]), choices.pick("d", DIMENSIONS)
    x, y, offsets = _points(choices, (*lead, n, d), (*lead, m, d))
    return Matching(x, y, offsets, 0.0, "auto")


def _points(choices: Choices, xs: tuple[int, ...], ys: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    x, y = cloud(choices, xs, ys, tuple(CLOUDS))
    dtype = choices.pick("dtype", DTYPES)
    offsets = potential(choices, ys[:-1])
    x, y, offsets = x.to(dtype), y.to(dtype), None if offsets is None else offsets.to(dtype)
    with_special(choices, x=x, y=y, potential=offsets)
    x, y = laid_out(choices, "x", x), laid_out(choices, "y", y)
    return x, y, None if offsets is None else laid_out(choices, "potential", offsets)


def solvable(p: Matching) -> Tensor:
    """[B]: problems without a NaN, an infinity or a number beyond 1e150."""
    tensors = [(p.x, 2), (p.y, 2), *([] if p.potential is None else [(p.potential, 1)])]
    return torch.stack([(t.double().abs() <= LARGEST).flatten(-k).all(-1).reshape(-1) for t, k in tensors]).all(0)


def one_batch(p: Matching, kept: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """x [B, N, D], y [B, M, D] and potential [B, M] of the problems that are kept [B]."""
    lead = p.x.dim() - 2
    x, y = (batched(t, lead)[kept] for t in (p.x, p.y))
    return x, y, None if p.potential is None else batched(p.potential, lead)[kept]


def judge_assign(p: Matching) -> float:
    result, error = p.solve(), 0.0
    plain = p._replace(x=dense(p.x), y=dense(p.y), potential=dense(p.potential))
    assert same_bits(result, plain.solve()), "strides change the result"
    kept = solvable(p)
    x, y, offsets = one_batch(p, kept)
    lead = p.x.dim() - 2
    every = Assignment(*(batched(part, lead) for part in result))
    if p.x.shape[-2]:
        assert (every.index[~kept] == -1).all(), "a problem that cannot be solved has an index"
        assert all(part[~kept].isnan().all() for part in every[1:]), "and a number"
    every = Assignment(*(part[kept] for part in every))
    if p.x.shape[-2] == 0 or not kept.any():
        return 0.0
    if p.tolerance == 0 or p.impl == "reference":
        error = optimal_error(every, x, y, offsets)
        assert_agrees_with_scipy(every, x, y, offsets)
        return error
    best = Assignment(*(batched(part, lead)[kept] for part in p.solve(tolerance=0.0)))
    assert (every.index.sort(-1).values.diff(dim=-1) > 0).all(), "a column is taken twice"
    rounding = x.shape[1] * verify(x, y, every, offsets).rounding
    allowed = p.tolerance * every.primal.abs() + rounding
    assert (every.gap >= -rounding).all(), "the dual is above the primal"
    assert (every.dual <= best.primal + rounding).all(), "the dual is above the least cost"
    return max(in_units(every.gap.clamp_min(0), allowed), in_units((every.primal - best.primal).clamp_min(0), allowed))


def judge_balanced(p: Matching) -> float:
    """Sizes are n / m, rounded down or up, and no other clusters of such sizes cost less."""
    index = balanced(p.x, p.y, p.potential)
    (n, m), kept = (p.x.shape[-2], p.y.shape[-2]), solvable(p)
    assert index.shape == p.x.shape[:-1]
    index, (x, y, offsets) = batched(index, p.x.dim() - 2), one_batch(p, kept)
    assert (index[~kept] == -1).all(), "a problem that cannot be solved has an index"
    index, cost = index[kept], costs(x, y, offsets)
    if not len(index):
        return 0.0
    counts = torch.zeros(len(index), m, dtype=torch.int64).scatter_add(1, index, torch.ones_like(index))
    assert ((counts == n // m) | (counts == -(-n // m))).all(), f"sizes are {counts.tolist()}"
    # assign compares within 4 (d + 16) eps of the largest numbers that it adds (see slack_of): costs, the price of
    # copies that must be taken, and their potentials, which are sums of at most n + m costs and prices
    middle = y.double().mean(-2, keepdim=True)
    reach = sum((t.double() - middle).square().sum(-1).amax(-1).sqrt() for t in (x, y))
    prices = 0 if offsets is None else 2 * offsets.double().abs().amax(-1)
    size = cost.abs().amax((-1, -2)) + 1.01 * (reach.square() + prices)
    allowed = n * 8 * (p.x.shape[-1] + 16) * UNIT * (n + m) * size
    return max(in_units(saving(*entry), limit) for *entry, limit in zip(cost, index, counts, allowed, strict=True))


def saving(cost: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """What cycles of moves save, of a point from each cluster [N, M] to the next: none does where the cost is the least
    (Klein 1967).

    One more node stands for room: a cluster of the larger size may give a point up, one of the smaller may get one. The
    least cycles are Floyd and Warshall's shortest paths from each node back to itself.
    """
    (n, m), own = cost.shape, cost.gather(1, index[:, None])
    move = torch.full((m + 1, m + 1), torch.inf, dtype=torch.float64)
    for j in counts.nonzero()[:, 0].tolist():
        move[j, :m] = (cost - own)[index == j].amin(0)
    if n % m:
        move[m, :m] = torch.where(counts > n // m, 0.0, torch.inf)
        move[:m, m] = torch.where(counts > n // m, torch.inf, 0.0)
    for k in range(m + 1):
        move = torch.minimum(move, move[:, k : k + 1] + move[k])
    return (-move.diagonal()).clamp_min(0)
