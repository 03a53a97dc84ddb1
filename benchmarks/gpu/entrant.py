"""One contestant of a case in this process: judged, then timed by turns (measure.Askable)."""

from __future__ import annotations

import gc
import importlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ..contestants import Case, Contestant, Inputs, Suite
from .device import Calls, Device

JUDGED = 2  # input sets whose results are judged
MOST_SETS, GRAPH_CALLS = 64, 32
RUNNING, COMPILING = 60.0, 180.0  # seconds after which a step is taken to hang
GRAPH_LIMIT = 1024  # rows up to which a call is so short that launching counts


class DeviceLostError(RuntimeError):
    """A contestant left the device unusable for this process."""


def sets_of(suite: Suite, case: Case, device: Device) -> list[Inputs]:
    """Input sets that together pass the cache twice, at most 64 and a quarter of the free memory, at least one."""
    first = suite.draw(case, 0, device.name)
    each = sum(tensor.nbytes for tensor in first)
    wanted = min(MOST_SETS, max(JUDGED, math.ceil(2 * device.cache_bytes / each)))
    count = max(1, min(wanted, device.free_bytes() // (4 * each)))
    return [first, *(suite.draw(case, number, device.name) for number in range(1, count))]


def is_short(case: Case) -> bool:
    """Whether launching counts."""
    return max(case.n, case.m) <= GRAPH_LIMIT


class Entrant:
    """Calls as they are written. `begin` is told before each step what is about to run, and how long it may take."""

    call = "eager"

    def __init__(
        self,
        suite: Suite,
        contestant: Contestant,
        sets: Sequence[Inputs],
        expected: Sequence[Inputs],
        device: Device,
        begin: Callable[[str, float], None],
    ) -> None:
        self.suite, self.of, self.raw, self.expected = suite, contestant, sets, expected
        self.device, self.begin, self.contestant = device, begin, contestant.name
        self.sets: list[tuple[Any, ...]] = []
        self.run: Callable[..., Any] = lambda *inputs: None
        self.verdict: dict[str, Any] = {"failed": "not prepared"}
        self.next, self.start_seconds, self.short = 0, 0.0, False

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Answers as measure.Askable does; DeviceLostError if the device cannot be used any more."""
        self.begin(self.contestant, COMPILING if do == "prepare" and self.of.compiled else RUNNING)
        before = time.monotonic()
        try:
            answer = self.prepare(Case(**fields["case"])) if do == "prepare" else self.turn(fields["calls"])
        except Exception as error:  # any contestant may fail in any way: the row says how
            answer = {"failed": reason(error)}
        try:
            self.device.settle()
        except Exception as error:
            raise DeviceLostError(reason(error)) from error
        if "failed" in answer:
            self.sets = []
            gc.collect()
        if do == "prepare":
            self.verdict, self.start_seconds = answer, time.monotonic() - before
        return answer

    def prepare(self, case: Case) -> dict[str, Any]:
        for name in self.of.modules:
            importlib.import_module(name)
        self.run, self.short = self.of.load(case), is_short(case)
        self.sets = [self.of.convert(inputs) for inputs in self.raw]
        answer = self.judge(case, (self.run(*inputs) for inputs in self.sets[: len(self.expected)]))
        if answer["right"]:
            answer["extra_bytes"] = self.device.extra_bytes(lambda: self.run(*self.sets[0]))
            answer |= self.turn(1)
        return answer

    def judge(self, case: Case, results: Iterable[Any]) -> dict[str, Any]:
        """Whether all results are right, and the largest error; stops at the first that is not."""
        largest = 0.0
        for result, raw, expected in zip(results, self.raw, self.expected, strict=False):
            verdict = self.suite.judge(self.of, case, raw, result, expected)
            if not verdict.right:
                return {"right": False, "error": verdict.error if math.isfinite(verdict.error) else None}
            largest = max(largest, verdict.error)
        return {"right": True, "error": largest}

    def turn(self, calls: int) -> dict[str, Any]:
        """Calls in passes through the sets, so that no pass finds its inputs in the cache."""
        pieces, left = [], calls
        while left:
            count = min(left, len(self.sets) - self.next)
            pieces.append(self._pass(self.next, count))
            self.next = (self.next + count) % len(self.sets)
            left -= count
        return {"seconds": self.device.time(pieces, idle=self.short) / calls}

    def _pass(self, first: int, count: int) -> Calls:
        run, sets = self.run, self.sets[first : first + count]

        def calls() -> None:
            for inputs in sets:
                run(*inputs)

        return calls


class GraphEntrant(Entrant):
    """The same contestant, many calls replayed from one CUDA graph."""

    call = "graph"

    def __init__(self, eager: Entrant) -> None:
        super().__init__(eager.suite, eager.of, eager.raw, eager.expected, eager.device, eager.begin)
        self.eager, self.contestant = eager, f"{eager.contestant}, graph"
        self.replay: Calls = lambda: None

    def prepare(self, case: Case) -> dict[str, Any]:
        if not self.eager.verdict.get("right"):
            return self.eager.verdict
        self.run, self.sets = self.eager.run, self.eager.sets[:GRAPH_CALLS]
        self.replay, results = self.device.capture(lambda: [self.run(*inputs) for inputs in self.sets])
        with torch.no_grad():
            for inputs, raw in zip(self.sets, self.raw, strict=False):
                restore(inputs, self.of.convert(raw))
            for result in results:
                poison(result, self.sets)
        self.replay()
        answer = self.judge(case, results)
        if answer["right"]:
            answer |= {"extra_bytes": self.eager.verdict["extra_bytes"]} | self.turn(1)
        return answer

    def turn(self, calls: int) -> dict[str, Any]:
        replays = max(1, round(calls / len(self.sets)))
        return {"seconds": self.device.time([self.replay] * replays) / (replays * len(self.sets))}


def restore(inputs: tuple[Any, ...], fresh: tuple[Any, ...]) -> None:
    """Gives the tensors that calls have changed their first values again, in place."""
    for mine, original in zip(inputs, fresh, strict=True):
        if isinstance(mine, torch.Tensor) and mine.data_ptr() != original.data_ptr():
            mine.copy_(original)


def poison(result: Any, sets: Sequence[tuple[Any, ...]]) -> None:
    """Spoils the outputs, so that a replay which writes nothing cannot pass; inputs changed in place stay."""
    kept = {tensor.data_ptr() for inputs in sets for tensor in inputs if isinstance(tensor, torch.Tensor)}
    for tensor in result if isinstance(result, (tuple, list)) else (result,):
        if tensor.data_ptr() not in kept:
            tensor.fill_(torch.nan if tensor.is_floating_point() else -1)


def reason(error: Exception) -> str:
    """One line; what a machine lacks is said in words."""
    if isinstance(error, ImportError):
        return f"not installed ({error})"
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
