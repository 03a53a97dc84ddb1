"""l2_topk's Triton kernels, in Triton's interpreter without a GPU (TRITON_INTERPRET=1), on the GPU with one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

triton_impl = importlib.import_module("otkernels.l2_topk.triton")
distance = importlib.import_module("otkernels._triton_distance")
l2_topk = triton_impl.l2_topk

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # the interpreter's own
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
U = 2.0**-24
INF, NAN = float("inf"), float("nan")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Draw = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty holds NaN and the largest integer, so that an output which no kernel wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def exact_cost(x: Tensor, y: Tensor, potential: Tensor | None) -> Tensor:
    """The definition in float64: [B, N, M]."""
    cost = (x.double()[:, :, None] - y.double()[:, None]).square().sum(-1)
    return cost if potential is None else cost - potential.double()[:, None]


def check(x: Tensor, y: Tensor, k: int, potential: Tensor | None = None) -> None:
    """The chosen costs are the k least in float64, and the values are theirs, within the rounding of float32 sums."""
    value, index = l2_topk(x, y, k, potential)
    assert value.dtype == torch.float32
    assert index.dtype == torch.int64
    assert value.shape == index.shape == (*x.shape[:2], k)
    assert (index >= 0).all()
    assert (index < y.shape[1]).all()
    assert (index.sort(dim=2).values.diff(dim=2) > 0).all()  # no column twice
    steps = value.diff(dim=2)
    assert (steps >= 0).all()
    assert (index.diff(dim=2)[steps == 0] > 0).all()
    cost = exact_cost(x, y, potential)
    # D differences, squares and additions, then the potential: (D + 3) u (|x - y|^2 + |p|), and products below 2^-149
    size = cost if potential is None else cost.abs() + 2 * potential.double().abs()[:, None]
    bound = (x.shape[2] + 3) * (U * size + 2.0**-149)
    least, order = cost.sort(dim=2, stable=True)
    chosen, off = cost.gather(2, index), bound.gather(2, index)
    assert ((value - chosen).abs() <= off).all()
    # the c-th least float32 cost is no more than the largest of the c columns that are the least in float64
    most_off = bound.gather(2, order).cummax(dim=2).values[..., :k]
    assert (chosen - least[..., :k] <= most_off + off).all()


def on_grid(tensor: Tensor) -> Tensor:
    """Multiples of 1/8 below 4, whose products and sums are exact: ties are ties in every order of summation."""
    return (8 * tensor).round().clamp(-31, 31) / 8


@pytest.mark.parametrize("with_potential", [False, True])
@pytest.mark.parametrize(
    ("b", "n", "m", "d", "k"),
    [
        (1, 1, 1, 1, 1),
        (2, 65, 130, 3, 6),
        (1, 4, 200, 8, 128),
        (2, 33, 70, 17, 5),
        (1, 4, 150, 9, 127),
        (1, 3, 20, 12, 20),
    ],
)
def test_the_k_least_costs_in_order(b: int, n: int, m: int, d: int, k: int, with_potential: bool, randn: Draw) -> None:
    x, y = randn(b, n, d, device=DEVICE), randn(b, m, d, device=DEVICE)
    check(x, y, k, randn(b, m, device=DEVICE) if with_potential else None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [3, 150])
def test_dtypes_and_features_that_are_streamed(d: int, dtype: torch.dtype, randn: Draw) -> None:
    x, y, potential = (randn(*shape, device=DEVICE, dtype=dtype) for shape in ((1, 20, d), (1, 80, d), (1, 80)))
    check(x, y, 4, potential)


@pytest.mark.parametrize("d", [2, 20])
def test_equal_costs_go_to_the_lowest_index(d: int, randn: Draw) -> None:
    """Copies lie in other tiles and other parts, and more of them tie than are kept."""
    y = on_grid(randn(1, 40, d, device=DEVICE)).repeat(1, 12, 1)
    x = on_grid(y[:, :20] + randn(1, 20, d, device=DEVICE) / 4)
    potential = on_grid(randn(1, 40, device=DEVICE)).repeat(1, 12)
    for offsets in (None, potential):
        expected = exact_cost(x, y, offsets).sort(dim=2, stable=True)
        value, index = l2_topk(x, y, 14, offsets)
        assert torch.equal(index, expected.indices[..., :14])
        assert torch.equal(value.double(), expected.values[..., :14])


@pytest.mark.parametrize("d", [1, 10])
def test_sorted_points_and_points_that_are_all_one(d: int, randn: Draw) -> None:
    line = torch.linspace(-4, 4, 257, device=DEVICE)[:, None].expand(257, d)  # multiples of 1/32
    x = on_grid(randn(1, 9, d, device=DEVICE))
    for y in (line, line.flip(0), torch.ones_like(line)):
        index = l2_topk(x, y[None], 7, None)[1]
        assert torch.equal(index, exact_cost(x, y[None], None).sort(dim=2, stable=True).indices[..., :7])


@pytest.mark.parametrize("offset", [30, 1000])
@pytest.mark.parametrize("d", [3, 24])
def test_near_ties_that_the_product_form_gets_wrong(d: int, offset: float, randn: Draw) -> None:
    x, y = (offset + 1e-2 * randn(1, n, d, device=DEVICE) for n in (30, 90))
    product = x.square().sum(-1)[..., None] + y.square().sum(-1)[:, None] - 2 * x @ y.mT
    wrong = product.sort(dim=2).indices[..., :5] != exact_cost(x, y, None).sort(dim=2).indices[..., :5]
    assert wrong.any(2).float().mean() > 0.1
    check(x, y, 5)


def test_rows_that_are_undecided_are_scattered_among_others(randn: Draw) -> None:
    y = torch.cat((randn(2, 150, 20, device=DEVICE), 100 + 1e-3 * randn(2, 150, 20, device=DEVICE)), 1)
    x = randn(2, 30, 20, device=DEVICE)
    far = torch.zeros(2, 30, dtype=torch.bool, device=DEVICE)
    far[0, ::7] = far[1, 3::8] = True
    x[far] += 100
    value = torch.empty(2, 30, 3, device=DEVICE)
    pending = triton_impl._rank(x, y, None, value, torch.empty_like(value, dtype=torch.int64))
    assert torch.equal(pending != 0, far)
    check(x, y, 3)


def test_bounds_lie_below_the_true_costs_and_decide_ordinary_rows(randn: Draw) -> None:
    x, y, potential = (randn(*shape, device=DEVICE) for shape in ((1, 50, 20), (1, 700, 20), (1, 700)))
    lists = triton_impl._scores(x, y, potential, 10)
    parts = lists.shape[2]
    assert parts > 1
    bits = lists >> 32
    bound = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).int().view(torch.float32).double()
    column = lists & 0xFFFFFFFF
    norm = x.double().square().sum(-1)[..., None]
    cost = exact_cost(x, y, potential)
    assert (bound + norm[..., None] <= cost[..., None, :].expand(-1, -1, parts, -1).gather(3, column)).all()
    tiles = -(-700 // 64)
    for part in range(parts):
        begin, end = (at * tiles // parts * 64 for at in (part, part + 1))
        rest = cost[..., begin:end].scatter(2, column[:, :, part] - begin, INF)
        assert (bound[:, :, part].amax(2) + norm[..., 0] <= rest.amin(2)).all()
    value = torch.empty(1, 50, 5, device=DEVICE)
    pending = triton_impl._rank(x, y, potential, value, torch.empty_like(value, dtype=torch.int64))
    assert pending.float().mean() < 0.01


@pytest.mark.parametrize("d", [2, 20])
def test_nan_gives_minus_one_and_nan(d: int, randn: Draw) -> None:
    x, y, potential = (randn(*shape, device=DEVICE) for shape in ((2, 20, d), (2, 300, d), (2, 300)))
    x[0, 3, -1] = NAN
    value, index = l2_topk(x, y, 9, potential)
    bad = torch.zeros(2, 20, 9, dtype=torch.bool, device=DEVICE)
    bad[0, 3] = True
    assert torch.equal(index == -1, bad)
    assert torch.equal(value.isnan(), bad)
    y[1, 66, 0] = NAN
    potential[0, 290] = NAN
    value, index = l2_topk(x, y, 9, potential)
    assert (index == -1).all()
    assert value.isnan().all()


@pytest.mark.parametrize("d", [2, 20])
def test_infinities(d: int, randn: Draw) -> None:
    x, y = randn(1, 5, d, device=DEVICE), randn(1, 70, d, device=DEVICE)
    x[0, 1, 0] = INF
    y[0, 2, 1] = -INF
    value, index = l2_topk(x, y, 3, None)
    assert (value[0, 1] == INF).all()
    assert index[0, 1].tolist() == [0, 1, 2]  # all costs are +inf: the lowest indices
    index = l2_topk(x, y, 70, None)[1]
    assert (index[0, [0, 2, 3, 4], -1] == 2).all()
    y[0, 65, 0] = INF  # inf - inf in row 1
    value, index = l2_topk(x, y, 3, None)
    assert value[0, 1].isnan().all()
    assert (index[0, 1] == -1).all()
    rest = [0, 2, 3, 4]
    assert torch.equal(index[:, rest], exact_cost(x, y, None).sort(dim=2).indices[:, rest, :3])


@pytest.mark.parametrize("d", [2, 20])
def test_infinite_potentials(d: int, randn: Draw) -> None:
    x, y, potential = (
        randn(1, 10, d, device=DEVICE),
        randn(1, 150, d, device=DEVICE),
        torch.zeros(1, 150, device=DEVICE),
    )
    potential[0, 4:] = -INF
    potential[0, [71, 140]] = INF
    value, index = l2_topk(x, y, 8, potential)
    assert torch.equal(index, exact_cost(x, y, potential).sort(dim=2, stable=True).indices[..., :8])
    assert (value[..., :2] == -INF).all()
    assert value[..., 2:6].isfinite().all()
    assert (index[..., 6:] == torch.tensor([4, 5], device=DEVICE)).all()  # all others cost +inf
    assert (value[..., 6:] == INF).all()


@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1e-19, 1e15, 1e18])
def test_sizes_near_the_ends_of_float32(scale: float, d: int, randn: Draw) -> None:
    check(scale * randn(1, 10, d, device=DEVICE), scale * randn(1, 70, d, device=DEVICE), 3)


@pytest.mark.parametrize("d", [3, 20])
def test_overflow_of_all_costs(d: int, randn: Draw) -> None:
    value, index = l2_topk(1e30 * randn(1, 10, d, device=DEVICE), 1e30 * randn(1, 70, d, device=DEVICE), 4, None)
    assert (value == INF).all()
    assert (index == torch.arange(4, device=DEVICE)).all()


@pytest.mark.parametrize("d", [3, 20])
def test_strides(d: int, randn: Draw) -> None:
    x, y = randn(2, d, 30, device=DEVICE).mT, randn(1, 2 * 70, 2 * d, device=DEVICE)[:, ::2, ::2].expand(2, 70, d)
    potential = randn(1, device=DEVICE).expand(2, 70)
    dense = [tensor.contiguous() for tensor in (x, y, potential)]
    for got, expected in zip(l2_topk(x, y, 6, potential), l2_topk(*dense[:2], 6, dense[2]), strict=True):
        assert torch.equal(got, expected)
    check(x, y, 6, potential)


@pytest.mark.parametrize("d", [3, 20])
def test_points_past_the_last_one_are_not_seen(d: int, randn: Draw) -> None:
    x = randn(1, 10, d, device=DEVICE)
    memory = torch.cat((randn(1, 22, d, device=DEVICE), x.repeat(1, 11, 1)), 1)
    potential = torch.cat((randn(1, 22, device=DEVICE), torch.full((1, 110), INF, device=DEVICE)), 1)
    for k in (3, 22):
        check(x, memory[:, :22], k, potential[:, :22])


def test_no_rows_and_too_many_columns() -> None:
    value, index = l2_topk(torch.zeros(2, 0, 3, device=DEVICE), torch.zeros(2, 4, 3, device=DEVICE), 2, None)
    assert value.shape == index.shape == (2, 0, 2)
    with pytest.raises(ValueError, match="at most 2147483647 points"):
        l2_topk(torch.zeros(1, 1, 1, device=DEVICE), torch.zeros(1, 1, 1, device=DEVICE).expand(1, 2**31, 1), 2, None)


def test_where_it_runs() -> None:
    assert triton_impl.supports(torch.device(DEVICE), torch.float32) == ""
    assert "float64" in triton_impl.supports(torch.device(DEVICE), torch.float64)
