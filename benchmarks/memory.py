"""Peak extra memory of one call: the growth of the resident set above what it was before the call (Linux)."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")
RESET_PEAK = "5"  # see proc(5), clear_refs


def forked_growth(prepare: Callable[[], Callable[[], object]]) -> int | None:
    """Peak bytes that the call returned by `prepare()` adds in a forked child; None where that fails.

    The child starts from a process that has run no parallel region yet, so the thread pools and buffers of a first call
    count; what `prepare` leaves behind does not.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(growth(prepare())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return int(answer) if answer.isdigit() else None


def growth(call: Callable[[], object]) -> int:
    """Peak bytes that the call adds in this process, beyond what its libraries hold from earlier calls."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM")
    del result
    return max(0, peak - before)


def _status(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    if match is None:
        raise OSError(f"{STATUS} has no {field}")
    return 1024 * int(match[1])
