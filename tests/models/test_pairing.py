"""The pairings by hand, against scipy, POT and dense float64 searches, and on degenerate and batched problems."""

from __future__ import annotations

import math
import time

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from models import pairing
from models.pairing import PAIRINGS, counted_share, distinct_share, sinkhorn
from otkernels import l2_argmin

U = 2.0**-24  # unit roundoff of float32
SIZES = [64, 128, 256, 512, 1024]
every = pytest.mark.parametrize("name", PAIRINGS)


def costs(x, y):
    """|x_i - y_j|^2 [N, M] in float64, from differences."""
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


def matched(name, x, y):
    return PAIRINGS[name](x, y).cost(x, y)


def sum_bound(n, d):
    """Relative error of sum_k weight |difference|^2 over n pairs in R^d, in float32.

    All terms are positive, so errors only add up (Higham 2002, eq. 3.4): 2 u from the rounded difference, u for its
    square, (d - 1) u for the sum over d, 2 u for the weight and its product, (n - 1) u for the sum over pairs.
    """
    return 1.01 * (n + d + 3) * U


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("cover", (0.25 + 0 + 1) / 3, 1e-6),  # 0 - 0.5, 5 - 5, 6 - 5
        ("literal", (0 + 0.25 + 81) / 3, 1e-6),  # z_r[1, 0, 0] against F in order
        ("assignment", (0.25 + 0 + 9) / 3, 1e-6),  # 0 - 0.5, 5 - 5, 6 - 9
        # blur = 0.05 * 9: the next plan costs (17.25 - 9.25) / 3 / 2 more, e^-6.6 of the weight each way.
        ("sinkhorn", (0.25 + 0 + 9) / 3, 0.05),
    ],
)
def test_matched_cost_by_hand(name, expected, tolerance):
    z_r, transformed = torch.tensor([[0.0], [5.0], [6.0]]), torch.tensor([[5.0], [0.5], [9.0]])
    pairs = PAIRINGS[name](z_r, transformed)
    assert pairs.cost(z_r, transformed).item() == pytest.approx(expected, abs=tolerance)
    assert pairs.weight.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("d", [2, 16, 128])
@pytest.mark.parametrize("n", SIZES)
def test_assignment_costs_what_scipy_and_pot_find(n, d, randn):
    z_r, transformed = randn(n, d), randn(n, d) + 0.5
    cost = costs(z_r, transformed).numpy()
    pairs = PAIRINGS["assignment"](z_r, transformed)
    assert sorted(pairs.real.tolist()) == sorted(pairs.generated.tolist()) == list(range(n))
    found = pairs.cost(z_r, transformed).item()
    # Both solvers are exact to n 2^-53; float32 rounds the matched cost only.
    assert found == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=sum_bound(n, d))
    assert found == pytest.approx(ot.emd2([], [], cost, numItermax=10**6), rel=sum_bound(n, d))


def test_assignment_of_1024_points_takes_about_a_second(randn):
    """Two clouds apart are the slow case: scipy takes 0.9 s of a 2020s server core, against 0.1 s for alike ones."""
    z_r, transformed = randn(1024, 2), randn(1024, 2) / 100 + 10
    start = time.process_time()
    PAIRINGS["assignment"](z_r, transformed)
    assert time.process_time() - start < 8


@pytest.mark.parametrize("d", [2, 16, 128])
@pytest.mark.parametrize("n", SIZES)
def test_cover_costs_what_a_dense_search_finds(n, d, randn):
    z_r, transformed = randn(n, d), randn(n, d) + 0.5
    exact = costs(z_r, transformed).amin(1).mean().item()
    # The index attains each minimum within two float32 sums of d terms, 2 (d + 3) u, and the cost is rounded.
    bound = sum_bound(n, d) + 1.01 * 2 * (d + 3) * U
    assert matched("cover", z_r, transformed).item() == pytest.approx(exact, rel=bound)


def entropic(z_r, transformed, blur):
    """sinkhorn's plan [N, M], the halved costs that it is for, and the temperature, in float64 numpy."""
    plan = sinkhorn(z_r, transformed, relative_blur=blur).weight.view(len(z_r), len(transformed))
    cost = costs(z_r, transformed)
    return plan.numpy(), (cost / 2).numpy(), blur**2 * cost.max().item()


def potentials(plan, cost, temperature):
    """f [N] and g [M] of plan = exp((f + g - cost) / temperature) / (N M), and how far it is from that form."""
    total = temperature * np.log(plan * plan.size) + cost
    f, g = total[:, 0], total[0] - total[0, 0]
    return f, g, np.abs(total - f[:, None] - g).max() / temperature


def pots_plan(rows, columns, cost, temperature):
    return ot.sinkhorn(rows, columns, cost, reg=temperature, stopThr=1e-10, numItermax=20_000, warn=False)


@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("n", SIZES)
def test_sinkhorn_is_pots_plan_for_its_own_marginals(n, d, randn):
    """A plan of the form exp((f + g - cost) / blur^2) is the only entropic plan for the marginals that it has."""
    z_r, transformed = randn(n, d, dtype=torch.float64), randn(n, d, dtype=torch.float64) + 0.5
    plan, cost, temperature = entropic(z_r, transformed, 0.1)
    # Exponents of up to 1 / (2 blur^2) = 50 and their parts, rounded a few times each.
    assert potentials(plan, cost, temperature)[2] < 50 * 32 * 2.0**-53
    expected = pots_plan(plan.sum(1), plan.sum(0), cost, temperature)
    # POT stops at marginals 1e-10 off in norm, so sqrt(n) 1e-10 in sum; the plan errs by that / (1 - sigma), sigma its
    # second singular value: at most 0.99 at this blur.
    np.testing.assert_allclose((plan * cost).sum(), (expected * cost).sum(), rtol=1e-6)
    assert np.abs(plan - expected).sum() < 1e-6


@pytest.mark.parametrize(
    ("n", "d", "blur"), [*[(n, 2, 0.05) for n in SIZES], *[(n, 16, 0.1) for n in SIZES], (64, 128, 0.05)]
)
def test_sinkhorn_differs_from_pot_by_its_marginals_alone(n, d, blur, randn):
    """Its marginals are within the stated tolerance, 1e-3 in sum.

    The regularised cost E = <cost, plan> + blur^2 KL(plan | uniform) is convex in the marginals with the potentials as
    its subgradient. So between two optimal plans, ours for (a', b') and POT's for the uniform (a, b),

        <f', a - a'> + <g', b - b'>  <=  E(a, b) - E(a', b')  <=  <f, a - a'> + <g, b - b'>.
    """
    z_r, transformed = randn(n, d, dtype=torch.float64), randn(n, d, dtype=torch.float64) + 0.5
    plan, cost, temperature = entropic(z_r, transformed, blur)
    uniform = np.full(n, 1 / n)
    rows, columns = uniform - plan.sum(1), uniform - plan.sum(0)
    # Looked at before the last scaling of the columns, which brings the rows nearer to theirs.
    assert np.abs(rows).sum() < 1e-3
    assert np.abs(columns).sum() < 1e-3

    best = pots_plan(uniform, uniform, cost, temperature)

    def objective(p):
        return (p * cost).sum() + temperature * (p * np.log(p * p.size)).sum()

    low, high = (f @ rows + g @ columns for f, g, _ in (potentials(p, cost, temperature) for p in (plan, best)))
    # POT's marginals are 1e-7 off at worst (where 20,000 steps did not do), and potentials at most the largest cost.
    slack = 1e-7 * math.sqrt(n) * cost.max()
    assert low - slack <= objective(best) - objective(plan) <= high + slack
    # The matched cost, E less its entropy, is not bounded so: measured 0.12 at most (n = 64, d = 2), 0.03 on average.
    assert (plan * cost).sum() == pytest.approx((best * cost).sum(), rel=0.2)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_sinkhorn_in_float32_is_that_in_float64_wherever_the_points_lie(offset, randn):
    """Halved costs of points within a unit of the centre err by 2 (d + 3) u; each of 30 steps adds half of it.

    Exponents, with two potentials, then err by 30 * 2 (d + 3) u / blur^2 = 0.007, and the weights by that relatively.
    """
    z_r, transformed = randn(64, 2) + offset, randn(64, 2) + offset + 0.5
    plan = sinkhorn(z_r, transformed).weight
    centre = z_r.double().mean(0)
    exact = sinkhorn(z_r.double() - centre, transformed.double() - centre).weight
    assert (plan - exact).abs().sum() < 0.01


@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
@pytest.mark.parametrize("name", ["cover", "assignment"])
def test_gradient_is_that_of_the_minimum(name, lead, randn):
    """Danskin: the derivative of the minimised cost is that of the matched cost with the pairs fixed."""
    z_r, transformed, direction = (randn(*lead, 8, 2, dtype=torch.float64) for _ in range(3))
    transformed.requires_grad_()
    (gradient,) = torch.autograd.grad(matched(name, z_r, transformed).sum(), transformed)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (matched(name, z_r, transformed + s * direction).sum() for s in (step, -step))
    # The cost is quadratic while the pairs stay: central differences err by rounding only, 2^-52 / step.
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind).item() / (2 * step), abs=1e-8)


@every
@pytest.mark.parametrize("n", [1, 2, 5])
def test_equal_points_cost_nothing(name, n):
    z = torch.full((n, 3), 0.1)
    pairs = PAIRINGS[name](z, z.clone())
    assert pairs.cost(z, z).item() == 0
    assert pairs.weight.sum().item() == pytest.approx(1, abs=1e-6)


@every
def test_one_pair_costs_its_distance(name):
    assert matched(name, torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, -2.0]])).item() == 25


@pytest.mark.parametrize("name", ["cover", "assignment"])
def test_a_permuted_and_repeated_cloud_costs_nothing(name, randn):
    z = randn(20, 3)
    order = torch.randperm(20)
    pairs = PAIRINGS[name](z, z[order])
    assert torch.equal(order[pairs.generated], pairs.real)
    twice = z.repeat(2, 1)
    assert matched(name, twice, twice[torch.randperm(40)]).item() == 0


def test_sinkhorn_of_repeated_points_shares_their_weight(randn):
    """Each of two equal points gets half of what one of twice the weight gets: the plan of the single points / 4."""
    x, y = randn(6, 2, dtype=torch.float64), randn(6, 2, dtype=torch.float64)
    twice = sinkhorn(x.repeat(2, 1), y.repeat(2, 1)).weight.view(2, 6, 2, 6)
    torch.testing.assert_close(4 * twice, sinkhorn(x, y).weight.view(1, 6, 1, 6).expand(2, 6, 2, 6))


@every
@pytest.mark.parametrize("scale", [2.0**60, 2.0**-60])  # 1.2e18 and 8.7e-19
def test_scale_does_not_matter(name, scale, randn):
    """Squares of 1e18 and 1e-18 are float32 numbers still, and powers of two round nothing: the same pairs.

    Squares of small differences may fall below 2^-126 and lose up to 2^-150 / 2^-120 = 2^-30 of a unit each. Where that
    turns a rounding of costs in units of the largest, an exponent of sinkhorn moves by 2^-24 / blur^2 = 2.4e-5.
    """
    z_r, transformed = randn(50, 2), randn(50, 2)
    plain, scaled = PAIRINGS[name](z_r, transformed), PAIRINGS[name](z_r * scale, transformed * scale)
    assert torch.equal(plain.real, scaled.real)
    assert torch.equal(plain.generated, scaled.generated)
    torch.testing.assert_close(scaled.weight, plain.weight, rtol=1e-4, atol=1e-30)
    cost = scaled.cost(z_r * scale, transformed * scale).item() / scale**2
    assert cost == pytest.approx(plain.cost(z_r, transformed).item(), rel=1e-4)


@every
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["real", "generated", "both"])
def test_latents_that_are_not_finite_show_in_the_cost(name, value, where, randn):
    z = randn(4, 2)
    broken = z.clone()
    broken[2, 0] = value
    pair = {"real": (broken, z), "generated": (z, broken), "both": (broken, broken.clone())}[where]
    assert matched(name, *pair).isnan()


@pytest.mark.parametrize(("n", "m"), [(3, 7), (7, 3), (1, 5), (5, 1)])
@pytest.mark.parametrize("name", ["cover", "assignment", "sinkhorn"])
def test_unequal_sizes(name, n, m, randn):
    z_r, transformed = randn(n, 2), randn(m, 2)
    pairs, cost = PAIRINGS[name](z_r, transformed), costs(z_r, transformed)
    if name == "cover":
        expected = cost.amin(1).mean()
    elif name == "assignment":
        expected = torch.from_numpy(cost.numpy()[linear_sum_assignment(cost.numpy())]).mean()
        assert len(set(pairs.real.tolist())) == len(set(pairs.generated.tolist())) == min(n, m)
    else:
        expected = (pairs.weight.view(n, m).double() * cost).sum()
        assert torch.equal(pairs.real * m + pairs.generated, torch.arange(n * m))
    # At most 21 pairs in the plane; the index of cover adds two sums of two terms.
    bound = sum_bound(21, 2) + 1.01 * 2 * 5 * U
    assert pairs.cost(z_r, transformed).item() == pytest.approx(expected.item(), rel=bound)


def test_literal_needs_equal_sizes():
    with pytest.raises(ValueError, match=r"literal: z_r and F\(z_g\) must have equal length, got 3 and 7"):
        PAIRINGS["literal"](torch.zeros(3, 2), torch.zeros(7, 2))


@every
@pytest.mark.parametrize("lead", [(1,), (5,), (2, 3)])
@pytest.mark.parametrize("broken", [False, True])
def test_every_problem_of_a_batch_is_solved_alone(name, lead, broken, randn):
    """Also from strided views, and beside a problem with a NaN or an infinity, whose own cost alone shows it.

    In float64, where sinkhorn's rounding (0.007 * 2^-29 of a weight, see above) is far below assert_close's 1e-7.
    """
    n, m, d = 9, 9 if name == "literal" else 12, 3
    z_r = randn(n, *lead, d, dtype=torch.float64).movedim(0, -2).requires_grad_()
    transformed = randn(*lead, d, m, dtype=torch.float64).mT.requires_grad_()
    if broken:
        with torch.no_grad():
            z_r.view(-1, n, d)[0, 4, 1] = torch.nan if len(lead) == 1 else torch.inf
    pairs = PAIRINGS[name](z_r, transformed)
    cost = pairs.cost(z_r, transformed)
    gradients = torch.autograd.grad(cost.nansum(), (z_r, transformed))
    assert cost.shape == lead
    for entry in np.ndindex(*lead):
        x, y = (z[entry].detach().clone().requires_grad_() for z in (z_r, transformed))
        alone = PAIRINGS[name](x, y)
        assert torch.equal(alone.real, pairs.real[entry])
        assert torch.equal(alone.generated, pairs.generated[entry])
        torch.testing.assert_close(alone.weight, pairs.weight[entry], equal_nan=True)
        torch.testing.assert_close(alone.cost(x, y), cost[entry], equal_nan=True)
        if not (broken and entry == (0,) * len(lead)):
            for one, all_ in zip(torch.autograd.grad(alone.cost(x, y), (x, y)), gradients, strict=True):
                torch.testing.assert_close(one, all_[entry])


@every
def test_the_search_for_pairs_records_no_graph(name, monkeypatch):
    seen = []

    def search(x, y):
        seen.append(x.requires_grad or y.requires_grad)
        return l2_argmin(x, y)

    monkeypatch.setattr(pairing, "l2_argmin", search)
    z_r, transformed = torch.randn(4, 2, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    pairs = PAIRINGS[name](z_r, transformed)
    assert not pairs.weight.requires_grad
    assert pairs.cost(z_r, transformed).requires_grad
    assert not any(seen)
    with torch.no_grad():
        PAIRINGS[name](z_r, transformed)
        assert not torch.is_grad_enabled()


@every
@pytest.mark.parametrize("scale", [2.0**83, 2.0**-83, 2.0**120, 2.0**-120])  # 1e25, 1e-25, 1e36, 8e-37
def test_pairs_are_found_where_squares_are_no_float32_numbers(name, scale, randn):
    """The same pairs and weights as at unit scale; powers of two round nothing."""
    z_r, transformed = randn(50, 2), randn(50, 2)
    plain, scaled = PAIRINGS[name](z_r, transformed), PAIRINGS[name](z_r * scale, transformed * scale)
    assert torch.equal(plain.real, scaled.real)
    assert torch.equal(plain.generated, scaled.generated)
    torch.testing.assert_close(scaled.weight, plain.weight, rtol=1e-4, atol=1e-30)


@every
def test_problems_of_unlike_scale_stand_side_by_side(name, randn):
    z_r, transformed = randn(3, 20, 2), randn(3, 20, 2)
    scale = torch.tensor([2.0**-100, 1.0, 2.0**100])[:, None, None]
    plain, scaled = PAIRINGS[name](z_r, transformed), PAIRINGS[name](z_r * scale, transformed * scale)
    assert torch.equal(plain.real, scaled.real)
    assert torch.equal(plain.generated, scaled.generated)
    torch.testing.assert_close(scaled.weight, plain.weight, rtol=1e-4, atol=1e-30)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_largest_numbers_of_a_dtype_are_paired(name, dtype):
    largest = torch.finfo(dtype).max / 4
    z_r = torch.tensor([[1.0], [-1.0]], dtype=dtype) * largest
    pairs = PAIRINGS[name](z_r, z_r.flip(0))
    crossed = pairs.weight[pairs.real != pairs.generated].sum()  # -1 meets -1 and 1 meets 1
    assert crossed.item() == pytest.approx(1, abs=1e-2)


CLOUDS = {
    "equal laws": lambda n, m, d, randn: (randn(n, d), randn(m, d)),
    "apart": lambda n, m, d, randn: (randn(n, d), randn(m, d) / 100 + 10),
    "far from the origin": lambda n, m, d, randn: (randn(n, d) + 1e4, randn(m, d) + 1e4),
    "clusters": lambda n, m, d, randn: tuple(
        5 * randn(8, d)[torch.arange(size) ** 2 % 8] + randn(size, d) / 20 for size in (n, m)
    ),
    "duplicates": lambda n, m, d, randn: tuple(randn(4, d)[torch.arange(size) ** 2 % 4] for size in (n, m)),
    "an outlier": lambda n, m, d, randn: (torch.cat([randn(n - 1, d), torch.full((1, d), 50.0)]), randn(m, d)),
    "tiny": lambda n, m, d, randn: (randn(n, d) * 1e-25, randn(m, d) * 1e-25),
    "huge": lambda n, m, d, randn: (randn(n, d) * 1e25, randn(m, d) * 1e25),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "m", "d"), [(64, 64, 2), (128, 128, 128), (64, 100, 2), (100, 64, 2), (7, 2, 3), (400, 400, 2)]
)
@pytest.mark.parametrize("cloud", CLOUDS)
def test_assignment_of_hard_clouds_costs_what_scipy_finds(cloud, n, m, d, dtype, randn):
    """Judged in float64, whatever the dtype of the latents, whose numbers are float64 numbers too."""
    z_r, transformed = (z.to(dtype) for z in CLOUDS[cloud](n, m, d, randn))
    pairs, cost = PAIRINGS["assignment"](z_r, transformed), costs(z_r, transformed).numpy()
    assert pairs.real.tolist() == sorted(set(pairs.real.tolist()))
    assert len(set(pairs.generated.tolist())) == len(pairs.real) == min(n, m)
    # Each of two optimal matchings loses what rounds a path's length, a sum of up to n costs, each off by (d + 3) u.
    bound = 2 * (n + m + d + 3) * 2.0**-53 * cost.max()
    best = cost[linear_sum_assignment(cost)].mean()
    assert cost[pairs.real, pairs.generated].mean() == pytest.approx(best, rel=0, abs=bound)


@pytest.mark.parametrize(("n", "m", "d"), [(64, 64, 2), (128, 128, 128), (64, 100, 2), (2, 7, 3)])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_sinkhorn_s_marginals_are_within_the_tolerance_that_it_states(cloud, n, m, d, randn):
    """1e-3 in sum."""
    pairs = sinkhorn(*CLOUDS[cloud](n, m, d, randn))
    plan = pairs.weight.view(n, m).double()
    rows, columns = ((plan.sum(dim) - 1 / size).abs().sum() for dim, size in ((1, n), (0, m)))
    # The error is that of float32 sums: n + m terms of 1 in all.
    assert pairs.marginal_error.item() == pytest.approx(max(rows, columns).item(), abs=(n + m) * U)
    assert pairs.marginal_error <= pairing.MARGINAL_TOLERANCE + (n + m) * U
    assert plan.sum().item() == pytest.approx(1, abs=(n + m) * U)


def test_sinkhorn_moves_weight_between_distant_clusters():
    """A third of the points here, half there: a sixth of the weight must cross the largest distance, at a price of 200
    in the exponent. Iterations at the last temperature alone would take thousands to come to that."""
    pairs = sinkhorn(torch.tensor([[0.0], [1.0], [1.0]]), torch.tensor([[0.0], [1.0]]))
    expected = torch.tensor([1 / 3, 0, 1 / 12, 1 / 4, 1 / 12, 1 / 4])
    assert pairs.marginal_error <= pairing.MARGINAL_TOLERANCE
    torch.testing.assert_close(pairs.weight, expected, atol=pairing.MARGINAL_TOLERANCE, rtol=0)


def test_sinkhorn_says_what_it_did_not_reach():
    """Stopped early, the plan has the error that is said; more iterations bring it down."""
    x, y = torch.tensor([[0.0], [1.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    errors = [sinkhorn(x, y, most=most, tolerance=1e-6).marginal_error.item() for most in (0, 1000)]
    assert errors[0] > 1e-2
    assert errors[1] < 1e-6 + 8 * U
    assert all(PAIRINGS[name](x, y).marginal_error is None for name in ("cover", "assignment"))


@pytest.mark.parametrize(
    ("pairing", "used"), [("cover", 2 / 4), ("literal", 2 / 4), ("assignment", 1.0), ("sinkhorn", None)]
)
def test_the_share_of_generated_samples_that_rho_takes(pairing, used):
    """Of generated 0, 10, 20, 30 the real points 1, 2, 9, 11 are nearest to the first two; one-to-one takes all."""
    z_r, generated = torch.tensor([[1.0], [2.0], [9.0], [11.0]]), torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    rho = PAIRINGS[pairing](z_r, generated).rho
    assert (None if rho is None else distinct_share(rho, 4).item()) == used


def test_each_problem_has_a_share_of_its_own_and_a_broken_one_none():
    index = torch.tensor([[0, 0, 0], [0, 1, 2], [1, -1, 2]])
    share = distinct_share(index, 3)
    torch.testing.assert_close(share, torch.tensor([1 / 3, 1, torch.nan]), equal_nan=True)
    for counted in (counted_share(index, 3), torch.stack([counted_share(row, 3) for row in index])):
        torch.testing.assert_close(counted, share, rtol=0, atol=0, equal_nan=True)
