"""The command line of `python -m benchmarks`."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from train import provenance

from .gpu.suites import GPU_SUITES
from .suites import SUITES

RESULTS = Path("benchmarks/results")
QUICK_RESULTS = Path("runs/benchmarks")  # not kept: quick numbers are for a look
OPS = tuple(dict.fromkeys((*SUITES, *GPU_SUITES)))


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for. threads is of the CPU, minutes of the GPU; reports: rows to make reports from."""

    device: str
    ops: tuple[str, ...]
    threads: tuple[int, ...]
    minutes: float
    output: Path
    quick: bool
    command: str
    reports: tuple[Path, ...] = ()


def parse(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures every op against its contestants and writes rows, tables and pictures.",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where a GPU is available")
    parser.add_argument("--quick", action="store_true", help="few sizes and rounds; numbers for a look, about a minute")
    parser.add_argument("--ops", type=lambda text: tuple(text.split(",")), default=OPS, help=",".join(OPS))
    parser.add_argument(
        "--threads",
        type=lambda text: tuple(map(int, text.split(","))),
        help="of the CPU: 1,8; default 1 and all cores, with --quick all cores",
    )
    parser.add_argument("--minutes", type=float, help="for the GPU, cases of most worth first; default 6, --quick 1")
    parser.add_argument("--output", type=Path, help=f"default {RESULTS}; with --quick {QUICK_RESULTS}")
    parser.add_argument(
        "--report",
        type=Path,
        nargs="+",
        metavar="FILE.jsonl",
        help="measure nothing: tables and pictures of these rows",
    )
    parsed = parser.parse_args(argv)
    device = parsed.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cores = provenance.cores()
    threads = parsed.threads or ((cores,) if parsed.quick else tuple(dict.fromkeys((1, cores))))
    minutes = (1.0 if parsed.quick else 6.0) if parsed.minutes is None else parsed.minutes
    unknown = [op for op in parsed.ops if op not in OPS]
    absent = [str(path) for path in parsed.report or () if not path.is_file()]
    for fault, message in (
        (unknown, f"no op {', '.join(unknown)}"),
        (absent, f"--report: no file {', '.join(absent)}"),
        (min(threads) < 1, "--threads must be at least 1"),
        (not minutes > 0, "--minutes must be more than 0"),
    ):
        if fault:
            parser.error(message)
    if device == "cuda" and not parsed.report and not torch.cuda.is_available():
        parser.exit(2, "python -m benchmarks --device cuda: torch sees no CUDA device on this machine\n")
    limits = ["--threads", ",".join(map(str, threads))] if device == "cpu" else ["--minutes", f"{minutes:g}"]
    shown = ["--device", device, *["--quick"] * parsed.quick, "--ops", ",".join(parsed.ops), *limits]
    output = parsed.output or (QUICK_RESULTS if parsed.quick else RESULTS)
    command = shlex.join(["python", "-m", "benchmarks", *shown])
    return Options(device, parsed.ops, threads, minutes, output, parsed.quick, command, tuple(parsed.report or ()))
