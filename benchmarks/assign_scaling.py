"""Time and work of assign against N, beside the solvers that take the matrix: a table and a picture.

    python -m benchmarks.assign_scaling [--sizes 64 128 ...] [--dimensions 2 128] [--threads 2] [--output FOLDER]

Each contestant is judged as in `python -m benchmarks --ops assign`, then timed; a call of more than a second is timed
once. FILE.jsonl has a row as soon as it is measured. 65536 points take minutes a call.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from otkernels.assign import sparse
from train import provenance

from .assign import DIMENSIONS, SUITE
from .contestants import OURS, Case, Contestant, Inputs
from .measure import GAP
from .options import RESULTS
from .plots import COLORS, MARKERS
from .report import figure, markdown_row, seconds

Row = dict[str, Any]
NAME = "assign_scaling-cpu"
SIZES = tuple(2**power for power in range(6, 17))
LONG, CALLS = 1.0, 7  # seconds of a call that is timed once; calls of the others
FACTS = ("cpu", "isa", "threads", "python", "torch", "numpy", "otkernels", *SUITE.packages, "commit", "date")
WORK = {
    "passes": "pairs priced / N M",
    "edges": "edges / N",
    "bids": "bids / N",
    "scans": "rows scanned / N",
}
ABOUT = (
    "Normal clouds in float32, N = M. Median of several calls, or one call that takes more than a second; excess cost "
    "as in [assign](assign-cpu.md). All contestants share a process here, and each call follows a pause, so calls "
    "below a millisecond find cold caches and sleeping threads and take longer than there. Work of otkernels, of all "
    "levels: pairs whose cost l2_topk has computed, edges that it has listed, bids of the auctions, rows scanned by "
    "augmenting paths; a dash where the matrix is solved."
)


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts what the sparse solver does in the context: pairs priced, edges listed, bids made, rows scanned."""
    work: Counter[str] = Counter()

    class Counted(sparse.Lists):
        def _find(self, rows: Any, k: int, *rest: Any) -> Any:
            work["pairs"] += len(rows) * self.m
            work["edges"] += len(rows) * k
            return super()._find(rows, k, *rest)

        def _call(self, step: str, *arguments: Any) -> Any:
            result = super()._call(step, *arguments)
            if step in ("auction", "paths"):
                work[step] += result.steps
                work["pairs"] += result.listed * self.m  # listed inside the step
                work["edges"] += result.listed * (self.k if step == "auction" else self.capacity)
            return result

    with mock.patch.object(sparse, "Lists", Counted):
        yield work


def measure(contestant: Contestant, case: Case, inputs: Inputs, expected: Inputs) -> Row:
    """One row: judged, then timed."""
    run, converted = contestant.load(case), contestant.convert(inputs)

    def timed(call: Callable[..., Any]) -> tuple[float, Any]:
        time.sleep(GAP)
        start = time.perf_counter()
        result = call(*converted)
        return time.perf_counter() - start, result

    with counted() as work:
        first, result = timed(run)
    verdict = SUITE.judge(contestant, case, inputs, result, expected)
    row = {"n": case.n, "d": case.d, "contestant": contestant.name, "right": verdict.right, "error": verdict.error}
    if work:
        row |= {
            "passes": work["pairs"] / case.n**2,
            "edges": work["edges"] / case.n,
            "bids": work["auction"] / case.n,
            "scans": work["paths"] / case.n,
        }
    samples = [first] if first > LONG else [timed(run)[0] for _ in range(CALLS)]
    return row | {"seconds": statistics.median(samples), "calls": len(samples)}


def collect(sizes: Sequence[int], dimensions: Sequence[int]) -> Iterator[Row]:
    """Small N first."""
    for contestant in SUITE.contestants:  # imports and first calls
        warm = Case("assign", 8, 8, 2)
        contestant.load(warm)(*contestant.convert(SUITE.draw(warm, 0)))
    for n in sorted(sizes):
        for d in dimensions:
            case = Case("assign", n, n, d)
            inputs = SUITE.draw(case, 0)
            expected = SUITE.expect(inputs, case)
            for contestant in SUITE.contestants:
                if contestant.suits(case):
                    yield measure(contestant, case, inputs, expected)


def document(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    facts = ", ".join(str(machine[name]) if name == "cpu" else f"{name} {machine[name]}" for name in FACTS)
    load = f"{machine['cores']} cores, load {machine['load_before']} before the start"
    header = ("N", "D", "contestant", "time", "excess cost", *WORK.values())
    lines = [markdown_row(header), "|" + "---|" * len(header)]
    for row in rows:
        cells = (str(row["n"]), str(row["d"]), row["contestant"], seconds(row["seconds"]) if row["right"] else "wrong")
        work = (figure(row, name, "{:.3g}".format) for name in WORK)
        lines.append(markdown_row((*cells, f"{row['error']:.1e}", *work)))
    picture = f"![time and work against N]({NAME}.png)"
    heading = "# assign on the CPU, against N"
    return (
        "\n\n".join((heading, f"`{machine['command']}` on {facts}; {load}.", ABOUT, picture, "\n".join(lines))) + "\n"
    )


def draw(rows: Sequence[Row], machine: dict[str, Any], path: Path) -> None:
    """Above the times, below the work of otkernels, a column per dimension; both axes logarithmic."""
    from matplotlib.figure import Figure

    dimensions = sorted({row["d"] for row in rows})
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    picture = Figure(figsize=(4.6 * len(dimensions), 6.6), layout="constrained")
    axes = picture.subplots(2, len(dimensions), sharex=True, sharey="row", squeeze=False)
    for column, d in enumerate(dimensions):
        above, below = axes[:, column]
        chosen = [row for row in rows if row["d"] == d and row["right"]]
        for row_of, ax in (("seconds", above), *((name, below) for name in WORK)):
            for number, name in enumerate(names if ax is above else [OURS]):
                points = [(row["n"], row[row_of]) for row in chosen if row["contestant"] == name and row.get(row_of)]
                at = number if ax is above else list(WORK).index(row_of) + len(names)
                label = name if ax is above else WORK[row_of]
                style = {"color": COLORS[at], "marker": MARKERS[at], "markersize": 4}
                ax.plot([n for n, _ in points], [y for _, y in points], label=label, **style)
        above.set_title(f"d = {d}", fontsize=10)
        below.set_xlabel("N")
        for ax in (above, below):
            ax.set_xscale("log", base=2)
            if any(len(line.get_xdata()) for line in ax.lines):  # a logarithmic axis cannot be empty
                ax.set_yscale("log")
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("seconds a call")
    axes[1, 0].set_ylabel(f"work of {OURS} a row")
    for row_of_axes in axes:
        row_of_axes[-1].legend(fontsize=8, frameon=False)
    picture.suptitle(f"assign on {machine['threads']} threads of {machine['cpu']}, {machine['date']}", fontsize=10)
    picture.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.assign_scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS)
    parser.add_argument("--threads", type=int, default=provenance.cores())
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    shown = [f"--{name} {' '.join(map(str, getattr(options, name)))}" for name in ("sizes", "dimensions")]
    machine = provenance.describe(f"{parser.prog} {' '.join(shown)} --threads {options.threads}")
    machine |= {name: provenance.version(name) for name in SUITE.packages}
    options.output.mkdir(parents=True, exist_ok=True)
    path, rows = options.output / f"{NAME}.jsonl", []
    path.write_text(json.dumps({"machine": machine}) + "\n")
    try:
        for row in collect(options.sizes, options.dimensions):
            rows.append(row)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(*(f"{value:.4g}" if isinstance(value, float) else value for value in row.values()), flush=True)
    finally:  # a run that is stopped reports what it has
        if rows:
            path.with_suffix(".md").write_text(document(rows, machine))
            draw(rows, machine, path.with_suffix(".png"))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
