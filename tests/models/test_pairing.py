import itertools

import numpy as np
import ot
import pytest
import torch

from models import pairing
from models.pairing import PAIRINGS, sinkhorn
from otkernels import l2_argmin

Z_R = torch.tensor([[0.0], [5.0], [6.0]])
F = torch.tensor([[5.0], [0.5], [9.0]])


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
    pairs = PAIRINGS[name](Z_R, F)
    assert pairs.cost(Z_R, F).item() == pytest.approx(expected, abs=tolerance)
    assert pairs.weight.sum().item() == pytest.approx(1, abs=1e-6)


def test_assignment_is_the_best_permutation():
    torch.manual_seed(1)
    z_r, transformed = torch.randn(6, 3), torch.randn(6, 3)
    pairs = PAIRINGS["assignment"](z_r, transformed)
    assert sorted(pairs.real.tolist()) == sorted(pairs.generated.tolist()) == list(range(6))
    best = min((z_r - transformed[list(order)]).square().sum(1).mean() for order in itertools.permutations(range(6)))
    torch.testing.assert_close(pairs.cost(z_r, transformed), best)


def test_assignment_costs_what_pot_finds():
    torch.manual_seed(2)
    z_r, transformed = torch.randn(40, 5), torch.randn(40, 5) + 1
    exact = ot.emd2([], [], ot.dist(z_r.double().numpy(), transformed.double().numpy()))
    # float32 differences and a mean of 40 terms: relative 2^-24 * (d + N) at most.
    assert PAIRINGS["assignment"](z_r, transformed).cost(z_r, transformed).item() == pytest.approx(exact, rel=5e-6)


def test_sinkhorn_plan_is_pots_plan():
    torch.manual_seed(3)
    z_r, transformed = torch.randn(12, 2, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64)
    cost = torch.cdist(z_r, transformed).square() / 2
    blur = 0.3 * (2 * cost.max()).sqrt().item()
    plan = sinkhorn(z_r, transformed, relative_blur=0.3).weight.reshape(12, 12).numpy()
    expected = ot.sinkhorn(np.full(12, 1 / 12), np.full(12, 1 / 12), cost.numpy(), reg=blur**2, stopThr=1e-12)
    # geomloss stops when the blur is reached, not at a tolerance: a few per cent of the mean weight 1/144.
    np.testing.assert_allclose(plan, expected, atol=0.05 / 144)


@pytest.mark.parametrize("name", ["cover", "assignment"])
def test_gradient_is_that_of_the_minimum(name):
    """Danskin: the derivative of the minimised cost is that of the matched cost with the pairs fixed."""
    torch.manual_seed(4)
    z_r = torch.randn(8, 2, dtype=torch.float64)
    transformed = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(8, 2, dtype=torch.float64)

    def minimum(y):
        return PAIRINGS[name](z_r, y).cost(z_r, y)

    (gradient,) = torch.autograd.grad(minimum(transformed), transformed)
    step = 1e-6
    with torch.no_grad():
        slope = (minimum(transformed + step * direction) - minimum(transformed - step * direction)) / (2 * step)
    # The cost is quadratic while the pairs stay: central differences err by rounding only, 2^-52 / step.
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), abs=1e-8)


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("n", [1, 5])
def test_equal_points_cost_nothing(name, n):
    z = torch.ones(n, 3)
    pairs = PAIRINGS[name](z, z.clone())
    assert pairs.cost(z, z).item() == 0
    assert pairs.weight.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", PAIRINGS)
def test_a_nan_latent_shows_in_the_cost(name):
    z = torch.randn(4, 2)
    broken = z.clone()
    broken[2, 0] = torch.nan
    assert PAIRINGS[name](z, broken).cost(z, broken).isnan()
    assert PAIRINGS[name](broken, z).cost(broken, z).isnan()


@pytest.mark.parametrize("name", ["cover", "assignment", "sinkhorn"])
def test_more_generated_than_real(name):
    torch.manual_seed(5)
    z_r, transformed = torch.randn(3, 2), torch.randn(7, 2)
    pairs = PAIRINGS[name](z_r, transformed)
    assert set(pairs.real.tolist()) == {0, 1, 2}
    assert pairs.generated.max() < 7


@pytest.mark.parametrize("name", ["cover", "literal"])
def test_the_search_for_pairs_records_no_graph(name, monkeypatch):
    seen = []

    def search(x, y):
        seen.append(x.requires_grad or y.requires_grad)
        return l2_argmin(x, y)

    monkeypatch.setattr(pairing, "l2_argmin", search)
    z_r, transformed = torch.randn(4, 2, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    assert PAIRINGS[name](z_r, transformed).cost(z_r, transformed).requires_grad
    assert seen == [False]


def test_literal_needs_equal_sizes():
    with pytest.raises(ValueError, match="literal: z_r and F\\(z_g\\) must have equal length, got 3 and 7"):
        PAIRINGS["literal"](torch.zeros(3, 2), torch.zeros(7, 2))
