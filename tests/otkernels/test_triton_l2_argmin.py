"""l2_argmin's Triton kernels, in Triton's interpreter without a GPU (TRITON_INTERPRET=1), on the GPU with one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

triton_impl = importlib.import_module("otkernels.l2_argmin.triton")
l2_argmin = triton_impl.l2_argmin

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # the interpreter's own
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
U = 2.0**-24
INF, NAN = float("inf"), float("nan")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty holds NaN and the largest integer, so that an output which no kernel wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def exact_cost(x: Tensor, y: Tensor, potential: Tensor | None) -> Tensor:
    """The definition in float64: [B, N, M]."""
    cost = (x.double()[:, :, None] - y.double()[:, None]).square().sum(-1)
    return cost if potential is None else cost - potential.double()[:, None]


def check(x: Tensor, y: Tensor, potential: Tensor | None = None, precision: str = "exact") -> None:
    """The index attains the float64 minimum, and the value its cost, within the rounding of a direct float32 sum."""
    value, index = l2_argmin(x, y, potential, precision)
    assert value.dtype == torch.float32
    assert index.dtype == torch.int64
    assert value.shape == index.shape == x.shape[:2]
    assert (index >= 0).all()
    assert (index < y.shape[1]).all()
    cost = exact_cost(x, y, potential)
    chosen = cost.gather(2, index[..., None])[..., 0]
    # D differences, squares and additions, then the potential: (D + 3) u (|x - y|^2 + |p|), and products below 2^-149
    size = chosen if potential is None else chosen.abs() + 2 * potential.double().abs().gather(1, index.flatten(1))
    bound = (x.shape[2] + 3) * (U * size + 2.0**-149)
    assert ((value - chosen).abs() <= bound).all()
    # the winner's float32 sum is not above that of the true minimum: both may be off by the bound
    slack = 2 * bound if precision == "exact" else 2.0**-4 * (x.double().norm(dim=2) * y.double().norm(dim=2).amax())
    assert (chosen - cost.amin(2) <= slack).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_are_found_and_the_first_of_the_highest_potential_stays(dtype: torch.dtype) -> None:
    y = randn(2, 40, 33).to(dtype).repeat(1, 5, 1)[:, torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    _, group = torch.unique(y.double().flatten(0, 1), dim=0, return_inverse=True)
    group = group.view(2, 200)
    for entry, left_out in enumerate(triton_impl.copies(y, None)):
        first = [group[entry].tolist().index(g) for g in group[entry].unique().tolist()]
        assert sorted(first) == (~left_out).nonzero().flatten().tolist()
    potential = randn(2, 200).to(dtype)
    left_out = triton_impl.copies(y, potential)
    for entry in range(2):
        for g in group[entry].unique():
            members = (group[entry] == g).nonzero().flatten()
            best = members[potential[entry, members].argmax()]
            assert not left_out[entry, best]
    assert left_out.any()


def test_a_cloud_of_copies_is_solved_and_ties_go_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_impl, "_COPIES_PAY", 0)
    x, y = randn(1, 40, 20), randn(1, 30, 20, seed=1).repeat(1, 6, 1)
    _, index = l2_argmin(x, y, None)
    assert (index < 30).all()
    check(x, y)
    check(x, y, randn(1, 180, seed=2))
    first, second, _ = triton_impl._scores(x, y, None, "exact", triton_impl.copies(y, None))
    assert (first.amin(0) < second.amin(0)).all()  # no tie is left
    y[0, 5, 3] = NAN
    assert (l2_argmin(x, y, None)[1] == -1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_potential", [False, True])
@pytest.mark.parametrize(
    ("b", "n", "m", "d"), [(1, 1, 1, 1), (2, 65, 130, 3), (1, 5, 200, 9), (2, 70, 70, 17), (1, 130, 65, 40)]
)
def test_index_attains_the_float64_minimum(
    b: int, n: int, m: int, d: int, with_potential: bool, dtype: torch.dtype
) -> None:
    x, y = randn(b, n, d).to(dtype), randn(b, m, d, seed=1).to(dtype)
    check(x, y, randn(b, m, seed=2).to(dtype) if with_potential else None)


def test_features_are_streamed_when_they_do_not_fit() -> None:
    check(randn(1, 20, 150), randn(1, 70, 150, seed=1))
    check(randn(1, 20, 150).half(), randn(1, 70, 150, seed=1).half())


@pytest.mark.parametrize("offset", [30, 1000])
@pytest.mark.parametrize("d", [3, 24])
def test_near_ties_that_the_product_form_gets_wrong(d: int, offset: float) -> None:
    x, y = offset + 1e-2 * randn(1, 64, d), offset + 1e-2 * randn(1, 90, d, seed=1)
    product = x.square().sum(-1)[..., None] + y.square().sum(-1)[:, None] - 2 * x @ y.mT
    assert (product.argmin(-1) != exact_cost(x, y, None).argmin(-1)).float().mean() > 0.1
    check(x, y)


def test_a_near_tie_with_a_point_of_another_part() -> None:
    x, y = 30 + 1e-2 * randn(1, 200, 24), torch.full((1, 90, 24), 1000.0, device=DEVICE)
    y[0, [3, 70]] = 30 + 1e-2 * randn(2, 24, seed=1)
    assert triton_impl._scores(x, y, None, "exact")[0].shape[0] == 2
    check(x, y)


@pytest.mark.parametrize("d", [2, 33])
@pytest.mark.parametrize("precision", ["exact", "tf32", "bf16"])
def test_equal_points_go_to_the_lowest_index(d: int, precision: str) -> None:
    # Multiples of 1/8 below 4 have exact products and sums in every precision: the interpreter's own matrix product may
    # round a column by its place, which depends on the processor, and then two copies of a point would not be equal.
    base = (8 * randn(1, 45, d)).round().clamp(-31, 31) / 8
    y = base.repeat(1, 4, 1)  # copies lie in other tiles and other parts
    x = (
        base[:, torch.randperm(45, generator=torch.Generator().manual_seed(3))]
        + (2 * randn(1, 45, d, seed=4)).round() / 8
    )
    index = l2_argmin(x, y, None, precision)[1]
    assert (index < 45).all()
    assert torch.equal(index, l2_argmin(x, base, None, precision)[1])


def test_bounds_lie_below_the_true_costs_and_decide_ordinary_rows() -> None:
    x, y, potential = randn(1, 50, 20), 3 * randn(1, 300, 20, seed=1), randn(1, 300, seed=2)
    first, second, _ = triton_impl._scores(x, y, potential, "exact")
    assert first.shape[0] > 1
    norm = x.double().square().sum(-1)
    for split in range(first.shape[0]):  # a part knows its two lowest bounds; all parts together the two lowest of all
        assert (first[split] <= second[split]).all()
    bounds = torch.cat((first, second)).double().sort(dim=0).values[:2] + norm
    lowest = exact_cost(x, y, potential).sort(dim=2).values[..., :2].movedim(2, 0)
    slack = triton_impl.error_bound(20, "exact")[0]
    size = norm + y.double().square().sum(-1).amax() + potential.double().abs().amax()
    assert (bounds[0] <= lowest[0]).all()
    assert (bounds[1] <= lowest[1]).all()
    assert (lowest - bounds <= 2 * slack * size).all()  # not vacuous: pass 2 is rare
    assert (bounds[1] > lowest[0]).float().mean() > 0.99


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("precision", ["exact", "tf32", "bf16"])
def test_nan_gives_minus_one_and_nan(d: int, precision: str) -> None:
    x, y, potential = randn(2, 20, d), randn(2, 70, d, seed=1), randn(2, 70, seed=2)
    x[0, 3, -1] = NAN
    value, index = l2_argmin(x, y, potential, precision)
    bad = torch.zeros(2, 20, dtype=torch.bool, device=DEVICE)
    bad[0, 3] = True
    assert torch.equal(index == -1, bad)
    assert torch.equal(value.isnan(), bad)
    y[1, 66, 0] = NAN
    potential[0, 69] = NAN
    value, index = l2_argmin(x, y, potential, precision)
    assert (index == -1).all()
    assert value.isnan().all()


@pytest.mark.parametrize("d", [2, 20])
def test_infinities(d: int) -> None:
    x, y = randn(1, 5, d), randn(1, 70, d, seed=1)
    x[0, 1, 0] = INF
    y[0, 2, 1] = -INF
    value, index = l2_argmin(x, y, None)
    assert value[0, 1] == INF
    assert index[0, 1] == 0  # all costs are +inf: the lowest index
    y[0, 65, 0] = INF  # inf - inf in row 1
    value, index = l2_argmin(x, y, None)
    assert value[0, 1].isnan()
    assert index[0, 1] == -1
    rest = [0, 2, 3, 4]
    assert torch.equal(index[:, rest], exact_cost(x, y, None).argmin(2)[:, rest])


@pytest.mark.parametrize("d", [2, 20])
def test_infinite_potentials(d: int) -> None:
    x, y, potential = randn(1, 10, d), randn(1, 150, d, seed=1), torch.zeros(1, 150, device=DEVICE)
    potential[0, ::2] = -INF
    index = l2_argmin(x, y, potential)[1]
    assert torch.equal(index, 1 + 2 * exact_cost(x, y[:, 1::2], None).argmin(2))
    potential[0, [71, 140]] = INF
    value, index = l2_argmin(x, y, potential)
    assert (index == 71).all()
    assert (value == -INF).all()
    value, index = l2_argmin(x, y, torch.full_like(potential, -INF))
    assert (index == 0).all()
    assert (value == INF).all()


@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1e-19, 1e15, 1e18])
def test_sizes_near_the_ends_of_float32(scale: float, d: int) -> None:
    check(scale * randn(1, 20, d), scale * randn(1, 70, d, seed=1))


@pytest.mark.parametrize("d", [3, 20])
def test_overflow_of_all_costs(d: int) -> None:
    value, index = l2_argmin(1e30 * randn(1, 20, d), 1e30 * randn(1, 70, d, seed=1), None)
    assert (value == INF).all()
    assert (index == 0).all()


@pytest.mark.parametrize("d", [3, 20])
def test_strides(d: int) -> None:
    x, y = randn(2, d, 30).mT, randn(1, 2 * 70, 2 * d, seed=1)[:, ::2, ::2].expand(2, 70, d)
    potential = randn(1, seed=2).expand(2, 70)
    dense = [tensor.contiguous() for tensor in (x, y, potential)]
    for got, expected in zip(l2_argmin(x, y, potential), l2_argmin(*dense), strict=True):
        assert torch.equal(got, expected)
    check(x, y, potential)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lower_precisions_choose_well_and_state_the_true_cost(precision: str, dtype: torch.dtype) -> None:
    x, y, potential = randn(1, 70, 24).to(dtype), randn(1, 150, 24, seed=1).to(dtype), randn(1, 150, seed=2).to(dtype)
    check(x, y, potential, precision)


def test_no_rows() -> None:
    value, index = l2_argmin(randn(2, 0, 3), randn(2, 4, 3), None)
    assert value.shape == index.shape == (2, 0)


def test_where_it_runs() -> None:
    assert triton_impl.supports(DEVICE, torch.float32) == ""
    assert "float64" in triton_impl.supports(DEVICE, torch.float64)
    assert "meta" in triton_impl.supports(torch.device("meta"), torch.float32)
