"""SIGINT, SIGTERM and SIGHUP as a request that a run reads when an iteration is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from models.processes import here


class Requests:
    """Notes a signal that asks the run to end.

    In another thread than the main one, where Python takes no signals, they do what they would have done.
    """

    asked: int | None = None  # the signal's number

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the signals within the block; SIGINT after another leaves at once, as KeyboardInterrupt,
        and with the last checkpoint as it is; not over several processes."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
                    before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Another SIGTERM may only repeat the first: a table passes on what all processes of a job have been sent.
        if self.asked is None:
            self.asked = number
        elif number == signal.SIGINT and here().size == 1:  # someone is impatient; torchrun passes on what all have got
            raise KeyboardInterrupt
