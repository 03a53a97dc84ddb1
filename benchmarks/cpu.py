"""Measures the suites of the CPU: one process per contestant and thread count, one case after the other."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from train import provenance

from . import output
from .contestants import OURS, SETS, Case, Suite, speed
from .fma_peak import FmaPeak
from .measure import measure
from .options import Options
from .pool import Worker
from .suites import SUITES

DEVICE = "cpu"
PEAK_SAMPLES = 3  # before a case, and again after it
QUICK, FULL = (0.5, 3), (1.5, 5)  # seconds of timed calls per case, and rounds at least


def run(options: Options) -> int:
    """Measures; rows and reports are in options.output. 1 if a result of ours is not right."""
    machine = provenance.describe(options.command)
    wrong = False
    with tempfile.TemporaryDirectory() as name:
        for op in (op for op in options.ops if op in SUITES):
            peak = FmaPeak(Path(name))
            wrong |= run_suite(SUITES[op], options, machine, peak, Path(name))
    return int(wrong)


def run_suite(suite: Suite, options: Options, machine: dict[str, Any], peak: FmaPeak, scratch: Path) -> bool:
    """Measures every case at every thread count; whether a result of ours was not right."""
    cases = suite.quick if options.quick else suite.cases
    wrong = False
    machine = machine | {name: provenance.version(name) for name in suite.packages}
    with output.Rows(options.output / f"{suite.op}-{DEVICE}.jsonl", suite, cases, machine) as rows:
        try:
            for threads in options.threads:
                for row in run_threads(suite, cases, threads, options, peak, scratch):
                    rows.write(row)
                    wrong |= row["contestant"] == OURS and row["status"] != "ok"
        finally:
            rows.note(fma_peak=peak.summary())
    return wrong


def run_threads(
    suite: Suite, cases: Sequence[Case], threads: int, options: Options, peak: FmaPeak, scratch: Path
) -> Iterator[dict[str, Any]]:
    names = [contestant.name for contestant in suite.contestants if contestant.device == DEVICE]
    workers = [Worker(suite.op, name, threads, str(scratch / "inductor")) for name in names]
    try:
        memory = extra_memory(suite, cases, workers)  # first: the children must fork before a parallel region has run
        for case in cases:
            before = [peak.sample(threads) for _ in range(PEAK_SAMPLES)]
            expected = expectations(suite, case, scratch)
            rounds = suite.rounds(case)
            budget = (QUICK if options.quick else FULL) if rounds is None else (0.0, rounds)
            rows = measure(case, suited(suite, case, workers), expected, *budget)
            rates = [rate for rate in before + [peak.sample(threads) for _ in range(PEAK_SAMPLES)] if rate]
            for row in rows:
                bytes_ = memory[case, row["contestant"]]
                fixed = {**dataclasses.asdict(case), "device": DEVICE, "threads": threads}
                yield fixed | row | {"extra_bytes": bytes_} | shares(suite, case, row, rates)
    finally:
        for worker in workers:
            worker.close()


def extra_memory(suite: Suite, cases: Sequence[Case], workers: Sequence[Worker]) -> dict[tuple[Case, str], int | None]:
    """Peak extra bytes per case and contestant; None where it failed."""
    return {
        (case, worker.contestant): worker.ask("memory", case=dataclasses.asdict(case)).get("bytes")
        for case in cases
        for worker in suited(suite, case, workers)
    }


def suited(suite: Suite, case: Case, workers: Sequence[Worker]) -> list[Worker]:
    suits = {contestant.name: contestant.suits for contestant in suite.contestants}
    return [worker for worker in workers if suits[worker.contestant](case)]


def expectations(suite: Suite, case: Case, scratch: Path) -> list[str]:
    """Files with what the judge of each input set needs; computed once per case, whatever the thread count."""
    name = "-".join(str(field) for field in dataclasses.astuple(case))
    sets = SETS if suite.rounds(case) is None else 1
    paths = [scratch / f"{name}-{number}.pt" for number in range(sets)]
    for number, path in enumerate(paths):
        if not path.exists():
            torch.save(suite.expect(suite.draw(case, number), case), path)
    return [str(path) for path in paths]


def shares(suite: Suite, case: Case, row: dict[str, Any], rates: Sequence[float]) -> dict[str, float]:
    """The suite's rates, and the share of the multiply-add peak that was measured around this case."""
    if row["status"] != "ok":
        return {}
    figures = speed(suite, case, row["median_s"])
    if "gflops" in figures and rates:
        fma = statistics.median(rates)
        figures |= {"fma_peak_gflops": fma, "peak_share": figures["gflops"] / fma}
    return figures
