"""assign without the matrix, at sizes where its lists, levels, auctions and searches all have work; each is seen to run."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest
import torch
from torch import Tensor

from otkernels import Assignment, assign, verify
from tests.otkernels.matching import assert_agrees_with_scipy, assert_optimal

native, sparse = (importlib.import_module(f"otkernels.assign.{name}") for name in ("native", "sparse"))


@pytest.fixture
def seen(monkeypatch) -> Counter[str]:
    """Counts what the solver does: see what each wrapper adds."""
    counts: Counter[str] = Counter()
    lists = sparse.Lists
    levels, find, paths, list_rows, call = sparse._level, lists._find, lists._paths, lists.list_rows, lists._call
    asking = []  # not empty while the compiled search waits for an answer

    def _level(*arguments):
        counts["levels"] += 1
        return levels(*arguments)

    def _find(self, rows, k, dtype, closed=None):
        found, bound = find(self, rows, k, dtype, closed)
        if closed is not None:
            counts["open columns asked for"] += 1
            counts["open columns given"] += int((found >= 0).sum())
            assert not closed[found[found >= 0]].any()
        elif dtype != self.x.dtype:
            counts["listed in float64"] += len(rows)
        return found, bound

    def _list_rows(self, rows, k=None):
        counts["listed in a search" if asking else "listed"] += len(rows)
        if k is not None and k > self.k:
            counts["longer lists"] += len(rows)
        list_rows(self, rows, k)

    def _paths(self, queue, count):
        counts["rows for paths"] += count
        counts["columns for the crowd"] += self.m - self.n - int((self.owner == -2).sum())
        paths(self, queue, count)

    def _call(self, step, *arguments):
        if step != "paths":
            rest = call(self, step, *arguments)
            if step == "auction":
                counts["bids"] += rest.steps
                counts["used-up lists"] += rest.stale
            return rest
        defer, queue, count, *arrays, ask = arguments

        def answer(asked, is_open):
            counts["questions"] += 1
            asking.append(True)
            ask(asked, is_open)
            asking.pop()

        rest = call(self, step, defer, queue, count, *arrays, answer)
        counts["deferred"] += rest.rows if defer else 0
        counts["searches"] += 1
        return rest

    monkeypatch.setattr(sparse, "_level", _level)
    for name, wrapper in (("_find", _find), ("list_rows", _list_rows), ("_paths", _paths), ("_call", _call)):
        monkeypatch.setattr(lists, name, wrapper)
    monkeypatch.setattr(native, "MOST_DENSE", 0)
    return counts


def assert_right(result: Assignment, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    found = verify(x, y, result, potential)
    assert found.valid, found
    if len(x) * len(y) <= 1 << 20:
        assert_optimal(result, x, y, potential)
        assert_agrees_with_scipy(result, x, y, potential)


def ints(points: Tensor) -> Tensor:
    return points.mul(3).round()


def unequal(randn, n, m):
    """Clusters 10 apart; half of x lies in the one that holds a tenth of y: large trees, whose columns are closed."""
    x, y = randn(n, 2), randn(m, 2)
    x[: n // 2, 0] += 10
    y[: m // 10, 0] += 10
    return x, y


PROBLEMS = {
    "plane": lambda r: (r(1000, 2), r(1000, 2)),
    "space": lambda r: (r(700, 16), r(700, 16)),
    "128 dimensions": lambda r: (r(500, 128), r(500, 128)),
    "float64": lambda r: (r(500, 3, dtype=torch.float64), r(500, 3, dtype=torch.float64)),
    "potential": lambda r: (r(600, 5), r(600, 5), 3 * r(600)),
    "N < M": lambda r: (r(500, 2), r(1500, 2)),
    "N << M": lambda r: (r(60, 8), r(3000, 8)),
    "N = M - 1": lambda r: (r(800, 3), r(801, 3)),
    "N < M, potential": lambda r: (r(400, 4), r(700, 4), r(700)),
    "all kept, N < M": lambda r: (100 * torch.arange(300.0)[:, None], 50 * torch.arange(900.0)[:, None]),
    "line": lambda r: (r(900, 1), r(900, 1)),
    "grid": lambda r: (ints(r(800, 2)), ints(r(800, 2))),
    "grid, N < M": lambda r: (ints(r(500, 2)), ints(r(900, 2))),
    "clusters": lambda r: unequal(r, 800, 800),
    "clusters, N < M": lambda r: unequal(r, 500, 1000),
    "tight clusters": lambda r: (5 * ints(r(600, 2)) + 0.01 * r(600, 2), 5 * ints(r(600, 2)) + 0.01 * r(600, 2)),
    "duplicates": lambda r: (r(100, 3).repeat(6, 1), r(200, 3).repeat(3, 1)),
    "all points equal": lambda r: (torch.ones(500, 3), torch.ones(700, 3)),
    "offset": lambda r: (1e6 + r(600, 4), 1e6 + r(600, 4)),
    "far from float32": lambda r: (1e19 * r(400, 6), 1e19 * r(500, 6)),
    "close to nothing": lambda r: (1e-21 * r(400, 6), 1e-21 * r(400, 6)),
    "unlike spreads": lambda r: (r(600, 2) * torch.logspace(-6, 6, 600)[:, None], r(600, 2)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_are_optimal(name, seen, randn):
    x, y, *potential = PROBLEMS[name](randn)
    potential = potential[0] if potential else None
    assert_right(assign(x, y, potential=potential), x, y, potential)
    assert seen["bids"] > 0
    print(dict(seen))
