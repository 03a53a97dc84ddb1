"""A real run in a folder of its own: started, killed with SIGKILL, gone on with."""

from __future__ import annotations

import fnmatch
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.cases import CACHE, Case
from train.run.directory import RUN_FILE

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 300.0  # seconds that a process may take
GRACE = 10.0  # seconds that the children of a killed process have to end
LOOK = 2e-4  # seconds between two looks at a folder


class Failed(Exception):  # noqa: N818 - a finding
    """A run did not do what it should; the message says what."""


class Run:
    """The run of ``case`` in ``folder``/disk/run, with a cache of its own beside it; output.txt is what it prints.

    After a process has ended, ``ended`` says whether it came to the run's end by itself.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder, self.disk = case, folder, folder / "disk"
        self.directory, self.cache, self.said = self.disk / "run", self.disk / CACHE, folder / "output.txt"
        self.ended = False
        self.disk.mkdir(parents=True)

    def finish(self) -> float:
        """Begin the run or go on with it, to its end; the seconds that took."""
        began = time.monotonic()
        with self._process() as process:
            self._wait(process, LONGEST)
        if not self.ended:
            raise Failed(f"it took more than {LONGEST:.0f} seconds")
        return time.monotonic() - began

    def kill_after(self, seconds: float) -> bool:
        """Go on and kill the process after ``seconds``; False if it ended by itself before."""
        with self._process() as process:
            self._wait(process, seconds)
        return not self.ended

    def kill_at(self, moment: str) -> bool:
        """Go on and kill the process when a file of that pattern appears; False if it ended by itself before."""
        pattern = os.path.normpath(self.directory / moment)
        there = _found(pattern)
        with self._process() as process:
            until = time.monotonic() + LONGEST
            while process.poll() is None and not _found(pattern) - there and time.monotonic() < until:
                time.sleep(LOOK)
            self._wait(process, 0)
        return not self.ended

    def status(self) -> tuple[int, str]:
        """Go on to an end of whatever kind; the exit status, and what the process wrote to stderr."""
        with self._process(stderr=subprocess.PIPE) as process:
            written = process.communicate(timeout=LONGEST)[1].decode()
        self.ended = process.returncode == 0
        return process.returncode, written

    def _process(self, stderr: int | None = None) -> subprocess.Popen[bytes]:
        begun = (self.directory / RUN_FILE).exists()
        settings = ["--resume", "disk/run"] if begun else [*self.case.settings, "--out", "disk/run"]
        with self.said.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "train", self.case.game, *settings],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.cache)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said if stderr is None else stderr,
                start_new_session=True,  # the process and its children are a group
            )

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Let ``process`` go on for so long and kill it then. Failed if it ended with an error, or left children."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.ended = process.returncode == 0
        if process.returncode not in (0, -signal.SIGKILL):
            last = self.said.read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"exit status {process.returncode}: {''.join(last)}")
        until = time.monotonic() + GRACE
        while _alive(process.pid):
            if time.monotonic() > until:
                os.killpg(process.pid, signal.SIGKILL)
                raise Failed("children of the killed process live on")
            time.sleep(0.01)


def _found(pattern: str) -> set[tuple[str, int]]:
    """The names that match in the pattern's folder, each with its inode: a file written anew is another one."""
    folder, name = os.path.split(pattern)
    try:
        with os.scandir(folder) as entries:
            return {(entry.name, entry.inode()) for entry in entries if fnmatch.fnmatch(entry.name, name)}
    except FileNotFoundError:
        return set()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
