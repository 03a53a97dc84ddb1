"""Random problems of every op, compared with float64: `python -m tests.fuzz --n 10000`.

Prints one line per op, and for each failure the command that repeats that one problem. Exit status 1 where any failed.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings

from tests.fuzz.draw import Seeded
from tests.fuzz.ops import OPS, try_one

MOST_FAILURES = 5  # of an op, after which the next op is tried
QUIET = 60.0  # seconds without a word about progress


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="problems of each op (1000)")
    parser.add_argument("--op", choices=OPS, nargs="+", default=list(OPS), help="which ops (all)")
    parser.add_argument("--seed", type=int, default=0, help="what the problems follow from (0)")
    parser.add_argument("--only", type=int, metavar="K", help="problem number K alone, with its traceback")
    options = parser.parse_args(arguments)
    warnings.simplefilter("error")  # an op that computes what is asked has nothing to warn of
    numbers = range(options.n) if options.only is None else range(options.only, options.only + 1)
    failures = [_try(name, options.seed, numbers, options.only is not None) for name in options.op]
    return int(any(failures))


def _try(name: str, seed: int, numbers: range, with_traceback: bool) -> int:
    """How many of these problems of an op failed."""
    start = spoken = time.monotonic()
    worst, failures, tried = 0.0, 0, 0
    for k in numbers:
        choices = Seeded(f"{name} {seed} {k}")
        tried += 1
        try:
            worst = max(worst, try_one(OPS[name], choices))
        except Exception as error:  # whatever an op raises on a problem that it should solve
            failures += 1
            if with_traceback:
                traceback.print_exc()
                print(f"picked: {choices.picked}", file=sys.stderr)
            says = str(error).split("\n")[0] or type(error).__name__
            print(f"FAILED: {says}\n  python -m tests.fuzz --op {name} --seed {seed} --only {k}", flush=True)
            if failures == MOST_FAILURES:
                break
        if time.monotonic() - spoken > QUIET:
            spoken = time.monotonic()
            print(f"{name}: {tried} of {len(numbers)} problems, {spoken - start:.0f} s", flush=True)
    print(
        f"{name}: {tried} problems, {failures} failed, {time.monotonic() - start:.0f} s, "
        f"the worst error is {worst:.2f} of its tolerance",
        flush=True,
    )
    return failures


if __name__ == "__main__":
    raise SystemExit(main())
