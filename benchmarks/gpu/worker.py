"""The process that measures. Reads one JSON request per line, answers each with one line, and reports its progress.

    {"do": "describe"}                                        -> {"machine": facts, roofline among them}
    {"do": "measure", "op": ..., "case": ..., "budget": s,
     "allow": s, "skip": {contestant: reason}}                -> {"rows": [...]}
Before each step of a contestant it writes {"begin": its name, "limit": seconds that the step may take}. When a
contestant has left the device unusable, or fails although it was right before, it writes {"lost": reason} and ends: the
parent starts another process and leaves that contestant out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..contestants import OURS, Case, Contestant, Suite
from ..measure import measure
from .device import Device
from .entrant import JUDGED, RUNNING, DeviceLostError, Entrant, GraphEntrant, is_short, reason, sets_of

FEWEST = 5  # rounds


class Measurer:
    """Measures cases on one device; remembers how long each contestant took to start."""

    def __init__(self, device: Device, begin: Callable[[str, float], None]) -> None:
        self.device, self.begin = device, begin
        self.start_seconds: dict[str, float] = {}

    def measure(
        self, suite: Suite, case: Case, budget: float, allow: float, skip: dict[str, str]
    ) -> list[dict[str, Any]]:
        """One row per contestant and kind of call. allow: seconds that a contestant's compilation may take."""
        self.begin("inputs", RUNNING)
        sets = sets_of(suite, case, self.device)
        expected = [suite.expect(inputs, case) for inputs in sets[:JUDGED]]
        left_out: list[dict[str, Any]] = []
        entrants: list[Entrant] = []
        for contestant in suite.contestants:
            if not contestant.suits(case):
                continue
            why = skip.get(contestant.name) or self._too_slow(contestant, allow)
            if why:
                left_out.append(failed(case, contestant, why))
                continue
            entrants.append(Entrant(suite, contestant, sets, expected, self.device, self.begin))
            if contestant.graph and is_short(case) and self.device.graphs:
                entrants.append(GraphEntrant(entrants[-1]))
        rows = measure(case, entrants, [], budget, FEWEST, gap=0.0, baseline=same_call)
        self.start_seconds |= {entrant.contestant: entrant.start_seconds for entrant in entrants}
        measured = [row | fixed(case, entrant.of, entrant.call) for row, entrant in zip(rows, entrants, strict=True)]
        return measured + left_out

    def _too_slow(self, contestant: Contestant, allow: float) -> str:
        known = self.start_seconds.get(contestant.name, 0.0)
        if contestant.compiled and known > allow:
            return f"not started: compiling took {known:.0f} s before, and {allow:.0f} s are allowed now"
        return ""


def same_call(name: str, timed: Sequence[str]) -> str | None:
    """The first of ours that was timed at the same kind of call."""
    graph = name.endswith(", graph")
    return next((ours for ours in timed if ours.startswith(OURS) and ours.endswith(", graph") == graph), None)


def fixed(case: Case, contestant: Contestant, call: str) -> dict[str, Any]:
    accuracy = "exact" if contestant.exact else contestant.arithmetic
    names = {"device": "cuda", "call": call, "contestant": contestant.name, "accuracy": accuracy}
    return {**dataclasses.asdict(case), **names}


def failed(case: Case, contestant: Contestant, why: str) -> dict[str, Any]:
    """The row of a contestant that was not tried, or that did not come back."""
    return fixed(case, contestant, "eager") | {"status": "failed", "reason": why}


def main() -> int:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(fields: dict[str, Any]) -> None:
        answers.write(json.dumps(fields) + "\n")

    from .device import Cuda
    from .facts import describe
    from .suites import GPU_SUITES

    measurer = Measurer(Cuda(), lambda name, limit: answer({"begin": name, "limit": limit}))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.pop("do") == "describe":
                answer({"machine": describe(**request)})
            else:
                suite, case = GPU_SUITES[request.pop("op")], Case(**request.pop("case"))
                answer({"rows": measurer.measure(suite, case, **request)})
        except Exception as error:  # the device is lost, or a contestant that was right fails while it is timed
            answer({"lost": str(error) if isinstance(error, DeviceLostError) else reason(error)})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
