"""What stands in for a GPU in these tests: a device with a clock of its own, and rows as a GPU would give them."""

from __future__ import annotations

from typing import Any

MACHINE = {
    "gpu": "Pretend GPU 9000", "driver": "1.2", "cuda": "13.0", "cpu": "a processor", "python": "3.11", "torch": "2.11",
    "triton": "3.6", "otkernels": "0.1", "flash-kmeans": "not installed", "flash-sinkhorn": "not installed",
    "pykeops": "not installed", "commit": "0123456789ab", "date": "2000-01-01 00:00 UTC",
    "command": "python -m benchmarks", "cores": 1, "load_before": 0.0,
    "roofline": {"product_size": 8192, "product_tflops": 500.0, "copy_bytes": 1 << 30, "copy_gbps": 2000.0},
}  # fmt: skip


class PretendDevice:
    """CPU tensors; a piece takes one second on this clock; a graph calls its function again, into the same outputs."""

    name, graphs, cache_bytes = "cpu", True, 1 << 12

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.idle: list[bool] = []
        self.lost = ""

    def free_bytes(self) -> int:
        return 1 << 24

    def time(self, pieces: Any, idle: bool = False) -> float:
        for piece in pieces:
            piece()
        self.passes.append(len(pieces))
        self.idle.append(idle)
        return float(len(pieces))

    def extra_bytes(self, call: Any) -> int:
        call()
        return 4096

    def capture(self, call: Any) -> tuple[Any, Any]:
        results = call()

        def replay() -> None:
            for mine, fresh in zip(results, call(), strict=True):
                pairs = ((mine, fresh),) if not isinstance(mine, tuple) else zip(mine, fresh, strict=True)
                for old, new in pairs:
                    old.copy_(new)

        return replay, results

    def settle(self) -> None:
        if self.lost:
            raise RuntimeError(self.lost)


def row(op: str, contestant: str, microseconds: float | None, **fields: Any) -> dict[str, Any]:
    """A row with a made-up time, or of a contestant that failed if there is none."""
    made = {
        "op": op, "n": 64, "m": 64, "d": 128, "mode": "forward", "dtype": "float32", "data": "", "device": "cuda",
        "call": "eager", "contestant": contestant, "accuracy": "exact",
    }  # fmt: skip
    if microseconds is None:
        return made | {"status": "failed", "reason": "not installed (a|b)"} | fields
    seconds = 1e-6 * microseconds
    times = {"median_s": seconds, "first_quartile_s": 0.9 * seconds, "third_quartile_s": 1.1 * seconds}
    return made | {"status": "ok", "error": 1e-7, "extra_bytes": 1 << 20, "ratio_to_ours": 1.0} | times | fields
