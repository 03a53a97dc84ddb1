"""l2_topk against its definition in float64, on every implementation; its rules are in test_l2_topk_rules.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from otkernels import l2_argmin, l2_topk
from tests.otkernels.cases import devices_and_impls
from tests.otkernels.nearest import costs, k_nearest_error, summation_bound

everywhere = pytest.mark.parametrize(("device", "impl"), devices_and_impls("l2_topk"))
INF, NAN = math.inf, math.nan


def assert_k_nearest(value: Tensor, index: Tensor, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    """Distinct columns whose c-th cost is the c-th least within two sums' errors; values are theirs and ascend, and
    equal values have ascending indices.
    """
    cost = costs(x, y, potential)  # [..., N, M]
    k = value.shape[-1]
    assert index.dtype == torch.int64
    assert ((index >= 0) & (index < y.shape[-2])).all()
    assert (index.sort(-1).values.diff(dim=-1) > 0).all()
    chosen = cost.gather(-1, index)
    offsets = None if potential is None else potential[..., None, :]
    slack = summation_bound(chosen, x.shape[-1], value.dtype, offsets)
    least = cost.sort(dim=-1).values[..., :k]
    assert (chosen.sort(dim=-1).values - least <= 2 * slack).all()
    assert ((value.double() - chosen).abs() <= slack).all()
    rises, ties = value.diff(dim=-1) > 0, value.diff(dim=-1) == 0
    assert (rises | (ties & (index.diff(dim=-1) > 0))).all()


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [
        (1, 1, 1, 1),
        (2, 3, 2, 3),
        (65, 129, 17, 128),
        (33, 31, 100, 31),
        (9, 700, 3, 40),
        (64, 64, 128, 16),
        (1100, 90, 16, 5),
        (40, 3000, 40, 7),
    ],
)
def test_the_k_least_in_float64(n, m, d, k, dtype, device, impl, randn):
    if dtype == torch.float64 and device == "cuda" and impl != "reference":
        dtype = torch.float32
    x, y = randn(n, d, dtype=dtype, device=device), randn(m, d, dtype=dtype, device=device)
    assert_k_nearest(*l2_topk(x, y, k, impl=impl), x, y)


@everywhere
@pytest.mark.parametrize("d", [2, 19])
@pytest.mark.parametrize(("m", "k"), [(1, 1), (40, 40), (3000, 20)])
def test_potential_is_subtracted(m, k, d, device, impl, randn):
    x, y, potential = randn(50, d, device=device), randn(m, d, device=device), 20 * randn(m, device=device)
    assert_k_nearest(*l2_topk(x, y, k, potential, impl=impl), x, y, potential)


@pytest.mark.parametrize("d", [1, 3, 5, 16, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_on_the_cpu_are_l2_argmins_to_the_bit(d, dtype, randn):
    """k = 1 is l2_argmin; for larger k the pairs' sums are in its order."""
    x, y, potential = randn(70, d, dtype=dtype), randn(300, d, dtype=dtype), randn(300, dtype=dtype)
    nearest = l2_argmin(x, y, potential, impl="cpu")
    one, many = l2_topk(x, y, 1, potential, impl="cpu"), l2_topk(x, y, 9, potential, impl="cpu")
    for got in (one, many):
        assert torch.equal(got.value[:, 0], nearest.value)
        assert torch.equal(got.index[:, 0], nearest.index)
    for c in range(9):  # each pair alone, as a row and a column of their own
        pairs = many.index[:, c]
        alone = l2_argmin(x[:, None], y[pairs][:, None], potential[pairs][:, None], impl="cpu").value[:, 0]
        assert torch.equal(many.value[:, c], alone)


@everywhere
def test_batches_are_independent(device, impl, randn):
    x, y, potential = (randn(*s, device=device) for s in ((2, 3, 20, 5), (2, 3, 33, 5), (2, 3, 33)))
    value, index = l2_topk(x, y, 4, potential, impl=impl)
    assert value.shape == index.shape == (2, 3, 20, 4)
    for a in range(2):
        for b in range(3):
            alone = l2_topk(x[a, b], y[a, b], 4, potential[a, b], impl=impl)
            assert torch.equal(alone.value, value[a, b])
            assert torch.equal(alone.index, index[a, b])


@everywhere
@pytest.mark.parametrize("d", [2, 16, 40])
def test_a_far_cloud_keeps_its_digits(d, device, impl, randn):
    """Neighbours 1e-3 apart, 1e3 from the origin: |x|^2 + |y|^2 - 2xy in float32 errs by 1, a million distances."""
    y = 1e3 + 1e-3 * randn(500, d, device=device)
    x = y[torch.arange(0, 500, 7, device=device)] + 1e-4 * randn(72, d, device=device)
    assert_k_nearest(*l2_topk(x, y, 12, impl=impl), x, y)


@everywhere
def test_two_tight_clusters_far_apart(device, impl, randn):
    """No common centre helps: a whole cluster lies inside the product form's error and is re-summed."""
    centres = torch.tensor([[-1e3], [1e3]], device=device)
    y = (centres[:, None] + 1e-3 * randn(2, 300, 24, device=device)).flatten(0, 1)
    x = (centres[:, None] + 1e-3 * randn(2, 50, 24, device=device)).flatten(0, 1)
    assert_k_nearest(*l2_topk(x, y, 20, impl=impl), x, y)


@everywhere
@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("descending", [False, True])
def test_columns_that_come_ever_nearer_or_farther(descending, d, device, impl, randn):
    x, y = randn(5, d, device=device) * 0.01, randn(2000, d, device=device)
    y = y[y.square().sum(1).argsort(descending=descending)]
    assert_k_nearest(*l2_topk(x, y, 33, impl=impl), x, y)


TIES = {
    "all points equal": lambda x, y: (x, y[:1].expand_as(y).contiguous()),
    "everything equal": lambda x, y: (y[:1].expand_as(x).contiguous(), y[:1].expand_as(y).contiguous()),
    "every second one twice": lambda x, y: (x, y[torch.arange(len(y), device=y.device) // 2]),
    "two clusters": lambda x, y: (x, y[torch.arange(len(y), device=y.device) % 2]),
    "few integers": lambda x, y: (x.round().clamp(-1, 1), y.round().clamp(-1, 1)),
}


@everywhere
@pytest.mark.parametrize("d", [1, 3, 5, 33])
@pytest.mark.parametrize("k", [2, 50, 128])
@pytest.mark.parametrize("ties", TIES)
def test_among_equal_costs_the_lowest_index_comes_first(ties, k, d, device, impl, randn):
    """Equal points cost the same to the bit, so the order is that of a stable sort of the costs of one of each."""
    x, y = TIES[ties](randn(21, d, device=device), randn(400, d, device=device))
    value, index = l2_topk(x, y, k, impl=impl)
    assert_k_nearest(value, index, x, y)
    points, which = y.unique(dim=0, return_inverse=True)
    cost = torch.cat([l2_topk(x, point[None], 1, impl=impl).value for point in points], 1)[:, which]  # [N, M]
    assert torch.equal(index, cost.sort(dim=1, stable=True).indices[:, :k])


@everywhere
def test_ties_among_potentials(device, impl, randn):
    x, y = randn(37, 9, device=device), randn(1, 9, device=device).expand(100, 9).contiguous()
    potential = torch.full((100,), 0.5, device=device)
    potential[[30, 31, 70]] = 1.5
    assert (l2_topk(x, y, 5, potential, impl=impl).index == torch.tensor([30, 31, 70, 0, 1], device=device)).all()


@everywhere
@pytest.mark.parametrize("d", [3, 20])
def test_nan_rows_say_so(d, device, impl, randn):
    x, y = randn(70, d, device=device), randn(90, d, device=device)
    x[3, 1] = x[69, d - 1] = NAN
    value, index = l2_topk(x, y, 6, impl=impl)
    bad = torch.zeros(70, dtype=torch.bool, device=device)
    bad[3] = bad[69] = True
    assert torch.equal(value.isnan(), bad[:, None].expand(70, 6))
    assert torch.equal(index < 0, bad[:, None].expand(70, 6))
    assert_k_nearest(value[~bad], index[~bad], x[~bad], y)
    y[60, 2] = NAN  # a NaN cost in every row
    value, index = l2_topk(x, y, 6, impl=impl)
    assert value.isnan().all()
    assert (index == -1).all()
    y[60, 2] = 0
    potential = torch.zeros(90, device=device)
    potential[89] = NAN
    assert (l2_topk(x, y, 6, potential, impl=impl).index == -1).all()


@everywhere
def test_infinite_points_come_last(device, impl, randn):
    x, y = randn(40, 18, device=device), randn(60, 18, device=device)
    y[0, 3], y[50, 17] = INF, -INF
    value, index = l2_topk(x, y, 60, impl=impl)
    assert (index[:, 58:] == torch.tensor([0, 50], device=device)).all()
    assert (value[:, 58:] == INF).all()
    assert value[:, :58].isfinite().all()
    x[5, 3] = INF  # inf - inf meets y_0: NaN
    x[6, 4] = INF  # inf away from all
    value, index = l2_topk(x, y, 3, impl=impl)
    assert (index[5] == -1).all()
    assert (index[6] == torch.arange(3, device=device)).all()
    assert (value[6] == INF).all()


@everywhere
@pytest.mark.parametrize("d", [2, 6])
def test_infinite_potentials(d, device, impl, randn):
    x, y, potential = randn(30, d, device=device), randn(40, d, device=device), torch.zeros(40, device=device)
    potential[[20, 30]] = INF
    value, index = l2_topk(x, y, 3, potential, impl=impl)
    assert (index[:, :2] == torch.tensor([20, 30], device=device)).all()
    assert (value[:, :2] == -INF).all()
    assert value[:, 2].isfinite().all()
    potential[:] = -INF
    potential[7] = 0
    value, index = l2_topk(x, y, 3, potential, impl=impl)
    assert (index == torch.tensor([7, 0, 1], device=device)).all()
    cost = costs(x, y)[:, 7]
    assert ((value[:, 0].double() - cost).abs() <= summation_bound(cost, d, torch.float32)).all()
    assert (value[:, 1:] == INF).all()


@everywhere
@pytest.mark.parametrize("d", [5, 16, 33])
@pytest.mark.parametrize("wanted", [[91], [40], [0, 200], [299]])
def test_points_at_any_price_hide_no_others(wanted, d, device, impl, randn):
    """An infinite potential takes its point's bounds away; more columns than a row keeps must still be told apart."""
    x, y, potential = randn(60, d, device=device), randn(300, d, device=device), randn(300, device=device)
    potential[wanted] = INF
    value, index = l2_topk(x, y, 17, potential, impl=impl)
    assert (index[:, : len(wanted)] == torch.tensor(wanted, device=device)).all()
    assert k_nearest_error(value, index, x, y, potential) <= 1


@everywhere
@pytest.mark.parametrize("d", [3, 24])
@pytest.mark.parametrize("scale", [1e18, 1.5e18, 1e-18, 1e-22, 1e-42])
def test_sizes_whose_squares_overflow_or_vanish(scale, d, device, impl, randn):
    x, y = (randn(30, d, device=device) * scale).float(), (randn(150, d, device=device) * scale).float()
    assert_k_nearest(*l2_topk(x, y, 7, impl=impl), x, y)


@everywhere
def test_costs_that_overflow_are_ties(device, impl):
    """In float32 all are infinite: the lowest indices, each with +inf."""
    x, y = torch.zeros(4, 2, device=device), torch.full((300, 2), 3e38, device=device)
    value, index = l2_topk(x, y, 20, impl=impl)
    assert (value == INF).all()
    assert (index == torch.arange(20, device=device)).all()


@everywhere
def test_views_are_read_as_they_are(device, impl, randn):
    x, y, potential = randn(20, 41, device=device), randn(17, 37, device=device), randn(74, device=device)
    views = x.T[:, ::2], y.T[::2, :10], potential[::4][:19]
    assert not any(view.is_contiguous() for view in views)
    assert_k_nearest(*l2_topk(*views[:2], 6, views[2], impl=impl), *views)
    shared = y[:, :10].expand(5, 17, 10)  # one y for five x
    many = randn(5, 9, 10, device=device)
    got = l2_topk(many, shared, 3, impl=impl)
    assert torch.equal(got.index, torch.stack([l2_topk(one, y[:, :10], 3, impl=impl).index for one in many]))


@everywhere
@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (0, 4, 5), (0, 2)])
def test_nothing_to_assign_is_empty(shape, device, impl, randn):
    x, y = randn(*shape, device=device), randn(*shape[:-2], 7, shape[-1], device=device)
    value, index = l2_topk(x, y, 3, impl=impl)
    assert value.shape == index.shape == (*shape[:-1], 3)


@everywhere
def test_many_small_problems_at_once(device, impl, randn):
    """A batch large enough that the CPU kernel gives each thread whole problems."""
    x, y = randn(40, 100, 8, device=device), randn(40, 150, 8, device=device)
    assert_k_nearest(*l2_topk(x, y, 4, impl=impl), x, y)


@pytest.mark.parametrize("d", [2, 40])
def test_the_result_does_not_depend_on_the_number_of_threads(d, randn):
    x, y = randn(1500, d), randn(2500, d)
    many = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(l2_topk(x, y, 20))
    finally:
        torch.set_num_threads(many)
    for other in results[1:]:
        assert torch.equal(results[0].value, other.value)
        assert torch.equal(results[0].index, other.index)


@pytest.mark.parametrize("d", [2, 24])
def test_rows_in_several_blocks_and_columns_in_several_chunks(d, randn):
    """Rows are solved some thousand at a time, columns of few dimensions 16384 at a time."""
    x, y = randn(20, d), randn(20_000, d)
    assert_k_nearest(*l2_topk(x, y, 100, impl="cpu"), x, y)
    x, y = randn(9_000, d), randn(130, d)
    assert_k_nearest(*l2_topk(x, y, 128, impl="cpu"), x, y)
