"""Files that are whole or absent, whenever the writer dies."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from train.errors import ResourceError, errno_of, printable, resource_message

_TEMPORARY = re.compile(r"\..+?\.(\d+)(?:\.([0-9a-f]{8}))?\.part", re.DOTALL)
ABANDONED = 86400  # seconds after which a temporary file of another machine is taken for one whose writer is dead


@functools.cache
def _machine() -> str:
    """Eight digits that tell apart machines, boots and containers, whose processes have the same numbers."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def temporary_name(path: Path) -> Path:
    """Beside ``path``; no other live process writes to that name."""
    return path.with_name(f".{path.name}.{os.getpid()}.{_machine()}.part")


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Within the block ``path`` is written, or ``temporary`` in its place, and errors name it.

    ResourceError if the disk or the memory ran out, OSError for other refusals of the system; what else is raised
    passes through.
    """
    try:
        yield
    except ResourceError:
        raise
    except Exception as error:
        reason, number = resource_message(error), errno_of(error)
        if reason is not None:
            shown, folder = printable(str(path)), printable(str(path.parent))
            reason = reason.removeprefix(f"{printable(str(temporary or path))}: ")
            advice = f"free space in {folder} and run again; a run continues with --resume"
            raise ResourceError(f"{shown} was not written: {reason}; {advice}") from error
        if number is not None:
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """``write`` a temporary file beside ``path``, sync it, rename it, and sync the folder that holds the name.

    If that fails, ``path`` is as it was, the temporary file is gone, and the error is as ``naming`` has it.
    """
    temporary = temporary_name(path)
    try:
        with naming(path, temporary):
            write(temporary)
            _sync(temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # nothing was made, or the folder takes no changes
            temporary.unlink()
    _sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, written atomically."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill within the block, which gets that name at its end.

    ``path`` must be missing or an empty folder. If the block fails, it is as it was, and the temporary folder is gone.
    """
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(path.parent)


def sweep(directory: Path) -> list[Path]:
    """Remove the temporary files and folders below ``directory`` whose writers are dead; returns them.

    A writer on this machine is dead if no process has its number, or if this process has it: call it before anything is
    written, while no other process of this machine may write there. One on another machine, which shares the folder,
    is dead if the file was last changed a day ago.
    """
    removed = []
    for folder, folders, names in os.walk(directory):
        for name in [*folders, *names]:
            match = _TEMPORARY.fullmatch(name)
            path = Path(folder, name)
            if match is None or path.is_symlink() or _alive(path, int(match[1]), match[2]):
                continue
            with contextlib.suppress(OSError):  # not ours to remove
                if name in folders:
                    folders.remove(name)
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed.append(path)
    return removed


def _alive(path: Path, process: int, machine: str | None) -> bool:
    """Whether another process may write to the temporary ``path``. machine: None in names of earlier versions."""
    if machine not in (None, _machine()):
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime < ABANDONED
    if process == os.getpid() or process < 1:
        return False
    try:
        os.kill(process, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
