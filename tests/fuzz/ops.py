"""The ops that are tried, each with what draws its problems and what judges them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.fuzz import cells, forest, matching, pairs, transport
from tests.fuzz.draw import Choices


class Op(NamedTuple):
    draw: Callable[[Choices], Any]
    judge: Callable[[Any], float]
    """The worst error in units of its tolerance; AssertionError for what no rounding excuses."""


OPS = {
    "l2_argmin": Op(pairs.draw_l2_argmin, pairs.judge),
    "l2_topk": Op(pairs.draw_l2_topk, pairs.judge),
    "soft_forest": Op(forest.draw, forest.judge),
    "fit_transport": Op(transport.draw, transport.judge),
    "transport_cost": Op(transport.draw, transport.judge_cost),
    "assign": Op(matching.draw_assign, matching.judge_assign),
    "balanced": Op(matching.draw_balanced, matching.judge_balanced),
    "semidiscrete": Op(cells.draw, cells.judge),
}


def try_one(op: Op, choices: Choices) -> float:
    """Draws one problem and judges it; AssertionError where a rule is broken or an error exceeds its tolerance."""
    error = op.judge(op.draw(choices))
    assert error <= 1, f"the error is {error:.3g} times its tolerance"
    return error
