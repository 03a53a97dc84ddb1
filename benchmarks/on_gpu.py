"""Builds, tests, checks and benchmarks on a machine with an NVIDIA GPU, in one command and under ten minutes.

    python -m benchmarks.on_gpu [--minutes 9.5] [--output benchmarks/results]

Steps, by worth: a CUDA build for this GPU, `pytest -m gpu`, compute-sanitizer's memcheck, synccheck and racecheck on
small shapes, the benchmarks with what time is left, those with targets first. Each has a time limit. All output goes to
on_gpu.log in the output directory as it comes, rows of the benchmarks beside it. A step that fails does not stop the
later ones; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from train.provenance import ROOT

from .options import RESULTS

PYTHON = sys.executable
MERCY = 15.0  # seconds that a stopped step has to write its report
START = 45.0  # of the benchmarks' time: imports, the roofline and the reports, which --minutes does not count
LIMITS = {"build": 150.0, "test": 120.0, "memcheck": 45.0, "synccheck": 30.0, "racecheck": 45.0}
CAPABILITY = "import torch; print(*torch.cuda.get_device_capability())"


class Outcome(NamedTuple):
    """result: passed, failed, out of time or skipped; remark: its last line of output."""

    step: str
    result: str
    seconds: float
    remark: str

    @property
    def ok(self) -> bool:
        return self.result in ("passed", "skipped")


class Log:
    """Runs commands one after the other; what they print goes to one file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.clock = path, clock
        path.write_text("")

    def run(self, step: str, command: Sequence[str], limit: float, **environment: str) -> Outcome:
        """Ends the command and all that it started after `limit` seconds: asked first, then killed."""
        print(f"{step}: {' '.join(command)}", flush=True)
        start = self.clock()
        with self.path.open("a") as file:
            file.write(f"\n==== {step}: {' '.join(command)}\n")
            file.flush()
            at = file.tell()
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | environment, stdout=file, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            result = "passed" if self._finish(process, limit) == 0 else "failed"
        seconds = self.clock() - start
        if seconds >= limit:
            result = "out of time"
        outcome = Outcome(step, result, seconds, self._last_line(at))
        print(f"{step}: {result} after {seconds:.0f} s  {outcome.remark}", flush=True)
        return outcome

    def skip(self, step: str, why: str) -> Outcome:
        print(f"{step}: skipped, {why}", flush=True)
        return Outcome(step, "skipped", 0.0, why)

    def _finish(self, process: subprocess.Popen[bytes], limit: float) -> int:
        for patience, end in ((max(1.0, limit), signal.SIGTERM), (MERCY, signal.SIGKILL)):
            try:
                return process.wait(patience)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, end)
        return process.wait()

    def _last_line(self, at: int) -> str:
        with self.path.open(errors="replace") as file:
            file.seek(at)
            lines = [line.strip() for line in file if line.strip()]
        return lines[-1][:100] if lines else ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything together; default 9.5")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    options = parser.parse_args(argv)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    log = Log(output / "on_gpu.log")
    deadline = log.clock() + 60 * options.minutes
    outcomes = steps(log, deadline, output)
    print("\n" + "\n".join(f"{o.step:<12}{o.result:<13}{o.seconds:6.0f} s  {o.remark}" for o in outcomes))
    print(target_lines(output))
    return int(not all(outcome.ok for outcome in outcomes))


def steps(log: Log, deadline: float, output: Path) -> list[Outcome]:
    """Every step, each within its own limit and the deadline; the benchmarks take what is left."""
    scale = min(1.0, max(0.0, deadline - log.clock()) / 570)

    def limit(step: str) -> float:
        return scale * LIMITS[step]

    build = (PYTHON, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "-e", ".")
    outcomes = [
        log.run("build", build, limit("build"), OTKERNELS_CUDA="1", OTKERNELS_CMAKE_ARGS=cmake_arguments()),
        log.run(
            "test",
            (PYTHON, "-m", "pytest", "-m", "gpu", "-q", "--timeout", "60", "--timeout-method", "thread"),
            limit("test"),
        ),
    ]
    sanitizer = find_sanitizer()
    for tool in ("memcheck", "synccheck", "racecheck"):
        if sanitizer is None:
            outcomes.append(log.skip(tool, "compute-sanitizer was not found"))
            continue
        command = (sanitizer, "--tool", tool, "--error-exitcode", "1", PYTHON, "-m", "benchmarks.sanitize")
        # without torch's caching, each tensor is an allocation of its own, whose end memcheck knows
        outcomes.append(log.run(tool, command, limit(tool), PYTORCH_NO_CUDA_MEMORY_CACHING="1"))
    left = deadline - log.clock() - MERCY
    minutes = max(10.0, left - START) / 60
    bench = (PYTHON, "-m", "benchmarks", "--device", "cuda", "--minutes", f"{minutes:.2f}", "--output", str(output))
    before = {path: path.stat().st_mtime for path in output.glob("*.jsonl")}
    outcomes.append(log.run("benchmarks", bench, max(20.0, left)))
    unreported = [path for path in fresh(output, before) if is_stale(path)]
    if unreported:
        again = (PYTHON, "-m", "benchmarks", "--report", *map(str, unreported))
        outcomes.append(log.run("report", again, MERCY))
    return outcomes


def cmake_arguments() -> str:
    """This GPU's architecture alone, with the instructions that only it has; the user's own arguments come first."""
    if os.environ.get("OTKERNELS_CMAKE_ARGS"):
        return os.environ["OTKERNELS_CMAKE_ARGS"]
    run = subprocess.run((PYTHON, "-c", CAPABILITY), capture_output=True, text=True, check=False)
    if run.returncode:
        return ""
    major, minor = run.stdout.split()
    own = "a" if major in ("9", "10") else ""
    return f"-DCMAKE_CUDA_ARCHITECTURES={major}{minor}{own}-real"


def find_sanitizer() -> str | None:
    beside_nvcc = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=str(beside_nvcc))


def fresh(output: Path, before: dict[Path, float]) -> list[Path]:
    """Rows that were written since."""
    return [path for path in sorted(output.glob("*.jsonl")) if path.stat().st_mtime != before.get(path)]


def is_stale(path: Path) -> bool:
    """Whether rows are there and the report is older than they are."""
    table = path.with_suffix(".md")
    has_rows = len(path.read_text().splitlines()) > 1
    return has_rows and not (table.exists() and table.stat().st_mtime >= path.stat().st_mtime)


def target_lines(output: Path) -> str:
    """Every target of the GPU, as the reports say it."""
    lines = []
    for path in sorted(output.glob("*.json")):
        whole = json.loads(path.read_text())
        if "gpu" in whole.get("machine", {}):
            answers = {True: "met", False: "NOT met", None: "not measured"}
            lines += [f"{answers[t['met']]:<13}{t['target']}: {t['measured']}" for t in whole.get("targets", [])]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
