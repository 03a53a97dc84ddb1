"""Assignment without the cost matrix: each row knows its k best columns and a bound of what the others cost.

Levels: a random quarter of the points is solved first, and a quarter of that before, down to what a matrix solves fast.
Its potentials, carried to all points by a c-transform, start the next level. There an auction with falling epsilon runs
on the rows' lists (l2_topk under the current v); rows whose list is used up are listed anew, many at a time. At last
all rows are listed once more, pairs that are tight are kept, and shortest augmenting paths find the rest, exactly, in
float64.

The proof needs no pass over all pairs of its own but for rows that a search has taken beyond their lists: v has only
fallen since the last lists were made, so their bounds hold for every pair outside them, and pairs inside are priced in
float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import matrix
from .lists import LOW, Lists, Solved

RATIO = 4  # points of one level to those of the next coarser
COARSEST = 256  # rows that are solved by the matrix
MOST_HARD = 1 << 24  # entries of a matrix (128 MiB) up to which it is faster where auctions come to no end
TIED = 0.05  # share of rows whose lists hold columns of one cost alone, from which lists are longer or not used
PHASES, MOST_PHASES = 3, 9  # of epsilon
LISTED = 4  # lists a row, in the first phase
PATIENCE, MANY_BIDS = 100, 300  # lists a row in all phases, and bids a row in each, where that fails
SPARE = 1.5  # columns a row from which rows hardly compete
SMALL, LARGE = 1e-12, 1e16  # coordinates whose squares' sums float32 holds to its precision
APART = 30  # how many times the points' spread lies between two clouds that need float64


def solve(x: Tensor, y: Tensor, potential: Tensor | None, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, D], y [M, D], potential [M] or None -> index [N], u [N], v [M] on the CPU."""
    if not _in_single(x, y):
        x, y, potential = x.double(), y.double(), None if potential is None else potential.double()
    lists = _level(x, y, potential)
    if isinstance(lists, Solved):
        return lists
    if tolerance > 0 and (lists.match >= 0).all():
        index, u, v = lists.result()
        dual = float(u.sum() + v.sum())
        if lists.primal() - dual <= tolerance * abs(lists.primal()):
            return Solved(index, u, v)
    lists.finish()
    solved = lists.result()
    if lists.is_coarse:  # as where lists reach from cluster to cluster: once more, from potentials of their own size
        lists.finish()
        solved = lists.result()
    return solved


def _in_single(x: Tensor, y: Tensor) -> bool:
    """Whether float32 holds squared coordinates, and tells distances apart that matter."""
    x, y = x.double(), y.double()
    largest = float(torch.maximum(x.abs().max(), y.abs().max()))
    spread = float((x - x.mean(0)).square().sum(1).mean() + (y - y.mean(0)).square().sum(1).mean())
    return SMALL < largest < LARGE and float((x.mean(0) - y.mean(0)).square().sum()) < APART**2 * spread


def _level(x: Tensor, y: Tensor, potential: Tensor | None) -> Lists | Solved:
    """Lists of all rows, whose v an auction has brought near the optimum; or the solution, where that was faster."""
    lists = Lists(x, y, potential)
    small = lists.n * lists.m <= MOST_HARD
    phases = PHASES + (lists.d <= LOW)  # where points have many neighbours prices travel far
    if lists.m < SPARE * lists.n:
        lists.start(*_coarse(x, y, potential))
    else:
        phases = 1  # from v = 0, so that v = 0 wherever no row came
    lists.list_rows(lists.all_rows)
    if lists.tied() > TIED:  # copies of points fill the lists
        lists.lengthen()
        if lists.tied() > TIED and small:
            return Solved(*_by_matrix(x, y, potential))
    lists.budget = lists.listed + LISTED * lists.n
    if lists.phases(phases):
        return lists
    # prices must move far beyond a list, as between clusters that exchange a few rows
    if small:
        return Solved(*_by_matrix(x, y, potential))
    lists.lengthen()
    lists.budget, lists.bids = lists.listed + PATIENCE * lists.n, MANY_BIDS
    while not lists.phases(phases) and lists.listed < lists.budget and phases < MOST_PHASES:
        phases += 2
    return lists


def _by_matrix(x: Tensor, y: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    solved = matrix.solve(x[None], y[None], None if potential is None else potential[None])
    index, u, v = (part[0].cpu() for part in solved[:3])
    return index, u, v


def _coarse(x: Tensor, y: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor]:
    """A random part of x [N', D] and its dual potentials u [N'] for the part of y that goes with it."""
    n, m = -(-len(x) // RATIO), -(-len(y) // RATIO)
    rows, columns = _draw(len(x), n, x.device), _draw(len(y), m, x.device)
    x, y = x[rows], y[columns]
    potential = None if potential is None else potential[columns]
    if n <= COARSEST:
        return x, _by_matrix(x, y, potential)[1].to(x.device)
    lists = _level(x, y, potential)
    u = lists.u if isinstance(lists, Solved) else torch.from_numpy(lists.least())
    return x, u.to(x.device)


def _draw(count: int, drawn: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randperm(count, generator=generator)[:drawn].to(device)
