"""A run's folder: taken by one process in one step, and locked while that process lives."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.games import GAMES
from train.run.files import naming

RUN_FILE = "config.json"
CHECKPOINTS = "checkpoints"
EXPORT = "export"
BEST = "export-best"  # of the lowest Frechet distance along the training
REPORT = "report.html"
LOCK = ".lock"
PHASES = dict.fromkeys(phase for game in GAMES.values() for phase in game.phases)  # each has a folder of its own
# What a run leaves in its folder: where any of it lies, another run has been.
LOGS = ("metrics.jsonl", "scores.json", "tensorboard")
TRACES = (RUN_FILE, CHECKPOINTS, *LOGS, "samples", "pictures", EXPORT, BEST, REPORT, *PHASES)


@contextmanager
def new_directory(out: str | None, default: Path) -> Iterator[Path]:
    """A folder for a new run, locked within the block: ``out``, or the first of default, default-2, ... that is free.

    mkdir decides between processes that start together. ValueError if ``out`` is in use or a run has been there.
    Folders made for a block that then leaves nothing in them are removed.
    """
    if out == "":
        raise ValueError("train: out must be a folder's name, got an empty one")
    directory, made = _claim(default) if out is None else _make(Path(out))
    try:
        with locked(directory):
            check_unused(directory)  # under the lock: until now another process may have come and gone
            yield directory
    finally:
        with suppress(OSError):  # a folder that is in use stays
            if made and os.listdir(directory) == [LOCK]:
                (directory / LOCK).unlink()
                for folder in reversed(made):
                    folder.rmdir()


def check_unused(directory: Path) -> None:
    """ValueError if a run has been in ``directory``, whether it has a config.json or lost it."""
    if (directory / RUN_FILE).exists():
        raise ValueError(f"train: out: {directory} holds a run; --resume {directory} continues it")
    traces = [name for name in TRACES if (directory / name).exists()]
    if traces:
        raise ValueError(
            f"train: out: {directory} holds {', '.join(traces)} of an earlier run, but no {RUN_FILE}; "
            "choose another folder"
        )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the folder's lock within the block; ValueError if another process has it.

    The system releases the lock when the process ends, however it ends. Where the file system has no locks, none is
    held.
    """
    with (directory / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                print(
                    f"warning: {directory} cannot be locked ({error.strerror}): start one run in it alone", flush=True
                )
            else:
                file.seek(0)
                owner = file.read(20).strip()
                process = f" (process {owner})" if owner.isdecimal() else ""
                raise ValueError(f"train: {directory} is in use by another run{process}") from error
        with naming(directory / LOCK):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # what is refused under the lock leaves the folder as it was


def _claim(default: Path) -> tuple[Path, list[Path]]:
    """Make the first of default, default-2, ... that does not exist; it, and all folders made."""
    made = _make_all(default.parent)
    number, directory = 1, default
    while True:
        try:
            directory.mkdir()
            return directory, [*made, directory]
        except FileExistsError:
            number += 1
            directory = default.with_name(f"{default.name}-{number}")


def _make(directory: Path) -> tuple[Path, list[Path]]:
    """``directory``, and the folders made for it; ValueError before that if a run cannot begin there."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"train: out: {directory} is no folder")
    check_unused(directory)
    return directory, _make_all(directory)


def _make_all(directory: Path) -> list[Path]:
    """Make ``directory`` with its parents; those that were missing, outermost first."""
    absent = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    return absent[::-1]
