"""Disks that are too small: file systems in memory, where they may be mounted."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.runs import Failed, Run
from train.run.checkpoint import checkpoints, step_of, valid_states
from train.run.directory import CHECKPOINTS

PAGE = 4096  # what such a file system gives out
AMPLE = 2**28


class Unmountable(Exception):  # noqa: N818 - no error
    """No file system may be mounted here."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Within the block the empty ``folder`` is a file system of ``size`` bytes; Unmountable where there can be none.

    If the block fails, what it held stays in ``folder``.
    """
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        raise Unmountable
    left = folder.with_name("left")
    try:
        yield
    except BaseException:
        shutil.copytree(folder, left)
        raise
    finally:
        subprocess.run(["umount", folder], check=True)
        if left.exists():
            left.replace(folder)


def grow(folder: Path, size: int) -> None:
    """Free space on the disk in ``folder``: it has ``size`` bytes from now on."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def used(folder: Path) -> int:
    """The bytes of a disk that ``folder`` takes."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def fill(run: Run, sizes: list[int]) -> int:
    """Go on with ``run`` on a disk of each of the rising ``sizes`` until one suffices; how often it did not.

    Failed unless each failure is exit status 1, one line at the end of stderr that says why, and checkpoints that can
    all be read, none older than before.
    """
    for failures, size in enumerate([*sizes, AMPLE]):
        grow(run.disk, size)
        before = _newest(run)
        status, written = run.status()
        lines = written.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if status == 0:
            return failures
        if status != 1 or errors != lines[-1:] or "no space is left on the disk" not in errors[0]:
            raise Failed(f"on a disk of {size} bytes: exit status {status}, stderr {written[-500:]!r}")
        if _newest(run) < before:
            raise Failed(f"on a disk of {size} bytes: the checkpoint of step {before} is lost")
    raise Failed("it failed on an ample disk")


def random_sizes(draw: random.Random, most: int, count: int) -> list[int]:
    """Sizes of disks of which most are too small for what takes ``most`` bytes, in rising order."""
    return sorted(draw.randint(PAGE, most) for _ in range(count))


def _newest(run: Run) -> int:
    """The step of the newest checkpoint, -1 if there is none; Failed if one is damaged."""

    def damaged(text: str) -> None:
        raise Failed(text)

    for folder in run.directory.rglob(CHECKPOINTS):
        for _ in valid_states(folder, damaged):
            pass
    return max(map(step_of, checkpoints(run.directory / CHECKPOINTS)), default=-1)
