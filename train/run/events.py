"""TensorBoard's event files, written without a thread: a full disk is an error where the value is written."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from train.run.files import naming

_NAME = re.compile(r"events\.out\.tfevents\.([0-9]{10})\.([0-9]{9})\.")


class Events:
    """The scalars that one process writes; each starts a file of its own, whose name sorts after those before it.

    That holds where the clock was set back, too. step: where the process starts. What earlier files say of it and of
    later steps, written by a process that then died, perhaps in the midst of it, is struck out when TensorBoard reads
    them: whoever starts here writes the rows of this step again. A last record cut short by a crash is passed over by
    TensorBoard.
    """

    def __init__(self, directory: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # slow to import; --help does without
        from tensorboard.summary.writer.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        before = [int("".join(match.groups())) for path in directory.iterdir() if (match := _NAME.match(path.name))]
        seconds, rest = divmod(max([time.time_ns(), *(name + 1 for name in before)]), 10**9)
        self._path = directory / f"events.out.tfevents.{seconds:010d}.{rest:09d}.{os.getpid()}"
        with naming(self._path):
            self._records = RecordWriter(self._path.open("ab"))
            self._write(step, file_version="brain.Event:2")
            self._write(step, session_log=SessionLog(status=SessionLog.START))
            self._records.flush()

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar for each name; errors as ``naming`` has them if it cannot be written."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with naming(self._path):
            for name, value in values.items():
                self._write(step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))
            self._records.flush()

    def close(self) -> None:
        """Finish the file."""
        with suppress(OSError):  # of what could not be written ``row`` has told
            self._records.close()

    def _write(self, step: int, **what: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())
