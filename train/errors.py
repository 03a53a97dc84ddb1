"""What ends a run early, and the exit status that each ending has."""

from __future__ import annotations

import errno
import re
import signal
import unicodedata
from collections.abc import Iterator

USER_ERROR = 2
TRAINING_ERROR = 1

MEMORY = "there is not enough memory"
_BY_ERRNO = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file size limit is reached (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.ENOMEM: MEMORY,
}
_IN_TEXT = re.compile(r"\((?:os )?error (\d+)\)|\[Errno (\d+)\]")  # Rust's libraries and Python name errno so
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory: you tried|unable to allocate|"
    r"std::bad_alloc|ALLOC_FAILED",
    re.IGNORECASE,
)
_UNCOUNTABLE = re.compile(r"Storage size calculation overflowed|multiplication overflow|array is too big")
_ASKED = re.compile(r"(?:tried|unable) to allocate ([\d.]+) ?(bytes|[KMGTPE]iB)", re.IGNORECASE)
_UNITS = ("bytes", "kib", "mib", "gib", "tib", "pib", "eib")


class TrainingError(RuntimeError):
    """Training cannot go on, as when a loss, a parameter or a sample is NaN or infinite. Exit status 1."""


class ResourceError(TrainingError):
    """The disk or the memory ran out. Exit status 1."""


class Stopped(Exception):  # noqa: N818 - no error
    """A signal asked to end, and what was done then. Exit status 128 + signal number, as a shell has it."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{signal.Signals(number).name} {what}")
        self.status = 128 + number


def resource_message(error: BaseException) -> str | None:
    """One plain line if ``error``, or what caused it, says that the disk or the memory ran out; else None.

    Disk: full, quota, file size limit, read-only. Memory: of the machine or the GPU, threads that cannot be started,
    sizes past what can be counted. Python, PyTorch, NumPy and safetensors each say these in their own way.
    """
    for link in _chain(error):
        reason = _line(link) if isinstance(link, ResourceError) else _reason(link)
        if reason is not None and link is not error and isinstance(error, (ValueError, TrainingError)):
            ours = _line(error)  # it says what was being done
            return ours if reason in ours else f"{ours} ({reason})"
        if reason is not None:
            return reason
    return None


def errno_of(error: BaseException) -> int | None:
    """The system's error number that an exception carries, as an attribute or in its text; None without one."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _IN_TEXT.search(str(error))
    return int(found[1] or found[2]) if found else None


def amount(number: float) -> str:
    """Bytes for a person, in powers of 1000 as disks and limits are sold: 512 bytes, 1.5 MB, 12 GB; at most 9.2 EB."""
    number, power = float(min(number, 2**63)), 0
    while number >= 999.5:
        number, power = number / 1000, power + 1
    digits = f"{number:.2g}" if number < 100 and power else f"{number:.0f}"
    return f"{digits} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[power]}"


def printable(text: str) -> str:
    r"""``text`` on one line: what a terminal or a page would act on instead of show becomes \x1b, \u202e and so on.

    These are control and format characters, line ends among them, and halves of surrogate pairs, which stand for bytes
    of a file name that are no text.
    """
    return "".join(c if unicodedata.category(c) not in _HIDDEN else ascii(c)[1:-1] for c in text)


_HIDDEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error``, what it was raised from or while handling, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _reason(error: BaseException) -> str | None:
    text = str(error)
    if _UNCOUNTABLE.search(text):
        return f"{MEMORY} (asked for more bytes than can be counted)"
    if isinstance(error, (ValueError, TrainingError)):  # these quote names and settings, which may say anything
        return None
    known = _BY_ERRNO.get(errno_of(error) or 0)
    if known is not None and known != MEMORY:
        name = getattr(error, "filename", None)
        return known if name is None else f"{printable(str(name))}: {known}"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return "no more threads can be started: memory, or the limit on processes, is used up"
    if known is None and not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(text):
        return None
    where = f"{MEMORY} on the GPU" if re.search(r"CUDA|CUBLAS|GPU", text) else MEMORY
    asked = _ASKED.search(text)
    if asked is None:
        return where
    return f"{where} (asked for {amount(float(asked[1]) * 1024 ** _UNITS.index(asked[2].lower()))})"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
