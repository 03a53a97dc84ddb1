"""`python -m benchmarks`: measures every op against its contestants and writes rows, tables and pictures."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from . import hardware, report
from .contestants import OURS, SETS, Case, Suite
from .fma_peak import FmaPeak
from .measure import measure
from .plots import plot
from .pool import Worker
from .suites import SUITES

DEVICE = "cpu"
RESULTS = Path("benchmarks/results")
QUICK_RESULTS = Path("runs/benchmarks")  # not kept: quick numbers are for a look
PEAK_SAMPLES = 3  # before a case, and again after it


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for. budget: seconds of timed calls per case; fewest: rounds at least."""

    ops: tuple[str, ...]
    threads: tuple[int, ...]
    output: Path
    quick: bool
    command: str

    @property
    def budget(self) -> float:
        return 0.5 if self.quick else 1.5

    @property
    def fewest(self) -> int:
        return 3 if self.quick else 5


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    options.output.mkdir(parents=True, exist_ok=True)
    machine = hardware.describe(options.command)
    wrong = False
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for op in options.ops:
            peak = FmaPeak(scratch)
            rows = run_suite(SUITES[op], options, peak, scratch)
            wrong |= any(row["contestant"] == OURS and row["status"] != "ok" for row in rows)
            write(SUITES[op], rows, machine | {"fma_peak": peak.summary()}, options.output)
    return int(wrong)


def parse(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few sizes and rounds; numbers for a look, under a minute")
    parser.add_argument("--ops", type=lambda text: tuple(text.split(",")), default=tuple(SUITES), help=",".join(SUITES))
    parser.add_argument(
        "--threads",
        type=lambda text: tuple(map(int, text.split(","))),
        help="thread counts: 1,8; default 1 and all cores, with --quick all cores",
    )
    parser.add_argument("--output", type=Path, help=f"default {RESULTS}; with --quick {QUICK_RESULTS}")
    parsed = parser.parse_args(argv)
    cores = hardware.cores()
    threads = parsed.threads or ((cores,) if parsed.quick else tuple(dict.fromkeys((1, cores))))
    unknown = [op for op in parsed.ops if op not in SUITES]
    if unknown or min(threads) < 1:
        parser.error(f"no op {', '.join(unknown)}" if unknown else "--threads must be at least 1")
    shown = ["--quick"] * parsed.quick + ["--ops", ",".join(parsed.ops), "--threads", ",".join(map(str, threads))]
    output = parsed.output or (QUICK_RESULTS if parsed.quick else RESULTS)
    command = shlex.join(["python", "-m", "benchmarks", *shown])
    return Options(parsed.ops, threads, output, parsed.quick, command)


def run_suite(suite: Suite, options: Options, peak: FmaPeak, scratch: Path) -> list[dict[str, Any]]:
    """Measures every case at every thread count; rows are written to OP-DEVICE.jsonl after each case."""
    cases = suite.quick if options.quick else suite.cases
    rows = []
    with (options.output / f"{suite.op}-{DEVICE}.jsonl").open("w") as file:
        for threads in options.threads:
            for row in run_threads(suite, cases, threads, options, peak, scratch):
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(line(row), flush=True)
                rows.append(row)
    return rows


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
            rows = measure(case, suited(suite, case, workers), expected, options.budget, options.fewest)
            rates = [rate for rate in before + [peak.sample(threads) for _ in range(PEAK_SAMPLES)] if rate]
            for row in rows:
                bytes_ = memory[case, row["contestant"]]
                fixed = {**dataclasses.asdict(case), "device": DEVICE, "threads": threads}
                yield fixed | row | {"extra_bytes": bytes_} | speed(suite, case, row, rates)
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
    paths = [scratch / f"{case.op}-{case.n}-{case.m}-{case.d}-{case.mode}-{number}.pt" for number in range(SETS)]
    for number, path in enumerate(paths):
        if not path.exists():
            torch.save(suite.expect(suite.draw(case, number), case), path)
    return [str(path) for path in paths]


def speed(suite: Suite, case: Case, row: dict[str, Any], rates: Sequence[float]) -> dict[str, float]:
    """GFLOP/s and the share of the multiply-add peak that was measured around this case."""
    if suite.flops is None or row["status"] != "ok":
        return {}
    gflops = 1e-9 * suite.flops(case) / row["median_s"]
    if not rates:
        return {"gflops": gflops}
    fma = statistics.median(rates)
    return {"gflops": gflops, "fma_peak_gflops": fma, "peak_share": gflops / fma}


def line(row: dict[str, Any]) -> str:
    """One row for the terminal."""
    head = f"{row['op']}  {row['threads']} thr  {report.case_of(row).label():<24} {row['contestant']:<22}"
    if row["status"] != "ok":
        return f"{head} {row['status']}: {row.get('reason', row.get('error'))}"
    ratio = "" if row["ratio_to_ours"] is None else f"{row['ratio_to_ours']:8.2f}x"
    share = f"{100 * row['peak_share']:6.0f} % of FMA peak" if "peak_share" in row else ""
    return f"{head} {report.seconds(row['median_s']):>9}{ratio}{report.size(row['extra_bytes']):>12}{share}"


def write(suite: Suite, rows: list[dict[str, Any]], machine: dict[str, Any], output: Path) -> None:
    """OP-DEVICE.md, .json (machine and rows) and .png beside the rows."""
    stem = f"{suite.op}-{DEVICE}"
    (output / f"{stem}.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    (output / f"{stem}.md").write_text(report.document(suite, rows, machine))
    plot(rows, machine, output / f"{stem}.png")
    print(f"wrote {output / stem}.md, .json, .jsonl, .png")


if __name__ == "__main__":
    sys.exit(main())
