"""What ends a run early, and the exit status that each ending has."""

from __future__ import annotations

import errno
import re
import signal

import torch

USER_ERROR = 2
TRAINING_ERROR = 1

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the disk is read-only",
}
_MEMORY = re.compile(
    r"DefaultCPUAllocator|can't allocate memory|Cannot allocate memory|not enough memory|out of memory|std::bad_alloc|"
    r"[Ss]torage size calculation overflowed|can't start new thread|CUBLAS_STATUS_ALLOC_FAILED"
)
_ASKED = re.compile(r"allocate (\d+) bytes|allocate (\d+(?:\.\d+)? [KMGT]iB)")


class TrainingError(RuntimeError):
    """Training cannot go on: a loss, a parameter or a sample is NaN or infinite, disk or memory ran out. Status 1."""


class Stopped(Exception):  # noqa: N818 - no error
    """A signal asked the run to end, and it was saved. Exit status 128 + signal number, as a shell has it."""

    def __init__(self, number: int, step: int, directory: str) -> None:
        super().__init__(f"{signal.Signals(number).name} at step {step}: saved in {directory}")
        self.status = 128 + number


def resource_message(error: BaseException | None) -> str | None:
    """One line about the disk or the memory if that is what ran out, with what to do; None for all other errors."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:  # the cause is often wrapped
        seen.append(error)
        message = _disk_message(error) or _memory_message(error)
        if message is not None:
            return message
        error = error.__cause__ or error.__context__
    return None


def _disk_message(error: BaseException) -> str | None:
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if type(error).__name__ == "SafetensorError":
        code = re.search(r"os error (\d+)", text)
        number = int(code[1]) if code else None
    if number in _DISK:
        name = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"{_DISK[number]}{name}; make room, then --resume DIR continues the run"
    if isinstance(error, RuntimeError) and "inline_container" in text:
        return (
            "a checkpoint could not be written: the disk is full, or the file would be larger than is allowed; make "
            "room, then --resume DIR continues the run"
        )
    return None


def _memory_message(error: BaseException) -> str | None:
    text = str(error)
    allocation = isinstance(error, RuntimeError | OSError) and _MEMORY.search(text)
    if not (allocation or isinstance(error, MemoryError | torch.OutOfMemoryError)):
        return None
    asked = _ASKED.search(text)
    amount = "" if asked is None else f": {gigabytes(int(asked[1])) if asked[1] else asked[2]} more were asked for"
    return f"not enough memory{amount}; a smaller batch_size or smaller networks need less"


def gigabytes(size: int) -> str:
    """Bytes in the unit that a person reads: 12.3 GB, or MB below one of them."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
