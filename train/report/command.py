"""``python -m train report RUN``: the page of a run from what its directory holds, while it runs or afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from train.cli import parse_fields
from train.errors import printable
from train.report.record import read_record
from train.report.run_page import write_run_report


@dataclass(frozen=True)
class ReportConfig:
    """Write report.html of runs from their logs and pictures, without training; a run that goes on is not disturbed."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run directories."""


def report_main(argv: Sequence[str]) -> None:
    """Write the page of each run and print its path; ValueError in one line for what is no run directory."""
    chosen = parse_fields(ReportConfig, ReportConfig(), argv, "python -m train report")
    if not chosen.runs:
        raise ValueError("report: which run? give its directory")
    for run in [read_record(directory, "report") for directory in chosen.runs]:
        print(f"report {printable(str(write_run_report(run)))}", flush=True)
