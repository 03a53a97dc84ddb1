"""Statistics, turns, and the refusal to time what is wrong; with contestants that only pretend to run."""

from __future__ import annotations

import pytest

from benchmarks import measure
from benchmarks.contestants import OURS, Case
from benchmarks.measure import calls_per_turn, rounds_within, summary

CASE = Case("l2_argmin", 64, 64, 2)


class Actor:
    """Answers like a worker, with times from a list."""

    def __init__(self, name: str, seconds: list[float], **prepared: object) -> None:
        self.contestant, self.seconds, self.turns = name, seconds, 0
        self.prepared = {"right": True, "error": 0.0, "seconds": seconds[0], **prepared}

    def ask(self, do: str, **fields: object) -> dict[str, object]:
        if do == "prepare":
            return {"failed": self.prepared["failed"]} if "failed" in self.prepared else self.prepared
        self.turns += 1
        return {"seconds": self.seconds[(self.turns - 1) % len(self.seconds)]}


@pytest.fixture(autouse=True)
def no_gap(monkeypatch):
    monkeypatch.setattr(measure, "GAP", 0.0)


def test_median_and_quartiles():
    row = summary([5.0, 1.0, 4.0, 2.0, 3.0], None)
    assert (row["first_quartile_s"], row["median_s"], row["third_quartile_s"]) == (2.0, 3.0, 4.0)
    assert row["rounds"] == 5
    assert row["ratio_to_ours"] is None


def test_the_ratio_pairs_the_rounds():
    # a machine that slows down in each round: paired ratios are all 2, others are not
    row = summary([2.0, 4.0, 40.0], [1.0, 2.0, 20.0])
    assert row["ratio_to_ours"] == 2.0


def test_a_wrong_result_is_reported_and_never_timed():
    wrong = Actor("hasty", [1.0], right=False, error=0.25)
    rows = measure.measure(CASE, [Actor(OURS, [2.0]), wrong], [], budget=1.0, fewest=5)
    assert rows[1] == {"contestant": "hasty", "status": "wrong", "error": 0.25}
    assert wrong.turns == 0
    assert rows[0]["status"] == "ok"


def test_a_contestant_that_fails_says_why():
    absent = Actor("absent", [1.0], failed="not installed (No module named 'faiss')")
    rows = measure.measure(CASE, [Actor(OURS, [2.0]), absent], [], budget=1.0, fewest=5)
    assert rows[1] == {"contestant": "absent", "status": "failed", "reason": "not installed (No module named 'faiss')"}


def test_contestants_take_the_same_number_of_turns():
    actors = [Actor(OURS, [1.0]), Actor("a", [3.0, 5.0]), Actor("b", [0.5])]
    rows = measure.measure(CASE, actors, [], budget=27.0, fewest=4)
    assert [actor.turns for actor in actors] == [6, 6, 6]  # 1 + 3 + 0.5 seconds a round
    assert [row["ratio_to_ours"] for row in rows] == [1.0, 4.0, 0.5]


def test_without_ours_there_are_times_but_no_ratios():
    rows = measure.measure(CASE, [Actor(OURS, [1.0], right=False), Actor("a", [3.0])], [], budget=1.0, fewest=4)
    assert rows[1]["median_s"] == 3.0
    assert rows[1]["ratio_to_ours"] is None


def test_turns_and_rounds_stay_within_their_limits():
    assert calls_per_turn(measure.TURN / 20) == 20
    assert calls_per_turn(10 * measure.TURN) == 1
    assert calls_per_turn(0.0) == measure.MOST_CALLS
    assert rounds_within(2.0, 0.2, 5) == 10
    assert rounds_within(2.0, 100.0, 5) == 5
    assert rounds_within(2.0, 1e-3, 5) == measure.MOST_ROUNDS
