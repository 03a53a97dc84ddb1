"""The parent's side of the workers: starts them, asks them, ends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import IO, Any, cast

POOL_SIZES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """A process that holds one contestant at one thread count. It sleeps unless asked."""

    def __init__(self, op: str, contestant: str, threads: int, scratch: str) -> None:
        environment = os.environ | dict.fromkeys(POOL_SIZES, str(threads))
        environment |= {"TORCHINDUCTOR_CACHE_DIR": scratch, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        command = ("--op", op, "--contestant", contestant, "--threads", str(threads))
        self.contestant = contestant
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._requests: IO[str] = cast(IO[str], self._process.stdin)
        self._answers: IO[str] = cast(IO[str], self._process.stdout)

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """The worker's answer; {"failed": reason} if it could not do it or died of it."""
        try:
            self._requests.write(json.dumps({"do": do, **fields}) + "\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"failed": f"the process ended with code {self._process.wait()}"}

    def close(self) -> None:
        self._requests.close()
        self._process.wait()
        self._answers.close()
