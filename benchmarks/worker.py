"""One contestant in its own process, so that no two OpenMP pools spin against each other.

Reads one JSON request per line and answers each with one line:
    {"do": "memory", "case": ...}                       -> {"bytes": ...}
    {"do": "prepare", "case": ..., "expected": [paths]} -> {"right": ..., "error": null if not finite, "seconds": ...}
    {"do": "turn", "calls": k}                          -> {"seconds": per call}
A request that fails is answered with {"failed": reason}.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from . import memory
from .contestants import Case, Contestant, Run, Suite
from .suites import SUITES

SHORT = 0.02  # seconds: a shorter call is run once untimed at the start of a turn, to wake threads and caches
FEW = 16  # rows of the call that warms a process up before its memory is measured


class Worker:
    """Holds the function under test and its input sets."""

    def __init__(self, suite: Suite, contestant: Contestant) -> None:
        self.suite, self.contestant = suite, contestant
        self.run: Run = lambda *inputs: None
        self.sets: list[tuple[Any, ...]] = []
        self.next, self.seconds = 0, 0.0

    def memory(self, case: dict[str, Any]) -> dict[str, Any]:
        """Of a first call, in a child; what compiles is measured here at a later call, to compile only once."""
        this = Case(**case)
        if self.contestant.compiled:
            return {"bytes": memory.growth(self._prepare_memory(this, warm=this))}
        few = dataclasses.replace(this, n=min(FEW, this.n), m=min(FEW, this.m))
        return {"bytes": memory.forked_growth(lambda: self._prepare_memory(this, warm=few))}

    def _prepare_memory(self, case: Case, warm: Case) -> Callable[[], Any]:
        run = self.contestant.load(case)
        inputs = self._draw(case, 0)
        run(*self._draw(warm, 0))
        return lambda: run(*inputs)

    def prepare(self, case: dict[str, Any], expected: list[str]) -> dict[str, Any]:
        """Judges the result on every input set; the fastest of these calls tells how many make a turn."""
        this = Case(**case)
        self.run, self.sets, self.next, error, self.seconds = self.contestant.load(this), [], 0, 0.0, math.inf
        for number, path in enumerate(expected):
            raw = self.suite.draw(this, number)
            self.sets.append(self.contestant.convert(raw))
            start = time.perf_counter()
            result = self.run(*self.sets[-1])
            self.seconds = min(self.seconds, time.perf_counter() - start)
            verdict = self.suite.judge(self.contestant, this, raw, result, torch.load(path))
            if not verdict.right:
                return {"right": False, "error": verdict.error if math.isfinite(verdict.error) else None}
            error = max(error, verdict.error)
        return {"right": True, "error": error, "seconds": self.seconds}

    def turn(self, calls: int) -> dict[str, Any]:
        if self.seconds < SHORT:
            self._timed(1)
        self.seconds = self._timed(calls)
        return {"seconds": self.seconds}

    def _timed(self, calls: int) -> float:
        run, count = self.run, len(self.sets)
        order = [self.sets[(self.next + i) % count] for i in range(calls)]
        self.next = (self.next + calls) % count
        start = time.perf_counter()
        for inputs in order:
            run(*inputs)
        return (time.perf_counter() - start) / calls

    def _draw(self, case: Case, number: int) -> tuple[Any, ...]:
        return self.contestant.convert(self.suite.draw(case, number))


def limit_threads(threads: int) -> None:
    """The environment has set the pools' sizes; this says so again to libraries that are imported by now."""
    torch.set_num_threads(threads)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(threads)
    if "threadpoolctl" in sys.modules:
        sys.modules["threadpoolctl"].threadpool_limits(threads)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--op", required=True)
    parser.add_argument("--contestant", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    suite = SUITES[arguments.op]
    worker = Worker(suite, next(c for c in suite.contestants if c.name == arguments.contestant))
    absent = ""
    try:
        for name in worker.contestant.modules:
            importlib.import_module(name)
        limit_threads(arguments.threads)
    except ImportError as error:
        absent = f"not installed ({error})"
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"failed": absent} if absent else getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # any contestant may fail in any way: the row says how
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
