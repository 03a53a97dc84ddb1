"""Plans a run on a GPU within a time budget: cases of most worth first, rows kept as they come, a report at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import output, report
from ..contestants import OURS, Case, Suite, speed
from ..options import Options
from .child import Child, LostError
from .suites import GPU_SUITES
from .worker import failed

LEAST, MOST = 0.3, 2.0  # seconds of timed calls per case
TRIES = 4  # processes that one case may cost
Clock = Callable[[], float]
Planned = tuple[Suite, Case]


def run(options: Options, child: Child | None = None, clock: Clock = time.monotonic) -> int:
    """Measures until the time is over; 1 if a result of ours is wrong or fails, or nothing could be measured."""
    deadline, faults = clock() + 60 * options.minutes, 0
    with contextlib.closing(child or Child()) as asked:
        try:
            machine = asked.ask(do="describe", command=options.command)["machine"]
        except LostError as lost:
            print(f"the GPU could not be used: {lost}", flush=True)
            return 1
        with contextlib.ExitStack() as files:
            rows_of = open_rows(options, machine, files)
            for row in measured(*plan(options), asked, deadline, clock):
                if row["status"] == "ok":
                    row |= speed(GPU_SUITES[row["op"]], report.case_of(row), row["median_s"])
                    row |= shares(row, machine["roofline"])
                rows_of[row["op"]].write(row)
                faults += is_fault(row)
    return int(faults > 0)


def plan(options: Options) -> tuple[list[Planned], int]:
    """Every case by worth, and how many of them, which have targets of their own, stand in front."""
    suites = [suite for op, suite in GPU_SUITES.items() if op in options.ops]
    if options.quick:
        cases = [(suite, case) for suite in suites for case in suite.quick]
        return cases, len(cases)
    head = [(suite, case) for suite in suites for case in suite.cases[: suite.targets]]
    return head + [(suite, case) for suite in suites for case in suite.cases[suite.targets :]], len(head)


def measured(
    cases: Sequence[Planned], head: int, child: Child, deadline: float, clock: Clock
) -> Iterator[dict[str, Any]]:
    """The rows of each case in turn, until the deadline. The time left is divided evenly among the cases left; a
    contestant of the first `head` cases may take all of it to compile, later ones a case's share."""
    broken: dict[tuple[str, str], int] = {}
    for number, (suite, case) in enumerate(cases):
        left = deadline - clock()
        if left <= 0:
            print(f"time is over: {len(cases) - number} cases are not measured", flush=True)
            return
        share = left / (len(cases) - number)
        request = {
            "op": suite.op,
            "case": dataclasses.asdict(case),
            "budget": min(MOST, max(LEAST, share / 2)),
            "allow": left if number < head else share,
        }
        yield from persist(suite, case, child, request, broken)


def persist(
    suite: Suite, case: Case, child: Child, request: dict[str, Any], broken: dict[tuple[str, str], int]
) -> list[dict[str, Any]]:
    """The rows of a case. A contestant that takes the process down is left out and the rest measured by a new one;
    one that did so in two cases is left out of all later ones."""
    twice = "left the device unusable in two earlier cases"
    skip = {name: twice for (op, name), times in broken.items() if op == suite.op and times > 1}
    others = f"not measured: {TRIES} contestants took the process down"
    for _ in range(TRIES):
        try:
            return child.ask(do="measure", **request, skip=skip)["rows"]
        except LostError as lost:
            name = (lost.contestant or "").removesuffix(", graph")
            if not any(contestant.name == name for contestant in suite.contestants):
                others = str(lost)  # not a contestant's doing: the inputs do not fit, say
                break
            print(f"{suite.op}  {case.label()}: {lost.contestant} took the process down: {lost}", flush=True)
            skip[name] = str(lost)
            broken[suite.op, name] = broken.get((suite.op, name), 0) + 1
    suited = (contestant for contestant in suite.contestants if contestant.suits(case))
    return [failed(case, contestant, skip.get(contestant.name, others)) for contestant in suited]


def open_rows(options: Options, machine: dict[str, Any], files: contextlib.ExitStack) -> dict[str, output.Rows]:
    """OP-GPU.jsonl for every op."""
    found = {}
    for op in (op for op in options.ops if op in GPU_SUITES):
        suite = GPU_SUITES[op]
        path = options.output / f"{op}-{slug(machine['gpu'])}.jsonl"
        cases = suite.quick if options.quick else suite.cases
        found[op] = files.enter_context(output.Rows(path, suite, cases, machine))
    return found


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def shares(row: dict[str, Any], roofline: dict[str, Any]) -> dict[str, float]:
    """Of this GPU's own rates."""
    found = {}
    if "gflops" in row:
        found["peak_share"] = 1e-3 * row["gflops"] / roofline["product_tflops"]
    if "gbps" in row:
        found["bandwidth_share"] = row["gbps"] / roofline["copy_gbps"]
    return found


def is_fault(row: dict[str, Any]) -> bool:
    """Whether ours is wrong or failed, other than by saying that it cannot run here."""
    excused = "cannot run here" in row.get("reason", "")
    return row["contestant"].startswith(OURS) and row["status"] != "ok" and not excused
