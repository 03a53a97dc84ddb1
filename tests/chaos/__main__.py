"""Kill runs with SIGKILL, again and again, and compare what they become with a run that was never stopped.

For each game: a second run that nothing disturbs; runs killed at random moments; runs killed at chosen ones, such as
between a checkpoint's write and its renaming; and, where a file system may be mounted, runs on disks that are too
small. All must be the same to the last bit. A line for each; exit status 1 if one differs.
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.cases import CASES, PICTURES, make_pictures
from tests.chaos.compare import differences
from tests.chaos.disk import PAGE, Unmountable, fill, random_sizes, small_disk, used
from tests.chaos.runs import Failed, Run
from train.run.log import duration

SHOWN = 5  # differences in a line
FAILURES = 4  # of one run on small disks, at most


class Chaos:
    """The runs of the case ``name`` in ``folder``, and one that nothing disturbs, which the others are compared with.

    Each method says what it did; Failed says what went wrong, and the folder of that run is kept.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._case, self._folder, self._count = CASES[name], folder, 0
        folder.mkdir()
        make_pictures(folder / PICTURES)
        self._whole = self._new()
        self._seconds = self._whole.finish()

    def twice(self) -> str:
        """A second run that nothing disturbs."""
        run = self._new()
        run.finish()
        self._compare(run)
        return "the same again"

    def at_random(self, kills: int, draw: random.Random) -> str:
        """Runs that are killed after random times, until there were so many kills."""
        run, runs = self._new(), 1
        for _ in range(kills):
            while not run.kill_after(draw.uniform(0.3, 1.0) * self._seconds):  # imports take a third
                self._compare(run)
                run, runs = self._new(), runs + 1
        run.finish()
        self._compare(run)
        return f"{kills} kills at random moments, {runs} runs"

    def at_moments(self) -> str:
        """A run that is killed at each of the case's moments in turn; another where one ends before the moment."""
        run, runs, missed = self._new(), 1, []
        for moment in self._case.moments:
            for _ in range(2):
                if run.kill_at(moment):
                    break
                self._compare(run)
                run, runs = self._new(), runs + 1
            else:
                missed.append(moment)
        run.finish()
        self._compare(run)
        unmet = f", not met: {', '.join(missed)}" if missed else ""
        return f"{len(self._case.moments) - len(missed)} kills at chosen moments, {runs} runs{unmet}"

    def on_small_disks(self, count: int, draw: random.Random) -> str:
        """Runs on disks that become full, and larger then, until that has happened so often."""
        most, failures, runs = used(self._whole.directory), 0, 0  # a run does without the cache of the scores
        while failures < count:
            run, runs = self._new(), runs + 1
            try:
                with small_disk(run.disk, PAGE):
                    failures += fill(run, random_sizes(draw, most, min(FAILURES, count - failures)))
                    self._compare(run)
            except Unmountable:
                return "not tried on full disks: no file system may be mounted here"
        return f"{failures} full disks, {runs} runs"

    def _new(self) -> Run:
        self._count += 1
        return Run(self._case, self._folder / str(self._count))

    def _compare(self, run: Run) -> None:
        found = differences(self._whole.directory, run.directory)
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise Failed(f"{'; '.join(found[:SHOWN])}{more}; compare {self._whole.directory} with {run.directory}")
        for path in (run.directory, run.cache):
            shutil.rmtree(path)


def main(argv: Sequence[str]) -> int:
    """Play what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="at random moments; half as many full disks")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the moments and sizes of disks")
    parser.add_argument("--game", nargs="+", choices=list(CASES), default=list(CASES))
    chosen = parser.parse_args(argv)
    base, good = Path(tempfile.mkdtemp(prefix="chaos-")), True
    for name in chosen.game:
        again = f"python -m tests.chaos --kills {chosen.kills} --seed {chosen.seed} --game {name}"
        good &= play(name, chosen.kills, random.Random(f"{chosen.seed} {name}"), base / name, again)
    if good:
        shutil.rmtree(base)
    return 0 if good else 1


def play(name: str, kills: int, draw: random.Random, folder: Path, again: str) -> bool:
    """Disturb one case in every way, a line for each; whether all went well. again: the command that repeats it."""
    made: list[Chaos] = []

    def undisturbed() -> str:
        made.append(Chaos(name, folder))
        return "undisturbed"

    ways: list[Callable[[], str]] = [
        undisturbed,
        lambda: made[0].twice(),
        lambda: made[0].at_random(kills, draw),
        lambda: made[0].at_moments(),
        lambda: made[0].on_small_disks(-(-kills // 2), draw),
    ]
    good = True
    for way in ways:
        began = time.monotonic()
        try:
            print(f"{name}: {way()} ({duration(time.monotonic() - began)})", flush=True)
        except Failed as failure:
            print(f"{name}: FAILED: {failure}; again: {again}", flush=True)
            good = False
            if not made:
                break
    return good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
