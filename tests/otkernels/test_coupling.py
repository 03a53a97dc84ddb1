"""ExactOT and SemidiscreteOT: exact plans, their draws, and torchcfm's OTPlanSampler beside them."""

from __future__ import annotations

import inspect
import math

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torchcfm import ExactOptimalTransportConditionalFlowMatcher
from torchcfm.optimal_transport import OTPlanSampler

from otkernels import semidiscrete
from otkernels.coupling import ExactOT, SemidiscreteOT
from tests.otkernels.nearest import costs


def rows(*tensors: Tensor) -> list[tuple[float, ...]]:
    """The rows of tensors side by side, in sorted order."""
    return sorted(map(tuple, torch.cat([t.flatten(1) for t in tensors], 1).tolist()))


def test_pairs_on_a_line_are_sorted_orders(randn):
    x0, x1 = randn(50, 1), randn(50, 1)
    source, target, weight = ExactOT().pairs(x0, x1)
    assert torch.equal(source, torch.arange(50))
    assert torch.equal(x0.argsort(0).argsort(0), x1.argsort(0).argsort(0)[target])  # equal ranks
    torch.testing.assert_close(weight, torch.full((50,), 0.02, dtype=torch.float64))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (16, 16), (6, 9), (9, 6), (1, 5), (5, 1), (8, 16), (7, 5)])
@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_the_plan_is_the_one_of_the_original(n, m, shape, randn):
    """The optimal plan of points in general position is unique. POT's masses are sums of at most N + M rounded ones."""
    x0, x1 = randn(n, *shape), randn(m, *shape)
    ours, theirs = ExactOT().get_map(x0, x1), OTPlanSampler(method="exact").get_map(x0, x1)
    np.testing.assert_allclose(ours, theirs, atol=(n + m) * 2.0**-52)


def test_labels_keep_to_themselves(randn):
    """Rows of a label are paired by the plan of these rows alone; a label's mass is its share of x0."""
    x0, x1 = randn(12, 2), randn(16, 2)
    y0 = torch.tensor([3, 0, 3, 5, 0, 3, 3, 0, 0, 5, 3, 3])
    y1 = torch.tensor([5, 5, 5, 0, 3, 0, 0, 0, 3, 3, 3, 3, 0, 9, 3, 0])
    source, target, weight = ExactOT(by_label=True).pairs(x0, x1, y0, y1)
    assert torch.equal(y0[source], y1[target])
    table = torch.zeros(12, 16, dtype=torch.float64)
    table[source, target] = weight
    for label in (0, 3, 5):
        own = table[y0 == label][:, y1 == label]
        best = costs(x0[y0 == label], x1[y1 == label])
        n, m = best.shape
        least = ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), best.numpy())
        assert (own * best).sum().item() == pytest.approx(least * n / 12, rel=1e-12)
        torch.testing.assert_close(own.sum(1), torch.full((n,), 1 / 12, dtype=torch.float64))
        torch.testing.assert_close(own.sum(0), torch.full((m,), n / m / 12, dtype=torch.float64))
    drawn = ExactOT(by_label=True).sample_plan_with_labels(x0, x1, y0, y1)
    assert torch.equal(drawn[2], drawn[3])


def test_without_replacement_the_pairs_come_in_another_order(randn):
    x0, x1 = randn(100, 3), randn(100, 3)
    pairs = ExactOT().pairs(x0, x1)
    drawn = ExactOT().sample_plan(x0, x1, replace=False)
    assert rows(*drawn) == rows(x0[pairs.source], x1[pairs.target])
    assert not torch.equal(drawn[0], x0)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 2)])
def test_pairs_are_drawn_by_their_mass(n, m, randn):
    """4,000 draws of a pair of mass p: within 5 standard deviations of sqrt(4,000 p (1 - p)) of the expected number."""
    x0, x1 = randn(n, 2), randn(m, 2)
    sampler, plan = ExactOT(), ExactOT().get_map(x0, x1)
    counts = np.zeros_like(plan)
    for _ in range(4_000 // n):
        a, b = sampler.sample_plan(x0, x1)
        i, j = ((points[:, None] == whole).all(-1).int().argmax(1) for points, whole in ((a, x0), (b, x1)))
        np.add.at(counts, (i, j), 1)
    total = counts.sum()
    assert (np.abs(counts - total * plan) <= 5 * np.sqrt(total * plan * (1 - plan)) + 1e-6).all()
    i, j = sampler.sample_map(plan, 4_000)
    again = np.zeros_like(plan)
    np.add.at(again, (i, j), 1)
    assert (np.abs(again - 4_000 * plan) <= 5 * np.sqrt(4_000 * plan * (1 - plan)) + 1e-6).all()


def test_labels_follow_their_rows(randn):
    x0, x1 = randn(20, 2), randn(20, 2)
    y0, y1 = x0[:, 0] * 10, x1 * 10
    for replace in (False, True):
        a, b, c, d = ExactOT().sample_plan_with_labels(x0, x1, y0, y1, replace=replace)
        assert torch.equal(c, a[:, 0] * 10)
        assert torch.equal(d, b * 10)
        assert ExactOT().sample_plan_with_labels(x0, x1, y1=y1, replace=replace)[2] is None
        assert ExactOT().sample_plan_with_labels(x0, x1, y0, replace=replace)[3] is None


def test_trajectories_are_those_of_the_original(randn):
    x = randn(30, 4, 2)
    assert np.array_equal(ExactOT().sample_trajectory(x).numpy(), OTPlanSampler("exact").sample_trajectory(x))


def test_a_generator_makes_draws_repeatable(randn):
    x0, x1 = randn(30, 2), randn(30, 2)
    first, second = (ExactOT(generator=torch.Generator().manual_seed(3)).sample_plan(x0, x1) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("ours", [ExactOT, SemidiscreteOT])
def test_calls_of_the_original_are_understood(ours):
    """Every method of the original that we have takes its arguments in its order, with its defaults or more of them."""
    names = ["sample_plan", "sample_plan_with_labels"]
    if ours is ExactOT:
        names += ["__init__", "get_map", "sample_map", "sample_trajectory"]
    for name in names:
        wanted = list(inspect.signature(getattr(OTPlanSampler, name)).parameters.values())
        found = list(inspect.signature(getattr(ours, name)).parameters.values())[: len(wanted)]
        if name != "sample_trajectory":  # X there
            assert [p.name for p in found] == [p.name for p in wanted]
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.default == theirs.default or theirs.default is inspect.Parameter.empty


@pytest.mark.parametrize("kind", ["exact", "semidiscrete"])
def test_torchcfm_s_flow_matcher_takes_them(kind, randn):
    data, labels = randn(64, 2), torch.arange(64)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    matcher.ot_sampler = ExactOT() if kind == "exact" else SemidiscreteOT(data, labels)
    t, x, u = matcher.sample_location_and_conditional_flow(randn(64, 2), data)
    ends = x + (1 - t[:, None]) * u  # x = (1 - t) x0 + t x1 and u = x1 - x0
    assert (costs(ends, data).amin(1) < 1e-9).all()
    *_, y1 = matcher.guided_sample_location_and_conditional_flow(randn(64, 2), data, y1=labels)
    assert y1.shape == (64,)


def test_gradients_reach_the_rows(randn):
    x0, x1 = randn(5, 2).requires_grad_(), randn(5, 2).requires_grad_()
    a, b = ExactOT().sample_plan(x0, x1, replace=False)
    (a.sum() + 2 * b.sum()).backward()
    assert torch.equal(x0.grad, torch.ones(5, 2))
    assert torch.equal(x1.grad, torch.full((5, 2), 2.0))


ZEROS = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"method": "sinkhorn"}, (ZEROS, ZEROS), r"ExactOT: method must be 'exact', got 'sinkhorn'"),
        ({}, (ZEROS, torch.zeros(4, 3)), r"ExactOT: x1 must have rows of x0's size, got \[4, 3\]"),
        ({}, (torch.zeros(4), ZEROS), r"ExactOT: x0 must be \[N, ...\] with N >= 1, got \[4\]"),
        ({}, (ZEROS, torch.zeros(0, 2)), r"ExactOT: x1 must be \[N, ...\] with N >= 1, got \[0, 2\]"),
        ({}, (ZEROS, ZEROS.double()), r"ExactOT: x1 must have x0's dtype torch.float32, got torch.float64 \[4, 2\]"),
        ({}, (ZEROS, ZEROS / 0), r"ExactOT: x0 and x1 must be finite, got points with NaN or infinity"),
        ({"distributed": True}, (ZEROS, ZEROS), r"ExactOT: distributed must be False while torch.distributed is not"),
        ({"by_label": True}, (ZEROS, ZEROS, torch.zeros(4)), r"ExactOT: y1 must be \[4\] for by_label=True, got None"),
        ({"by_label": True}, (ZEROS, ZEROS), r"ExactOT: y0 must be \[4\] for by_label=True, got None"),
        (
            {"by_label": True},
            (ZEROS, ZEROS, torch.arange(4), torch.zeros(4)),
            r"ExactOT: y1 must hold every label of y0, got no 1",
        ),
    ],
)
def test_errors(options, arguments, message):
    with pytest.raises(ValueError, match=message):
        ExactOT(**options).pairs(*arguments)


def test_a_semidiscrete_plan_gives_each_target_its_share(randn):
    """Of fresh noise as well, but for its sampling: N = 40,000 draws of a share of p err by sqrt(p / N) each time."""
    target, labels = randn(32, 2, 2) / 2 + 1, torch.arange(32)
    sampler = SemidiscreteOT(target, labels)
    assert torch.equal(sampler.potential, torch.zeros(32))
    found = sampler.fit(randn(40_000, 2, 2), tolerance=0.02)
    assert found.converged
    assert torch.equal(found.potential, sampler.potential)
    fresh = randn(40_000, 2, 2)
    x0, x1, y0, y1 = sampler.sample_plan_with_labels(fresh, None, labels)
    assert x0 is fresh
    assert y0 is labels
    assert torch.equal(x1, target[y1])
    share = y1.bincount(minlength=32) / 40_000
    # the fit's error, and five standard deviations of two samples
    assert ((share - 1 / 32).abs() < 0.02 / 32 + 1 / 40_000 + 5 * math.sqrt(2 / 32 / 40_000)).all()
    assert torch.equal(sampler.sample_plan(fresh, fresh)[1], x1)
    again = semidiscrete(fresh.flatten(1), target.flatten(1), start=sampler.potential, iterations=0)
    assert again.marginal_error.item() == pytest.approx((share - 1 / 32).abs().max().item(), abs=1e-6)


def test_a_fit_goes_on_where_it_stood(randn):
    noise, target = randn(2_000, 2), randn(20, 2)
    sampler = SemidiscreteOT(target, weights=torch.arange(1.0, 21))
    assert sampler.fit(noise, tolerance=0.1).iterations > 0
    assert sampler.fit(noise, tolerance=0.1, resume=True).iterations == 0
    saved = SemidiscreteOT(target, potential=sampler.potential)
    assert torch.equal(saved.index(noise), sampler.index(noise))
    shares = sampler.index(noise).bincount(minlength=20) / 2_000
    assert ((shares - torch.arange(1.0, 21) / 210).abs() <= 0.1 / 20 + 1 / 2_000 + 1e-6).all()


def test_a_fit_to_points_that_are_not_finite_changes_nothing(randn):
    sampler = SemidiscreteOT(randn(20, 2))
    noise = randn(2_000, 2)
    sampler.fit(noise, tolerance=0.1)
    before = sampler.potential.clone()
    noise[7] = torch.inf
    with pytest.raises(ValueError, match="SemidiscreteOT: noise and target must be finite, got points with NaN"):
        sampler.fit(noise)
    assert torch.equal(sampler.potential, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SemidiscreteOT(torch.zeros(3)), r"target must be \[M, ...\] with M >= 1, got \[3\]"),
        (lambda: SemidiscreteOT(ZEROS, torch.zeros(3)), r"labels must be \[4, ...\], got \[3\]"),
        (lambda: SemidiscreteOT(ZEROS, potential=torch.zeros(3)), r"potential must be \[M\] with M=4, got \[3\]"),
        (lambda: SemidiscreteOT(ZEROS).sample_plan(ZEROS / 0), r"x0 must be finite, got points with NaN or infinity"),
    ],
)
def test_semidiscrete_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
