"""The judge of l2_topk lets right neighbours through and stops wrong ones."""

from __future__ import annotations

import pytest

from benchmarks import l2_topk
from benchmarks.contestants import Case, Contestant

CASE = Case("l2_topk", 40, 30, 3)
EXACT = Contestant("exact", l2_topk.ours, exact=True)
PRODUCT = Contestant("product form", l2_topk.cdist)


@pytest.mark.parametrize("contestant", l2_topk.SUITE.contestants, ids=lambda contestant: contestant.name)
def test_every_contestant_finds_the_nearest_points(contestant):
    inputs = l2_topk.draw(CASE, 0)
    result = contestant.load(CASE)(*contestant.convert(inputs))
    verdict = l2_topk.judge(contestant, CASE, inputs, result, l2_topk.expect(inputs, CASE))
    assert verdict.right
    assert verdict.error < 1e-5


@pytest.mark.parametrize("contestant", [EXACT, PRODUCT], ids=lambda contestant: contestant.name)
@pytest.mark.parametrize("wrong", ["one farther", "one twice", "too large", "negative", "too few rows", "too few"])
def test_wrong_neighbours_are_wrong(contestant, wrong):
    inputs = l2_topk.draw(CASE, 0)
    x, y = (tensor.double() for tensor in inputs)
    order = (x[:, None] - y).square().sum(-1).argsort(1)
    index = order[:, : l2_topk.NEIGHBOURS].clone()
    assert l2_topk.judge(contestant, CASE, inputs, index, l2_topk.expect(inputs, CASE)).right
    if wrong == "one farther":
        index[17, 5] = order[17, l2_topk.NEIGHBOURS]
    elif wrong == "one twice":
        index[17, 5] = index[17, 4]
    result = {"too large": index + 30, "negative": index - 30, "too few rows": index[:-1], "too few": index[:, 1:]}
    judged = result.get(wrong, index)
    assert not l2_topk.judge(contestant, CASE, inputs, judged, l2_topk.expect(inputs, CASE)).right
