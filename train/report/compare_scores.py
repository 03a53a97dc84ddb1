"""A table of what ``python -m train evaluate`` wrote: scores of any files or runs, if their protocols are alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.errors import printable
from train.report import names, page
from train.report.markdown import markdown_table
from train.scores.protocol import check_same


def scores_table(paths: Sequence[Path]) -> str:
    """A Markdown table with a row for each file; ValueError in one line for other files and unlike protocols."""
    found = [_read(path) for path in paths]
    protocols = [one["protocol"] for one in found]
    check_same(protocols, [printable(str(path)) for path in paths])
    shown = names.varying([one["scores"] for one in found])
    heads = [names.title(name, protocols[0]) + names.arrow(name) for name in shown]
    rows = [[one["samples"], *(_cell(one["scores"], name) for name in shown)] for one in found]
    return "\n".join(markdown_table(["", *heads], rows))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(stored[name], Mapping) for name in ("scores", "protocol"))
        if not (whole and isinstance(stored["samples"], str) and "frechet distance" in stored["protocol"]):
            raise ValueError("it has no scores with a protocol")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"compare: {printable(str(path))} is no file of scores that evaluate writes: {printable(str(error))}"
        ) from error
    return stored


def _cell(scores: Mapping[str, Any], name: str) -> str:
    value = scores.get(name)
    return "" if value is None else page.measured(value, scores.get(f"{name}_error"))
