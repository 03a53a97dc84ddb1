"""`python -m benchmarks`: measures every op against its contestants and writes rows, tables and pictures."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from . import cpu, output
from .gpu import run as gpu
from .options import parse

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        for path in options.reports:
            output.write_report(path)
        if options.reports:
            return 0
        options.output.mkdir(parents=True, exist_ok=True)
        return gpu.run(options) if options.device == "cuda" else cpu.run(options)
    except ValueError as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was finished is reported", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is stopped reports what it has
    sys.exit(main())
