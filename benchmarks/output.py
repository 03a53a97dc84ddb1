"""The files of a run: rows as they come in FILE.jsonl, then FILE.json, FILE.md and FILE.png made of them.

The first line of FILE.jsonl holds the machine and the cases that the run is to measure, each further line a row or more
about the machine. A run that is stopped leaves its rows, and reports them if it can; `python -m benchmarks --report
FILE.jsonl` does so later.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import plots, report, targets
from .contestants import Case, Suite
from .gpu.suites import GPU_SUITES
from .suites import SUITES


class Rows:
    """The rows of one op as they come. A context: at its end, and also when interrupted, the report is written."""

    def __init__(self, path: Path, suite: Suite, cases: Sequence[Case], machine: dict[str, Any]) -> None:
        self.path, self.count = path, 0
        head = {"op": suite.op, "machine": machine, "cases": [dataclasses.asdict(case) for case in cases]}
        path.write_text(json.dumps(head) + "\n")

    def write(self, row: dict[str, Any]) -> None:
        self._append(row)
        self.count += 1
        print(report.line(row), flush=True)

    def note(self, **facts: Any) -> None:
        """Facts of the machine that are known only now."""
        self._append({"machine": facts})

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:  # opened anew: what is written survives however the run ends
            file.write(json.dumps(line) + "\n")

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        if self.count:
            write_report(self.path)


def write_report(path: Path) -> list[targets.Target]:
    """FILE.json, FILE.md and FILE.png beside FILE.jsonl, from whatever rows it has; the targets that they speak of."""
    op, machine, cases, rows = read(path)
    suite = (GPU_SUITES if rows[0]["device"] == "cuda" else SUITES)[op]
    found = targets.check(rows, machine)
    missing = [case.label() for case in cases if not any(report.case_of(row) == case for row in rows)]
    whole = {"machine": machine, "targets": [target._asdict() for target in found], "not_reached": missing}
    path.with_suffix(".json").write_text(json.dumps(whole | {"rows": rows}, indent=1) + "\n")
    path.with_suffix(".md").write_text(report.document(suite, rows, machine, found, missing))
    plots.plot(rows, machine, path.with_suffix(".png"))
    print(f"wrote {path.with_suffix('.md')}, .json, .jsonl, .png", flush=True)
    return found


def read(path: Path) -> tuple[str, dict[str, Any], list[Case], list[dict[str, Any]]]:
    """The op, the machine, the cases planned and the rows of a FILE.jsonl; a line cut short by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    if not lines or "cases" not in lines[0]:
        raise ValueError(f"{path.name}: the first line does not tell the machine and the cases")
    rows = [line for line in lines if "contestant" in line]
    if not rows:
        raise ValueError(f"{path.name}: no case was finished")
    machine: dict[str, Any] = {}
    for line in lines:
        machine |= line.get("machine", {})
    return lines[0]["op"], machine, [Case(**case) for case in lines[0]["cases"]], rows
