"""The judges let right results through and stop wrong ones, each contestant by what its arithmetic allows."""

from __future__ import annotations

import pytest
import torch

from benchmarks import fit_transport, l2_argmin, soft_forest
from benchmarks.contestants import OURS, SETS, Case, Contestant
from benchmarks.suites import SUITES

NEAREST = Case("l2_argmin", 40, 30, 3)
FOREST = Case("soft_forest", 20, 0, soft_forest.WIDTH, soft_forest.BOTH)
EXACT = Contestant("exact", l2_argmin.ours, exact=True)
PRODUCT = Contestant("product form", l2_argmin.cdist)


def nearest(inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    x, y = (tensor.double() for tensor in inputs)
    return (x[:, None] - y).square().sum(-1).argmin(1)


@pytest.mark.parametrize("contestant", l2_argmin.SUITE.contestants, ids=lambda contestant: contestant.name)
def test_every_contestant_of_l2_argmin_finds_the_nearest_points(contestant):
    inputs = l2_argmin.draw(NEAREST, 0)
    result = contestant.load(NEAREST)(*contestant.convert(inputs))
    verdict = l2_argmin.judge(contestant, NEAREST, inputs, result, l2_argmin.expect(inputs, NEAREST))
    assert verdict.right
    assert verdict.error < 1e-5


@pytest.mark.parametrize("contestant", [EXACT, PRODUCT], ids=lambda contestant: contestant.name)
@pytest.mark.parametrize("wrong", ["farther", "shifted", "too large", "negative", "too few"])
def test_a_wrong_index_is_wrong(contestant, wrong):
    inputs = l2_argmin.draw(NEAREST, 0)
    index = nearest(inputs)
    result = {
        "farther": torch.where(torch.arange(40) == 17, (index + 1) % 30, index),  # one row of forty
        "shifted": (index + 1) % 30,
        "too large": index + 30,
        "negative": index - 30,  # which would index the same points
        "too few": index[:-1],
    }[wrong]
    assert not l2_argmin.judge(contestant, NEAREST, inputs, result, l2_argmin.expect(inputs, NEAREST)).right


def test_a_near_tie_is_allowed_to_the_product_form_only():
    # costs 1 and (1 + 2^-13)^2 at norms of 2 * 1000^2: float32's product form cannot tell them apart, differences can
    x = torch.tensor([[1000.0, 0.0]])
    y = torch.tensor([[1001.0, 0.0], [1001.0 + 2**-13, 0.0]])
    case = Case("l2_argmin", 1, 2, 2)
    expected = l2_argmin.expect((x, y), case)
    assert l2_argmin.judge(PRODUCT, case, (x, y), torch.tensor([1]), expected).right
    verdict = l2_argmin.judge(EXACT, case, (x, y), torch.tensor([1]), expected)
    assert not verdict.right
    assert verdict.error == pytest.approx(2**-12, rel=1e-3)


@pytest.mark.parametrize("spoiled", range(4))
def test_a_wrong_output_or_gradient_of_the_forest_is_wrong(spoiled):
    inputs = soft_forest.draw(FOREST, 0)
    expected = soft_forest.expect(inputs, FOREST)
    contestant = soft_forest.SUITE.contestants[0]
    result = list(contestant.load(FOREST)(*inputs))
    assert soft_forest.judge(contestant, FOREST, inputs, result, expected).right
    result[spoiled] = result[spoiled] * 1.001
    verdict = soft_forest.judge(contestant, FOREST, inputs, result, expected)
    assert not verdict.right
    assert verdict.error == pytest.approx(1e-3, rel=0.01)


def test_a_nan_of_the_forest_is_wrong():
    inputs = soft_forest.draw(FOREST, 0)
    expected = soft_forest.expect(inputs, FOREST)
    result = [tensor.clone() for tensor in expected]
    result[2][0, 0] = torch.nan
    assert not soft_forest.judge(soft_forest.SUITE.contestants[0], FOREST, inputs, result, expected).right


@pytest.mark.parametrize("contestant", fit_transport.SUITE.contestants, ids=lambda contestant: contestant.name)
@pytest.mark.parametrize("case", fit_transport.SUITE.cases, ids=lambda case: case.label())
def test_every_contestant_fits_the_transport_map_and_leaves_the_drawn_inputs_alone(contestant, case):
    for number in range(SETS):
        inputs = fit_transport.draw(case, number)
        expected = fit_transport.expect(inputs, case)
        result = contestant.load(case)(*contestant.convert(inputs))
        assert fit_transport.judge(contestant, case, inputs, result, expected).right
        again = fit_transport.draw(case, number)
        assert all(torch.equal(a, b) for a, b in zip(inputs, again, strict=True))


def test_a_second_call_goes_on_from_the_state_of_the_first():
    case, contestant = fit_transport.SUITE.quick[0], fit_transport.SUITE.contestants[0]
    inputs = contestant.convert(fit_transport.draw(case, 0))
    run = contestant.load(case)
    assert float(run(*inputs)[-1]) == fit_transport.STEP + fit_transport.ITERS
    assert float(run(*inputs)[-1]) == fit_transport.STEP + 2 * fit_transport.ITERS


SPOILS = {
    "index": (0, lambda index: torch.where(torch.arange(len(index)) == 5, (index + 1) % len(index), index)),
    "costs": (1, lambda costs: costs * 1.001),
    "one leaf": (2, lambda leaves: leaves + 1e-4 * (torch.arange(leaves.numel()) == 77).view_as(leaves)),
    "exp_avg": (3, lambda moment: moment * 1.001),
    "exp_avg_sq": (4, lambda moment: moment * 1.001),
    "step": (5, lambda step: step + 1),
    "NaN": (2, lambda leaves: leaves * torch.nan),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_wrong_transport_map_or_adam_is_wrong(spoil):
    case, contestant = fit_transport.SUITE.quick[0], fit_transport.SUITE.contestants[0]
    inputs = fit_transport.draw(case, 0)
    result = list(contestant.load(case)(*contestant.convert(inputs)))
    at, change = SPOILS[spoil]
    result[at] = change(result[at])
    assert not fit_transport.judge(contestant, case, inputs, result, fit_transport.expect(inputs, case)).right


def test_rounded_products_may_lose_what_their_operands_lose_and_no_more():
    # the second point costs 2^-6 of the norms more: within bf16's 4 * 2^-8 (1 + 1), outside tf32's 4 * 2^-10 (1 + 1)
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 2.0**-3]])
    case = Case("l2_argmin", 1, 2, 2)
    expected = l2_argmin.expect((x, y), case)
    allowed = [
        l2_argmin.judge(
            Contestant("", l2_argmin.ours, arithmetic=name), case, (x, y), torch.tensor([1]), expected
        ).right
        for name in ("float32", "tf32", "bf16")
    ]
    assert allowed == [False, False, True]


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.op)
def test_ours_comes_first_and_inputs_are_the_same_in_every_process(suite):
    assert suite.contestants[0].name == OURS
    case = suite.quick[0]
    first, again, other = suite.draw(case, 0), suite.draw(case, 0), suite.draw(case, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.dim() > 0)
