"""Times a case: the contestants take turns, in another order each round; medians, quartiles and ratios to ours."""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .contestants import OURS, Case

TURN = 0.01  # seconds that a turn of a short call lasts
GAP = 0.006  # seconds between turns: the last contestant's idle threads stop spinning (libgomp: a few milliseconds)
MOST_CALLS, MOST_ROUNDS = 1000, 30


class Askable(Protocol):
    """A contestant that answers requests: `pool.Worker`."""

    contestant: str

    def ask(self, do: str, **fields: Any) -> dict[str, Any]: ...


Baseline = Callable[[str, Sequence[str]], str | None]


def against_ours(name: str, timed: Sequence[str]) -> str | None:
    return OURS if OURS in timed else None


def measure(
    case: Case,
    workers: Sequence[Askable],
    expected: list[str],
    budget: float,
    fewest: int,
    gap: float = GAP,
    baseline: Baseline = against_ours,
) -> list[dict]:
    """One row per worker. Only contestants whose results are right are timed; the others' rows say what was wrong.

    budget is the seconds of timed calls of all contestants together, spent on at least `fewest` rounds; where that
    makes no round at all, the fastest judged call is the measurement. baseline names, of the timed contestants, the one
    that another's time is divided by.
    """
    rows, timed = {}, []
    for worker in workers:
        answer = worker.ask("prepare", case=dataclasses.asdict(case), expected=expected)
        rows[worker.contestant] = {"contestant": worker.contestant, **describe(answer)}
        if rows[worker.contestant]["status"] == "ok":
            timed.append((worker, calls_per_turn(answer["seconds"]), answer["seconds"]))
    rounds = rounds_within(budget, sum(calls * seconds for _, calls, seconds in timed), fewest)
    samples: dict[str, list[float]] = {worker.contestant: [] for worker, _, _ in timed}
    order = random.Random(0)
    for _ in range(rounds):
        for worker, calls, _ in order.sample(timed, len(timed)):
            time.sleep(gap)
            answer = worker.ask("turn", calls=calls)
            if "failed" in answer:
                raise RuntimeError(f"{worker.contestant} failed while it was timed: {answer['failed']}")
            samples[worker.contestant].append(answer["seconds"])
    if rounds == 0:
        samples = {worker.contestant: [seconds] for worker, _, seconds in timed}
    for worker, calls, _ in timed:
        name = worker.contestant
        ours = samples.get(baseline(name, list(samples)) or "")
        rows[name] |= summary(samples[name], ours) | {"calls_per_turn": calls}
    return list(rows.values())


def describe(answer: dict[str, Any]) -> dict[str, Any]:
    """status ok, wrong (with its error) or failed (with the reason)."""
    if "failed" in answer:
        return {"status": "failed", "reason": answer["failed"]}
    memory = {"extra_bytes": answer["extra_bytes"]} if "extra_bytes" in answer else {}
    return {"status": "ok" if answer["right"] else "wrong", "error": answer["error"], **memory}


def calls_per_turn(seconds: float) -> int:
    return min(MOST_CALLS, max(1, round(TURN / max(seconds, 1e-9))))


def rounds_within(budget: float, seconds_per_round: float, fewest: int) -> int:
    return min(MOST_ROUNDS, max(fewest, int(budget / max(seconds_per_round, 1e-9))))


def summary(samples: Sequence[float], ours: Sequence[float] | None) -> dict[str, Any]:
    """Median and quartiles in seconds, and the median over rounds of this time / our time (None without ours)."""
    first, median, third = statistics.quantiles(samples, n=4, method="inclusive") if samples[1:] else 3 * samples
    ratio = None
    if ours is not None:
        ratio = statistics.median(mine / other for mine, other in zip(samples, ours, strict=True))
    return {
        "median_s": median,
        "first_quartile_s": first,
        "third_quartile_s": third,
        "ratio_to_ours": ratio,
        "rounds": len(samples),
    }
