"""semidiscrete against closed forms in one dimension and against its definition in float64."""

from __future__ import annotations

import math
import time
import warnings

import pytest
import torch
from torch import Tensor

from otkernels import Semidiscrete, semidiscrete
from tests.otkernels.cells import masses, reported_error, weights
from tests.otkernels.nearest import costs

INF, NAN = math.inf, math.nan


def check(found: Semidiscrete, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """What is reported is what the potential does. Returns the masses of its cells."""
    assert reported_error(found, x, y, a, b) <= 1
    return masses(found, x, y, weights(a, x))


def test_two_points_share_a_segment(randn):
    """(t + 1)^2 - g_0 = (t - 1)^2 - g_1 at the border t of the cells of -1 and 1: g_0 - g_1 = 4 t, a quantile of x."""
    x = randn(1000, 1).sort(0).values
    y = torch.tensor([[-1.0], [1.0]])
    for share in (0.1, 0.5, 0.9):
        found = semidiscrete(x, y, weights_y=torch.tensor([share, 1 - share]), tolerance=0.0)
        assert found.converged
        t = (found.potential[0] - found.potential[1]).item() / 4
        k = round(share * 1000)  # within one point: the border lies between the k - 1st and the k + 2nd
        assert x[k - 2].item() <= t <= x[k + 1].item()
        check(found, x, y, b=torch.tensor([share, 1 - share]))


def borders(x: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """The optimal potential of y_1 < ... < y_M on a line: borders between cells are quantiles of x. [M], mean 0."""
    x, y = x.double().sort().values, y.double()
    ends = (b.double().cumsum(0)[:-1] * len(x)).round().long()
    t = (x[ends - 1] + x[ends]) / 2  # [M - 1]
    rise = (t - y[1:]).square() - (t - y[:-1]).square()  # (t - y_j)^2 - g_j = (t - y_j+1)^2 - g_j+1
    g = torch.cat([rise.new_zeros(1), rise.cumsum(0)])
    return g - (b * g).sum()


@pytest.mark.parametrize("m", [3, 10, 64])
@pytest.mark.parametrize("batch", [None, 320])
def test_potentials_of_points_on_a_line_come_from_quantiles(m, batch, randn):
    """The dual is concave with slope b - mass: its maximum is within sum_j |mass_j - b_j| max_j |g_j - g*_j|."""
    x, y = randn(6400), (randn(m).abs() + 0.3).cumsum(0) * 4 / m - 1
    b = torch.linspace(1, 2, m).double()
    b = (b / b.sum() * 6400).round() / 6400  # whole numbers of points
    b[0] += 1 - b.sum()
    best = borders(x, y, b)
    top = costs(x[:, None], y[:, None], best).amin(1).mean() + (b * best).sum()
    found = semidiscrete(x[:, None], y[:, None], weights_y=b.float(), batch=batch, iterations=1000)
    mass = check(found, x[:, None], y[:, None], b=b.float())
    shift = (found.potential.double() - best).abs().max()
    rounding = 4 * 2.0**-23 * (costs(x[:, None], y[:, None]).max() + 2 * best.abs().max())
    assert found.value <= top + rounding
    assert top - found.value <= (mass - b).abs().sum() * shift + rounding
    if batch is None:
        assert found.converged


LAWS = {
    "gaussian": lambda n, m, d, randn: (randn(n, d), randn(m, d)),
    "apart": lambda n, m, d, randn: (randn(n, d), randn(m, d) / 2 + 1),
    "clusters": lambda n, m, d, randn: tuple((3 * randn(4, d))[torch.arange(k) % 4] + randn(k, d) / 4 for k in (n, m)),
}


@pytest.mark.parametrize(("n", "m", "d"), [(1000, 20, 2), (2000, 33, 16), (2048, 100, 64)])
@pytest.mark.parametrize("law", LAWS)
def test_cells_reach_the_masses_asked_for(law, n, m, d, randn):
    """Within a tenth of a mean cell and a point."""
    x, y = LAWS[law](n, m, d, randn)
    a, b = randn(n).abs() + 0.1, randn(m).abs() + 0.5
    found = semidiscrete(x, y, a, b, tolerance=0.1, iterations=1000)
    mass = check(found, x, y, a, b)
    assert found.converged
    assert (mass - weights(b, y)).abs().max() <= 0.1 / m + weights(a, x).max() + n * 2.0**-52
    assert 0 < found.iterations < 1000


def test_a_stochastic_ascent_comes_near(randn):
    """A step sees 32 points a cell, of which noise is a share of 1 / sqrt(32) = 0.18; many small steps have less."""
    x, y = randn(20_000, 8), randn(64, 8) / 2 + 0.5
    nearest = semidiscrete(x, y, iterations=0)
    generator = torch.Generator().manual_seed(1)
    found = semidiscrete(x, y, batch=2048, iterations=400, generator=generator)
    check(found, x, y)
    assert nearest.marginal_error * 64 > 1
    assert found.marginal_error * 64 < 0.18
    assert found.iterations == 400
    again = semidiscrete(x, y, batch=2048, iterations=400, generator=generator.manual_seed(1))
    assert torch.equal(found.potential, again.potential)


@pytest.mark.parametrize("batch", [None, 200])
def test_points_without_weight_are_paired_with_nothing(batch, randn):
    x, y, b = randn(400, 3), randn(40, 3), torch.ones(40)
    b[::3] = 0
    found = semidiscrete(x, y, weights_y=b, batch=batch, tolerance=0.1)
    mass = check(found, x, y, b=b)
    assert torch.equal(found.potential == -INF, b == 0)
    assert (mass[b == 0] == 0).all()
    assert found.potential[b > 0].mean().abs() < 1e-6 * found.potential[b > 0].abs().max()


def test_rows_without_weight_do_not_matter(randn):
    x, y, a = randn(400, 3), randn(30, 3), torch.ones(400)
    a[200:] = 0
    found = semidiscrete(x, y, a, tolerance=0.1)
    check(found, x, y, a)
    assert found.converged
    x[200:] = 1e3
    assert semidiscrete(x, y, a, tolerance=0.1).converged


def test_problems_of_a_batch_have_nothing_to_do_with_each_other(randn):
    """One with a NaN, one with an infinity, one whose costs overflow, and two that are solved as they are alone."""
    x, y = randn(5, 1, 200, 2), randn(5, 1, 20, 2)
    x[0, 0, 7, 1], y[1, 0, 3, 0], x[2, 0, 0, 0] = NAN, INF, 3e19
    start = time.monotonic()
    found = semidiscrete(x, y, tolerance=0.1)
    assert time.monotonic() - start < 30
    assert found.potential.shape == (5, 1, 20)
    assert found.value.shape == found.marginal_error.shape == found.converged.shape == (5, 1)
    assert found.potential[:3].isnan().all()
    assert found.value[:3].isnan().all()
    assert found.marginal_error[:3].isnan().all()
    assert not found.converged[:3].any()
    for k in (3, 4):
        alone = semidiscrete(x[k], y[k], tolerance=0.1)
        assert found.converged[k]
        check(Semidiscrete(*(t[k] for t in found[:4]), found.iterations), x[k], y[k])
        assert alone.converged
    broken = torch.full((4,), NAN)
    assert semidiscrete(randn(9, 2), randn(4, 2), start=broken).potential.isnan().all()


def test_a_broken_problem_holds_no_other_up(randn):
    x, y = randn(2, 400, 2), randn(2, 20, 2)
    x[0, 0, 0] = NAN
    found = semidiscrete(x, y, tolerance=0.1)
    assert found.converged.tolist() == [False, True]
    assert found.iterations < 500


def test_autocast_makes_no_halves_of_the_costs(randn):
    """|2 x y| beyond 65504, the largest float16."""
    x, y = 100 * randn(500, 64), 100 * randn(20, 64)
    expected = semidiscrete(x, y).potential
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(semidiscrete(x, y).potential, expected)
        mixed = semidiscrete(x / 100, (y / 100).half())
    assert semidiscrete(x, y, tolerance=0.1).converged
    assert mixed.converged


def test_weights_may_be_smaller_than_float32_holds(randn):
    """A cluster whose cells together weigh 1e-60: a cell of the coarser problem."""
    x, y = randn(2000, 2), randn(64, 2)
    y[32:] += 100
    b = torch.ones(64, dtype=torch.float64)
    b[32:] = 1e-60
    found = semidiscrete(x, y, weights_y=b, tolerance=0.1)
    assert found.converged
    check(found, x, y, b=b)


def test_it_starts_where_it_is_told_to(randn):
    x, y, start = randn(300, 2), randn(30, 2), randn(30)
    found = semidiscrete(x, y, start=start, iterations=0)
    torch.testing.assert_close(found.potential, start - start.mean(), atol=1e-6, rtol=0)
    assert found.iterations == 0
    check(found, x, y)
    good = semidiscrete(x, y, tolerance=0.1)
    assert semidiscrete(x, y, start=good.potential, tolerance=0.1).iterations == 0


def test_the_least_error_on_the_way_is_kept(randn):
    """Three steps from a good start, of which the first is by far too large, and a tolerance out of reach."""
    x, y = randn(1000, 2), randn(30, 2)
    good = semidiscrete(x, y, tolerance=0.1)
    found = semidiscrete(x, y, start=good.potential, tolerance=0.0, iterations=3)
    assert found.iterations == 3
    assert not found.converged
    # centring the start anew may round it: a point at a border changes its cell, rarely two
    assert found.marginal_error <= good.marginal_error + 2 / 1000


def test_a_problem_that_is_solved_stays_as_it_is(randn):
    """Beside one that never is, since all its points are equal."""
    x, y = randn(2, 500, 2), randn(2, 10, 2)
    x[1] = 0
    found = semidiscrete(x, y, tolerance=0.1, iterations=50)
    assert found.converged.tolist() == [True, False]
    longer = semidiscrete(x, y, start=found.potential, tolerance=0.1, iterations=50)
    torch.testing.assert_close(longer.potential[0], found.potential[0], atol=1e-6, rtol=0)


def test_what_cannot_be_divided_is_said(randn):
    """All points equal: one cell takes them all. Copies among y have one cell between them, the lowest index's."""
    x, y = torch.zeros(50, 2), randn(4, 2)
    found = semidiscrete(x, y, iterations=20)
    assert not found.converged
    assert found.marginal_error == pytest.approx(0.75, abs=1e-12)
    assert found.iterations == 20
    twins = semidiscrete(randn(400, 2), torch.tensor([[0.0, 0.0], [0.0, 0.0]]), iterations=20)
    assert not twins.converged
    assert twins.marginal_error == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(dtype, randn):
    x, y = randn(200, 3, dtype=dtype), randn(10, 3, dtype=dtype)
    found = semidiscrete(x, y, weights_x=torch.ones(200, dtype=torch.float64), tolerance=0.1)
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    assert found.potential.dtype == wide
    assert found.converged
    check(found, x.to(wide), y.to(wide))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 1), (1, 3), (5, 5)])
def test_small_problems(n, m, randn):
    x, y = randn(n, 2), randn(m, 2)
    found = semidiscrete(x, y)
    check(found, x, y)
    assert found.converged == (found.marginal_error <= 0.01 / m + 1 / n)


@pytest.mark.parametrize("m", [3, 20])
def test_no_problems_are_no_trouble(m):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = semidiscrete(torch.zeros(0, 9, 2), torch.zeros(0, m, 2), iterations=2)
    assert found.potential.shape == (0, m)
    assert found.converged.shape == (0,)


def test_nothing_is_recorded(randn):
    found = semidiscrete(randn(50, 2).requires_grad_(), randn(5, 2).requires_grad_())
    assert not found.potential.requires_grad
    assert not found.value.requires_grad


X, Y = torch.zeros(4, 2), torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": [0.0]}, r"x must be a torch.Tensor, got list"),
        ({"x": torch.zeros(2)}, r"x must be \[..., N, D\] with N, D >= 1, got \[2\]"),
        ({"x": torch.zeros(0, 2)}, r"x must be \[..., N, D\] with N, D >= 1, got \[0, 2\]"),
        ({"y": torch.zeros(3, 5)}, r"y must be \[M, D\] with D=2 and M >= 1, got \[3, 5\]"),
        ({"y": torch.zeros(0, 2)}, r"y must be \[M, D\] with D=2 and M >= 1, got \[0, 2\]"),
        ({"y": Y.double()}, r"y must have x's dtype torch.float32, got torch.float64 \[3, 2\]"),
        ({"weights_x": torch.ones(3)}, r"weights_x must be \[N\] with N=4 on cpu, got \[3\] on cpu"),
        ({"weights_y": torch.ones(3, dtype=torch.int64)}, r"weights_y must be float32, .* got torch.int64 \[3\]"),
        ({"weights_y": torch.tensor([1.0, -1, 1])}, r"weights_y must be finite, not negative and not all zero, got"),
        ({"weights_y": torch.zeros(3)}, r"weights_y must be finite, not negative and not all zero, got"),
        ({"weights_x": torch.tensor([1.0, NAN, 1, 1])}, r"weights_x must be finite, not negative and not all zero"),
        ({"weights_x": torch.tensor([1.0, INF, 1, 1])}, r"weights_x must be finite, not negative and not all zero"),
        ({"start": torch.zeros(4)}, r"start must be \[M\] with M=3, got \[4\]"),
        ({"start": torch.zeros(3).double()}, r"start must have x's dtype torch.float32, got torch.float64 \[3\]"),
        ({"batch": 0}, r"batch must be a whole number of at least 1, got 0"),
        ({"iterations": -1}, r"iterations must be a whole number of at least 1, got -1"),
        ({"tolerance": NAN}, r"tolerance must be a finite number >= 0, got nan"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"semidiscrete: {message}"):
        semidiscrete(**{"x": X, "y": Y, **arguments})
