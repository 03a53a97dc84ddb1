"""The parent's side of the measuring process: asks it, notices that it died or hangs, and starts another."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any, cast

COMMAND = (sys.executable, "-m", "benchmarks.gpu.worker")
FIRST = 180.0  # seconds until the process, which imports torch and starts CUDA, first says something


class LostError(RuntimeError):
    """The process ended or hung; `contestant` was about to run, if any."""

    def __init__(self, why: str, contestant: str | None) -> None:
        super().__init__(why)
        self.contestant = contestant


class Child:
    """A measuring process. After LostError the next question goes to a new one."""

    def __init__(self, command: Sequence[str] = COMMAND, first: float = FIRST) -> None:
        self.command, self.first = command, first
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer; LostError names the contestant that had begun if the process did not give one."""
        process = self._process or self._start()
        begun, limit = None, self.first
        try:
            requests = cast(IO[str], process.stdin)
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            while True:
                line = self._lines.get(timeout=limit)
                if line is None:
                    raise LostError(f"the process ended with code {process.wait()}", begun)
                answer = json.loads(line)
                if "lost" in answer:
                    raise LostError(answer["lost"], begun)
                if "begin" not in answer:
                    return answer
                begun, limit = answer["begin"], answer["limit"]
        except queue.Empty:
            self.close()
            raise LostError(f"no sign of life for {limit:.0f} s", begun) from None
        except BrokenPipeError:
            self.close()
            raise LostError("the process ended before it was asked", begun) from None
        except LostError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the process, even one that waits for a kernel that never ends."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        self._lines = queue.Queue()
        self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        return self._process


def _read(lines: IO[str], into: queue.Queue[str | None]) -> None:
    for line in lines:
        into.put(line)
    into.put(None)
