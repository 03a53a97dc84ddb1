"""What a measurement needs of the machine it runs on: a clock, a memory gauge, graphs. Cuda is the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

Calls = Callable[[], Any]


class Device(Protocol):
    name: str
    cache_bytes: int
    graphs: bool

    def free_bytes(self) -> int: ...

    def time(self, pieces: Sequence[Calls], idle: bool = False) -> float:
        """Seconds of all pieces together, each after the cache has been filled with something else.

        idle: that filling is over when a piece begins, so that its first calls are not queued behind it.
        """

    def extra_bytes(self, call: Calls) -> int:
        """Peak growth of memory during the call, its result included."""

    def capture(self, call: Calls) -> tuple[Calls, Any]:
        """A function that replays the call from a graph, and the tensors that it then writes."""

    def settle(self) -> None:
        """Waits for the device; raises if an earlier call broke it."""


class Cuda:
    name, graphs = "cuda", True

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(0)
        self.cache_bytes = int(properties.L2_cache_size)
        self._flush = torch.ones(2 * self.cache_bytes // 4, device="cuda")
        self._sum = torch.empty((), device="cuda")

    def free_bytes(self) -> int:
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # torch's own, of earlier cases
        return torch.cuda.mem_get_info()[0] + cached

    def time(self, pieces: Sequence[Calls], idle: bool = False) -> float:
        spans = []
        for piece in pieces:
            torch.sum(self._flush, 0, out=self._sum)  # a read: no dirty lines to be written back in the timed region
            if idle:
                torch.cuda.synchronize()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            piece()
            end.record()
            spans.append((start, end))
        torch.cuda.synchronize()
        return sum(1e-3 * start.elapsed_time(end) for start, end in spans)

    def extra_bytes(self, call: Calls) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        del result
        return max(0, peak - before)

    def capture(self, call: Calls) -> tuple[Calls, Any]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()  # what is set up at a first call on a stream is set up before the capture
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call()
        return graph.replay, results

    def settle(self) -> None:
        torch.cuda.synchronize()


class Host:
    """Runs the same measurement on CPU tensors, without a cache to fill or graphs to replay; its times mean nothing."""

    name, graphs, cache_bytes = "cpu", False, 1 << 20

    def free_bytes(self) -> int:
        return 1 << 28

    def time(self, pieces: Sequence[Calls], idle: bool = False) -> float:
        start = time.perf_counter()
        for piece in pieces:
            piece()
        return time.perf_counter() - start

    def extra_bytes(self, call: Calls) -> int:
        call()
        return 0

    def capture(self, call: Calls) -> tuple[Calls, Any]:
        raise RuntimeError("no graphs on the CPU")

    def settle(self) -> None:
        return None
