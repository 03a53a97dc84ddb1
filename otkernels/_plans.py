"""Exact transport plans of two batches as lists of pairs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .assign import assign


class Pairs(NamedTuple):
    """A plan as a list of K pairs, on x0's device.

    Attributes:
        source: int64 [K] rows of x0.
        target: int64 [K] rows of x1.
        weight: float64 [K] the pairs' masses, of sum 1.
    """

    source: Tensor
    target: Tensor
    weight: Tensor


class Problem(NamedTuple):
    """Rows of x0 [N, ...] and x1 [M, ...] that are paired among themselves: an assignment of L = lcm(N, M) copies."""

    x0: Tensor
    x1: Tensor
    rows: Tensor  # [N] which rows of the batch x0 holds
    columns: Tensor  # [M]

    @property
    def copies(self) -> int:
        return math.lcm(len(self.rows), len(self.columns))

    def solve(self, tolerance: float) -> Tensor:
        """Which copy of a row of x1 each copy of a row of x0 meets, int64 [L]; -1 where points are not finite."""
        copies = self.copies
        x0 = self.x0[self.rows].detach().flatten(1).repeat_interleave(copies // len(self.rows), 0)
        x1 = self.x1[self.columns].detach().flatten(1).repeat_interleave(copies // len(self.columns), 0)
        return assign(x0, x1, tolerance=tolerance).index

    def unsolved(self) -> Tensor:
        """Room for what `solve` returns."""
        return self.rows.new_empty(self.copies)

    def pairs(self, index: Tensor) -> Pairs:
        """The copies' pairs as the rows' pairs: equal ones together, in order of source, then target."""
        n, m = len(self.rows), len(self.columns)
        source = torch.arange(len(index), device=index.device) // (len(index) // n)
        cells, counts = (source * m + index // (len(index) // m)).unique(return_counts=True)
        return Pairs(self.rows[cells // m], self.columns[cells % m], counts.double() / len(index))


def whole(x0: Tensor, x1: Tensor) -> list[Problem]:
    rows, columns = (torch.arange(len(x), device=x.device) for x in (x0, x1))
    return [Problem(x0, x1, rows, columns)]


def by_label(x0: Tensor, x1: Tensor, y0: Tensor, y1: Tensor) -> list[Problem]:
    """One problem for each label of y0 [N], with the rows of x1 whose y1 [M] is equal; ValueError where none is."""
    problems = []
    for label in y0.unique():
        rows, columns = (y0 == label).nonzero()[:, 0], (y1 == label).nonzero()[:, 0]
        if len(columns) == 0:
            raise ValueError(f"ExactOT: y1 must hold every label of y0, got no {label.item()}")
        problems.append(Problem(x0, x1, rows, columns))
    return problems


def join(problems: list[Problem], index: Tensor) -> Pairs:
    """The pairs of all problems, each with its share of the rows of x0, from their solutions one behind the other."""
    parts = index.split([problem.copies for problem in problems])
    solved = [problem.pairs(part) for problem, part in zip(problems, parts, strict=True)]
    total = sum(len(problem.rows) for problem in problems)
    weight = [pairs.weight * len(p.rows) / total for pairs, p in zip(solved, problems, strict=True)]
    return Pairs(torch.cat([s.source for s in solved]), torch.cat([s.target for s in solved]), torch.cat(weight))
