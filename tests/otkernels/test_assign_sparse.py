"""assign without the matrix, at sizes where lists, levels, auctions and searches have work; each is seen to run."""

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
    levels, auction, call = sparse._level, lists.auction, lists._call
    find, paths, list_rows = lists._find, lists._paths, lists.list_rows
    asking = []  # not empty while the compiled search waits for an answer

    def _level(*arguments):
        counts["levels"] += 1
        return levels(*arguments)

    def _auction(self, epsilon):
        ended = auction(self, epsilon)
        counts["auctions without an end"] += not ended
        return ended

    def _find(self, rows, k, dtype, closed=None):
        found, bound = find(self, rows, k, dtype, closed)
        if closed is not None:
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
                counts["used-up lists"] += rest.stale + rest.listed
            return rest
        defer, queue, count, *arrays, ask = arguments

        def answer(asked, is_open):
            asking.append(True)
            ask(asked, is_open)
            asking.pop()

        rest = call(self, step, defer, queue, count, *arrays, answer)
        counts["put off"] += rest.rows if defer else 0
        counts["searches begun"] += 1
        assert counts["searches begun"] < 30  # each repeats the work of those that were put off
        return rest

    monkeypatch.setattr(sparse, "_level", _level)
    for name, wrapper in (
        ("auction", _auction),
        ("_find", _find),
        ("list_rows", _list_rows),
        ("_paths", _paths),
        ("_call", _call),
    ):
        monkeypatch.setattr(lists, name, wrapper)
    for name in ("MOST_DENSE", "MOST_DENSE_LOW"):
        monkeypatch.setattr(native, name, 0)
    monkeypatch.setattr(native, "MOST_OF_FEW", 0)
    monkeypatch.setattr(sparse, "MOST_HARD", 0)
    return counts


def assert_right(result: Assignment, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    found = verify(x, y, result, potential)
    assert found.valid, found
    if len(x) * len(y) <= 1 << 20:
        assert_optimal(result, x, y, potential)
        assert_agrees_with_scipy(result, x, y, potential)


def ints(points: Tensor) -> Tensor:
    return points.mul(3).round()


def unequal(randn, n, m, d=2):
    """Clusters 10 apart; half of x lies in the one that holds a tenth of y: large trees, whose columns are closed."""
    x, y = randn(n, d), randn(m, d)
    x[: n // 2, 0] += 10
    y[: m // 10, 0] += 10
    return x, y


def unequal_wide(randn, n, m, d):
    """The same in so many dimensions that pricing all columns takes longer than a question."""
    x, y = unequal(randn, n, m)
    return torch.cat((x, 0.05 * randn(n, d - 2)), 1), torch.cat((y, 0.05 * randn(m, d - 2)), 1)


# What to solve, and what it must be seen to do.
PROBLEMS = {
    "plane": (lambda r: (r(1000, 2), r(1000, 2)), "used-up lists, rows for paths"),
    "space": (lambda r: (r(700, 16), r(700, 16)), "used-up lists, rows for paths"),
    "128 dimensions": (lambda r: (r(400, 128), r(400, 128)), "rows for paths"),
    "float64": (lambda r: 2 * (r(500, 3, dtype=torch.float64),), "bids"),
    "potential": (lambda r: (r(600, 5), r(600, 5), 3 * r(600)), "used-up lists, rows for paths"),
    "N < M": (lambda r: (r(500, 2), r(1500, 2)), "columns for the crowd, rows for paths"),
    "N << M": (lambda r: (r(60, 8), r(3000, 8)), "columns for the crowd, longer lists"),
    "N <<< M": (lambda r: (r(12, 3), r(2500, 3)), "columns for the crowd"),
    "N = M - 1": (lambda r: (r(800, 3), r(801, 3)), "columns for the crowd, rows for paths"),
    "N < M, potential": (lambda r: (r(400, 4), r(700, 4), r(700)), "columns for the crowd"),
    "line": (lambda r: (r(900, 1), r(900, 1)), "used-up lists, rows for paths"),
    "grid": (lambda r: (ints(r(800, 2)), ints(r(800, 2))), "rows for paths"),
    "grid, N < M": (lambda r: (ints(r(500, 2)), ints(r(900, 2))), "columns for the crowd, rows for paths"),
    "clusters": (lambda r: unequal(r, 800, 800), "rows for paths"),
    "clusters, N < M": (lambda r: unequal(r, 500, 1000), "columns for the crowd, rows for paths"),
    "tight clusters": (lambda r: 2 * (5 * ints(r(600, 2)) + 0.01 * r(600, 2),), "bids"),
    "duplicates": (lambda r: (r(100, 3).repeat(6, 1), r(200, 3).repeat(3, 1)), "rows for paths"),
    "all points equal": (lambda r: (torch.ones(400, 3), torch.ones(500, 3)), "put off"),
    "offset": (lambda r: (1e6 + r(600, 4), 1e6 + r(600, 4)), "rows for paths"),
    "beyond float32": (lambda r: (1e20 * r(400, 6), 1e20 * r(500, 6)), "rows for paths"),
    "close to nothing": (lambda r: (1e-21 * r(400, 6), 1e-21 * r(400, 6)), "rows for paths"),
    "many dimensions": (lambda r: unequal_wide(r, 300, 360, 760), "open columns given"),
    "unlike spreads": (
        lambda r: (r(500, 2) * torch.logspace(-6, 6, 500)[:, None], r(500, 2)),
        "auctions without an end, put off, listed in float64, listed in a search",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_are_optimal(name, seen, randn):
    draw, branches = PROBLEMS[name]
    x, y, *potential = draw(randn)
    potential = potential[0] if potential else None
    assert_right(assign(x, y, potential=potential), x, y, potential)
    for branch in branches.split(", "):
        assert seen[branch] > 0, (branch, dict(seen))


@pytest.mark.parametrize("m", [700, 800])
def test_levels_start_each_other(m, seen, randn, monkeypatch):
    """Of 700 rows, 175 and 44 are solved first, and 11 by the matrix before."""
    monkeypatch.setattr(sparse, "COARSEST", 11)
    x, y, potential = randn(700, 3), randn(m, 3), randn(m)
    assert_right(assign(x, y, potential=potential), x, y, potential)
    assert seen["levels"] == 3


@pytest.mark.parametrize(("n", "m", "d"), [(3000, 3000, 2), (2000, 2600, 2), (2000, 2000, 20)])
def test_thousands_of_points(n, m, d, seen, randn):
    x, y = randn(n, d), randn(m, d)
    assert_right(assign(x, y), x, y)
    assert seen["levels"] >= 2
    assert seen["rows for paths"] > importlib.import_module("otkernels.assign.lists").SEVERAL


def test_searches_are_put_off_while_many_rows_wait(seen, randn, monkeypatch):
    """Without an auction nearly all rows are left to the searches, whose lists are soon used up."""
    monkeypatch.setattr(sparse.Lists, "auction", lambda self, epsilon: True)
    for m in (400, 500):
        x, y = randn(400, 6), randn(m, 6)
        assert_right(assign(x, y), x, y)
    for branch in ("put off", "longer lists", "columns for the crowd"):
        assert seen[branch] > 0, (branch, dict(seen))


def test_searches_are_not_put_off_for_ever(seen, randn, monkeypatch):
    """Colours of two pictures, say: few values, of two laws, so that most searches are long."""
    monkeypatch.setattr(sparse.Lists, "auction", lambda self, epsilon: True)
    x, y = (torch.special.ndtr(randn(2000, 3)).pow(power).mul(64).floor() / 64 for power in (2, 0.5))
    assert_right(assign(x, y), x, y)
    assert seen["put off"] > 0


def test_matrix_and_lists_agree(seen, randn, monkeypatch):
    x, y = randn(3, 300, 4), randn(3, 350, 4)
    by_lists = assign(x, y)
    for name in ("MOST_DENSE", "MOST_DENSE_LOW"):
        monkeypatch.setattr(native, name, 1 << 30)
    by_matrix = assign(x, y)
    assert seen["levels"] == 3  # one for each problem; the matrix needs none
    assert torch.equal(by_lists.index, by_matrix.index)  # normal points have no second best within rounding
    assert ((by_lists.primal - by_matrix.primal).abs() <= 300 * verify(x, y, by_matrix).rounding).all()


def test_size_chooses_the_way(seen, randn, monkeypatch):
    for name in ("MOST_DENSE", "MOST_DENSE_LOW"):
        monkeypatch.setattr(native, name, 300 * 300)
    assign(randn(300, 2), randn(300, 2))
    assert not seen["levels"]
    assign(randn(300, 2), randn(301, 2))
    assert seen["levels"] == 1


@pytest.mark.parametrize("m", [700, 900])
def test_threads_change_no_bit(m, seen, randn):
    x, y, threads = randn(700, 40), randn(m, 40), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            results.append(assign(x, y))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name in ("index", "u", "v"):  # the sums primal and dual are torch's, whose order is the threads'
            assert torch.equal(getattr(other, name), getattr(results[0], name))


@pytest.mark.parametrize("tolerance", [1e-4, 0.05])
@pytest.mark.parametrize("m", [800, 1000])
def test_tolerance_bounds_the_gap(m, tolerance, seen, randn):
    x, y = randn(800, 3), randn(m, 3)
    result, best = assign(x, y, tolerance=tolerance), assign(x, y)
    rounding = 800 * verify(x, y, best).rounding
    assert (result.index.sort().values.diff() > 0).all()
    assert -rounding <= result.gap <= tolerance * result.primal + rounding
    assert result.dual - rounding <= best.primal <= result.primal + rounding


@pytest.mark.parametrize("d", [2, 6])
def test_where_auctions_come_to_no_end_the_matrix_decides(d, seen, randn, monkeypatch):
    """Clusters that exchange rows: prices must fall by what lies between the clusters."""
    monkeypatch.setattr(sparse, "MOST_HARD", 1 << 24)
    x, y = unequal(randn, 500, 1000, d)
    assert_right(assign(x, y), x, y)
    assert seen["auctions without an end"] > 0
    assert seen["rows for paths"] == 0


def test_where_copies_fill_the_lists_the_matrix_decides(seen, randn, monkeypatch):
    """A quarter of the points lie at the origin, as features behind a ReLU do: more than a list holds."""
    monkeypatch.setattr(sparse, "MOST_HARD", 1 << 24)
    x, y = randn(700, 2).relu(), randn(700, 2).relu()
    assert_right(assign(x, y), x, y)
    assert seen["bids"] == seen["rows for paths"] == 0


def test_all_rows_are_listed_in_any_order(randn):
    x, y = randn(200, 2), randn(300, 2)
    lists, shuffled = sparse.Lists(x, y, None), sparse.Lists(x, y, None)
    lists.list_rows(lists.all_rows)
    shuffled.list_rows(lists.all_rows[::-1].copy())
    for name in ("column", "cost", "bound"):
        assert (getattr(lists, name) == getattr(shuffled, name)).all(), name


def test_a_row_whose_best_column_is_not_listed_is_priced_by_all(randn):
    """As after a search that has gone beyond a list: its own columns have become dear, and its bound tells it."""
    x, y = randn(40, 3), randn(40, 3)
    lists = sparse.Lists(x, y, None)
    lists.list_rows(lists.all_rows, 2)
    lists.match[:] = lists.column[:, 0]
    lists.v[lists.column[0, :2]] -= 100
    found = lists.result()
    cost = (x.double()[:, None] - y.double()).square().sum(2)
    torch.testing.assert_close(found.u, (cost - found.v).min(1).values, rtol=1e-13, atol=1e-12)


def test_lists_that_reach_from_cluster_to_cluster_cost_no_digits(seen, randn):
    """An auction then bids by the clusters' distance, far more than any matched pair costs."""
    for _ in range(20):
        x, y = (10 * randn(count, 1).round() + 0.01 * randn(count, 1) for count in (30, 60))
        assert_right(assign(x, y), x, y)
