"""assign against scipy and against its own certificate on small problems; its rules are in test_assign_rules.py.

Small problems are solved with the whole matrix; "lists" makes the compiled way for large ones take them too.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch

from otkernels import assign, verify
from tests.otkernels.cases import devices_and_impls
from tests.otkernels.matching import assert_agrees_with_scipy, assert_optimal

native, sparse = (importlib.import_module(f"otkernels.assign.{name}") for name in ("native", "sparse"))
INF, NAN = math.inf, math.nan
everywhere = pytest.mark.parametrize(
    ("device", "impl"),
    [*devices_and_impls("assign"), pytest.param("cpu", "lists", id="cpu-cpu-lists")],
    indirect=["impl"],
)


@pytest.fixture
def impl(request, monkeypatch):
    if request.param == "lists":
        for name in ("MOST_DENSE", "MOST_DENSE_LOW"):
            monkeypatch.setattr(native, name, 0)
        monkeypatch.setattr(native, "MOST_OF_FEW", 0)
        monkeypatch.setattr(sparse, "COARSEST", 4)  # rows that the matrix solves
        return "cpu"
    return request.param


SIZES = [
    (1, 1, 1), (1, 9, 2), (2, 2, 3), (3, 3, 1), (2, 7, 4), (4, 4, 2), (5, 6, 3), (6, 6, 20), (7, 40, 2), (8, 8, 1),
    (9, 18, 5), (10, 10, 3), (11, 12, 2), (12, 12, 65), (13, 40, 1), (16, 16, 2), (17, 18, 4), (20, 20, 7), (24, 30, 2),
    (33, 33, 3),
]  # fmt: skip


@everywhere
@pytest.mark.parametrize("with_potential", [False, True])
def test_a_thousand_random_problems(with_potential, device, impl, randn, request):
    """25 of each of 20 sizes, with a potential and without; the definition, which is slow, gets one of each."""
    batch = 1 if request.node.callspec.params["impl"] == "reference" else 25
    for n, m, d in SIZES:
        x, y = randn(batch, n, d, device=device), randn(batch, m, d, device=device)
        potential = 3 * randn(batch, m, device=device) if with_potential else None
        result = assign(x, y, potential=potential, impl=impl)
        assert_optimal(result, x, y, potential)
        assert_agrees_with_scipy(result, x, y, potential)


def clusters(randn, x_sizes, y_sizes):
    """Tight clusters, 100 apart, of unequal sizes: some of each cluster must go far."""
    both = []
    for sizes in (x_sizes, y_sizes):
        points = [torch.tensor([100.0 * k, 0.0]) + 0.01 * randn(size, 2) for k, size in enumerate(sizes)]
        both.append(torch.cat(points))
    return both


def hubs(randn):
    """In 300 dimensions the points near the mean are nearest to everything."""
    y = randn(45, 300)
    y[:5] *= 0.1
    return randn(40, 300), y


def unwanted(randn, low):
    """30 columns for 20 rows; a potential of -low keeps ten of them out."""
    potential = randn(30)
    potential[::3] = -low
    return randn(20, 2), randn(30, 2), potential


HARD = {
    "duplicates": lambda r: (r(10, 3).repeat_interleave(4, 0), r(20, 3).repeat(2, 1)),
    "all points equal": lambda r: (torch.ones(24, 3), torch.ones(24, 3)),
    "all points equal, N < M": lambda r: (torch.ones(20, 3), torch.ones(31, 3)),
    "all y equal": lambda r: (r(24, 3), torch.ones(30, 3)),
    "all x equal": lambda r: (torch.ones(24, 3), r(30, 3)),
    "x is y": lambda r: 2 * (r(24, 3),),
    "integer grid": lambda r: (r(40, 2).mul(2).round(), r(40, 2).mul(2).round()),
    "integer grid, N < M": lambda r: (r(40, 2).mul(2).round(), r(60, 2).mul(2).round()),
    "integers and potentials": lambda r: (r(40, 1).mul(2).round(), r(60, 1).mul(2).round(), r(60).round()),
    "M = N + 1": lambda r: (r(40, 2), r(41, 2)),
    "M = 2 N": lambda r: (r(30, 2), r(60, 2)),
    "M = 50 N": lambda r: (r(12, 2), r(600, 2)),
    "M = 50": lambda r: (r(1, 2), r(50, 2)),
    "clusters": lambda r: clusters(r, (30, 10), (12, 28)),
    "clusters, N < M": lambda r: clusters(r, (30, 10), (12, 43)),
    "offset": lambda r: (1e6 + r(40, 3), 1e6 + r(40, 3)),
    "hubs": hubs,
    "unwanted columns": lambda r: unwanted(r, 1e4),
    "unwanted at all costs": lambda r: unwanted(r, 1e30),
    "potentials of opposite sign": lambda r: (r(30, 2), r(30, 2), 1e6 * r(30)),
    "1e-20": lambda r: (1e-20 * r(40, 2), 1e-20 * r(50, 2)),
    "1e20": lambda r: (1e20 * r(40, 2), 1e20 * r(50, 2)),
    "1e100": lambda r: (1e100 * r(40, 2, dtype=torch.float64), 1e100 * r(50, 2, dtype=torch.float64)),
    "1e-100": lambda r: (1e-100 * r(40, 2, dtype=torch.float64), 1e-100 * r(40, 2, dtype=torch.float64)),
}


@everywhere
@pytest.mark.parametrize("name", HARD)
def test_hard_inputs(name, device, impl, randn):
    x, y, *potential = (t.to(device) for t in HARD[name](randn))
    potential = potential[0] if potential else None
    result = assign(x, y, potential=potential, impl=impl)
    assert_optimal(result, x, y, potential)
    assert_agrees_with_scipy(result, x, y, potential)


@everywhere
@pytest.mark.parametrize("m", [12, 14])
def test_points_of_many_scales(m, device, impl, randn, request):
    """Searches start from potentials far larger than those that they end with; the digits that this takes come back."""
    batch = 5 if request.node.callspec.params["impl"] == "reference" else 100
    x, y = (randn(batch, k, 16) * 10 ** (6 * randn(batch, k, 1)) for k in (12, m))
    potential = randn(batch, m)
    x, y, potential = (t.to(device) for t in (x, y, potential))
    result = assign(x, y, potential=potential, impl=impl)
    assert_optimal(result, x, y, potential)
    assert_agrees_with_scipy(result, x, y, potential)


@everywhere
def test_on_a_line_the_order_is_kept(device, impl, randn):
    """Convex costs of one dimension: the sorted points are matched in order."""
    x, y = randn(90, 1, device=device), randn(90, 1, device=device)
    result = assign(x, y, impl=impl)
    expected = torch.empty_like(result.index)
    expected[x[:, 0].argsort()] = y[:, 0].argsort()
    assert torch.equal(result.index, expected)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype, device, impl, randn):
    if dtype == torch.float64 and device == "cuda" and impl != "reference":
        pytest.skip("float64 is not compiled for CUDA")
    x, y, potential = (randn(*s, dtype=dtype, device=device) for s in ((2, 30, 3), (2, 35, 3), (2, 35)))
    result = assign(x, y, potential=potential, impl=impl)
    assert_optimal(result, x, y, potential)
    assert_agrees_with_scipy(result, x, y, potential)


@everywhere
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e151])
@pytest.mark.parametrize("where", ["x", "y", "potential"])
def test_a_problem_that_cannot_be_solved_harms_no_other(where, value, device, impl, randn):
    dtype = torch.float64 if value == 1e151 and device == "cpu" else torch.float32
    shapes = {"x": (3, 9, 2), "y": (3, 12, 2), "potential": (3, 12)}
    tensors = {name: randn(*shape, dtype=dtype, device=device) for name, shape in shapes.items()}
    tensors[where][1].view(-1)[5] = value
    x, y, potential = tensors.values()
    result = assign(x, y, potential=potential, impl=impl)
    assert (result.index[1] == -1).all()
    for part in result[1:]:
        assert part[1].isnan().all()
    assert verify(x, y, result, potential).valid.tolist() == [True, False, True]
    for b in (0, 2):
        alone = assign(x[b], y[b], potential=potential[b], impl=impl)
        for got, expected in zip(result, alone, strict=True):
            assert torch.equal(got[b], expected)
    single = assign(x[1], y[1], potential=potential[1], impl=impl)
    assert (single.index == -1).all()
    assert single.gap.isnan()


@everywhere
@pytest.mark.parametrize("lead", [(), (3,), (2, 0)])
@pytest.mark.parametrize("m", [0, 4])
def test_nothing_to_match(m, lead, device, impl):
    x, y = torch.zeros(*lead, 0, 3, device=device), torch.zeros(*lead, m, 3, device=device)
    result = assign(x, y, impl=impl)
    assert result.index.shape == result.u.shape == (*lead, 0)
    assert torch.equal(result.v, torch.zeros(*lead, m, dtype=torch.float64, device=device))
    for part in (result.primal, result.dual, result.gap):
        assert torch.equal(part, torch.zeros(lead, dtype=torch.float64, device=device))
    assert torch.equal(verify(x, y, result).valid, torch.ones(lead, dtype=torch.bool, device=device))


@everywhere
@pytest.mark.parametrize("n", [17, 20])
def test_batches_are_independent(n, device, impl, randn):
    x, y, potential = (randn(*s, device=device) for s in ((2, 3, n, 5), (2, 3, 20, 5), (2, 3, 20)))
    result = assign(x, y, potential=potential, impl=impl)
    assert_optimal(result, x, y, potential)
    for a in range(2):
        for b in range(3):
            alone = assign(x[a, b], y[a, b], potential=potential[a, b], impl=impl)
            for got, expected in zip(result, alone, strict=True):
                assert torch.equal(got[a, b], expected)


@everywhere
def test_views_are_read_as_they_are(device, impl, randn):
    views = {
        "transposed": (randn(5, 30, device=device).T, randn(5, 40, device=device).T, None),
        "every second": (randn(60, 8, device=device)[::2, ::2], randn(80, 4, device=device)[1::2], None),
        "expanded": (
            randn(30, 3, device=device).expand(3, 30, 3),
            randn(3, 33, 3, device=device),
            randn(33, device=device).expand(3, 33),
        ),
        "one number": (
            randn(3, 10, 3, device=device),
            randn(12, 3, device=device).expand(3, 12, 3),
            randn(1, device=device).expand(3, 12),
        ),
        "negated": (randn(10, 3, device=device), torch._neg_view(randn(12, 3, device=device)), None),
    }
    for name, (x, y, potential) in views.items():
        got = assign(x, y, potential=potential, impl=impl)
        dense = [
            t if t is None else t.resolve_neg().clone(memory_format=torch.contiguous_format) for t in (x, y, potential)
        ]
        expected = assign(*dense[:2], potential=dense[2], impl=impl)
        assert_optimal(got, x, y, potential)
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a, b), name


@everywhere
@pytest.mark.parametrize("shape", [(1, 120, 140, 300), (40, 30, 30, 60)])
def test_threads_change_no_bit(shape, device, impl, randn, request):
    if request.node.callspec.params["impl"] == "reference":
        shape = (2, 10, 12, 3)
    batch, n, m, d = shape
    x, y, threads = randn(batch, n, d, device=device), randn(batch, m, d, device=device), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            results.append(assign(x, y, impl=impl))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name in ("index", "u", "v"):  # the sums primal and dual are torch's
            assert torch.equal(getattr(other, name), getattr(results[0], name))


@everywhere
@pytest.mark.parametrize("tolerance", [1e-6, 0.01, 0.5])
@pytest.mark.parametrize("m", [60, 75])
def test_tolerance_bounds_the_gap(m, tolerance, device, impl, randn):
    x, y = randn(60, 3, device=device), randn(m, 3, device=device)
    result = assign(x, y, tolerance=tolerance, impl=impl)
    best = assign(x, y, impl=impl)
    assert (result.index.sort().values.diff() > 0).all()
    rounding = 60 * verify(x, y, result).rounding
    assert -rounding <= result.gap <= tolerance * result.primal + rounding
    assert best.primal - rounding <= result.primal <= (1 + tolerance) * best.primal + rounding
    assert result.dual <= best.primal + rounding
