"""Child processes that do not outlive the work which started them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from subprocess import STDOUT, Popen
from types import FrameType
from typing import IO, Any

from train.errors import Stopped

_ENDING = (signal.SIGTERM, signal.SIGHUP)  # SIGINT raises KeyboardInterrupt anyway


class Children:
    """A block; when it is left by an exception or by a signal that ends this process, the children get SIGTERM.

    Within it SIGTERM and SIGHUP raise Stopped in the main thread, unless they are ignored, as nohup has it.
    """

    def __init__(self) -> None:
        self._running: set[Popen[bytes]] = set()
        self._lock = threading.Lock()  # a child that starts while the block ends would be missed
        self._over = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Children:
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _stop)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
            for process in self._running:
                process.terminate()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], output: IO[str]) -> int:
        """Run ``command`` in a child until it ends; its exit status. Any thread may call this.

        RuntimeError once the block is left.
        """
        with self._lock:
            if self._over:
                raise RuntimeError("the work that starts children is over")
            process = Popen(command, stdout=output, stderr=STDOUT)
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number, "passed on to the children")
