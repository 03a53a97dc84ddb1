"""The machine's own float32 multiply-add peak: fma_peak.cpp, compiled when the benchmark starts."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("fma_peak.cpp")
SECONDS = 0.1


class FmaPeak:
    """GFLOP/s of register-only multiply-adds; `reason` says why there is none (no compiler)."""

    def __init__(self, scratch: Path) -> None:
        self.samples: dict[int, list[float]] = {}
        self.width = 0
        self.reason = ""
        compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
        if compiler is None:
            self.reason = "no C++ compiler"
            return
        self._program = scratch / "fma_peak"
        flags = ("-O3", "-std=c++17", "-ffp-contract=fast", "-Wno-psabi", "-pthread")
        build = subprocess.run(
            [compiler, *flags, str(SOURCE), "-o", str(self._program)], capture_output=True, text=True, check=False
        )
        if build.returncode:
            self.reason = f"{SOURCE.name} did not compile"

    def sample(self, threads: int) -> float | None:
        """One measurement on `threads` threads, kept for `summary`."""
        if self.reason:
            return None
        run = subprocess.run([self._program, str(threads), str(SECONDS)], capture_output=True, text=True, check=True)
        rate, width = run.stdout.split()
        self.width = int(width)
        self.samples.setdefault(threads, []).append(float(rate))
        return float(rate)

    def summary(self) -> dict:
        """Per thread count the median and the largest of all samples."""
        if self.reason:
            return {"skipped": self.reason}
        per_threads = {
            str(threads): {"median_gflops": statistics.median(rates), "max_gflops": max(rates), "samples": len(rates)}
            for threads, rates in self.samples.items()
        }
        return {"vector_bits": self.width, "threads": per_threads}
