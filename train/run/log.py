"""What a run tells: a progress line, metrics.jsonl, TensorBoard events and, if asked, Weights & Biases."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, track
from rich.table import Column

from train.errors import printable
from train.run.events import Events
from train.run.files import naming, write_atomically
from train.run.wandb_log import Wandb

METRICS = "metrics.jsonl"
PLAIN_SECONDS = 5.0
TICK_SECONDS = 0.1
SHOWN_LINES = 5  # numbers of damaged lines in a warning


class RunLog:
    """The log of one run that starts (or resumes) at ``step`` of ``total``.

    Rows of metrics.jsonl past ``step``, written by a process that then died, are dropped: they will be written again.
    So are damaged lines, which a warning names; the rows after them stay.
    """

    def __init__(self, directory: Path, label: str, step: int, total: int, wandb: Wandb | None = None) -> None:
        self._path = directory / METRICS
        rows = _keep_up_to(self._path, step)
        self._kinds = {(row["step"], name.partition("/")[0]) for row in rows for name in row}
        with naming(self._path):
            self._file = self._path.open("a", encoding="utf-8")
        self._events = Events(directory / "tensorboard", step)
        for row in rows:
            if row["step"] == step:
                self._events.row(step, _values(row))
        self._wandb = wandb
        self._label, self._total = label, total
        self._printed = (time.monotonic(), step, 0.0)
        self._started = step
        self._losses = ""
        self._console = Console(highlight=False)
        self._progress = self._open_progress(step) if self._console.is_terminal else None

    def tick(self, step: int, seconds: float) -> None:
        """Move the progress line: at most ten times a second on a terminal, every few seconds elsewhere.

        seconds: training by this process, without pictures and checkpoints; speed and time left follow from it.
        """
        now = time.monotonic()
        interval = TICK_SECONDS if self._progress is not None else PLAIN_SECONDS
        if now - self._printed[0] < interval and step < self._total:
            return
        since, base = (0.0, self._started) if self._progress is not None else (self._printed[2], self._printed[1])
        speed = (step - base) / max(seconds - since, 1e-9)
        left = duration((self._total - step) / speed) if speed > 0 else "?"
        if self._progress is not None:
            shown = f"{speed:.4g} it/s  {left} left"
            self._progress.update(self._task, completed=step, speed=shown, losses=self._losses)
        else:
            share = 100 * step // self._total
            line = f"{self._label}  {step}/{self._total}  {share}%  {speed:.4g} it/s  {left} left  {self._losses}"
            print(line.rstrip(), flush=True)
        self._printed = (now, step, seconds)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Append {"step": step, **values} to metrics.jsonl and TensorBoard; a value that is not finite becomes null."""
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with naming(self._path):
            self._file.write(json.dumps({"step": step, **row}) + "\n")
            self._file.flush()
        self._events.row(step, values)
        if self._wandb is not None:
            self._wandb.row(step, values)
        self._kinds |= {(step, name.partition("/")[0]) for name in values}
        losses = [f"{name.split('/')[0]} {value:.4g}" for name, value in values.items() if name.endswith("/loss")]
        self._losses = "  ".join(losses) or self._losses

    def has(self, step: int, kind: str) -> bool:
        """Whether metrics.jsonl has a row of ``step`` with a name KIND/...: metrics of points, scores of images."""
        return (step, kind) in self._kinds

    def say(self, text: str) -> None:
        """Lines for the person, above the progress line; control characters within them are escaped."""
        self._console.print("\n".join(map(printable, text.split("\n"))), markup=False, soft_wrap=True)

    def end_progress(self) -> None:
        """Leave the progress line as it is: training is over."""
        if self._progress is not None:
            self._progress.stop()

    def close(self) -> None:
        """Finish the progress line and the files."""
        with contextlib.ExitStack() as stack:  # each is closed whatever the others say
            if self._wandb is not None:
                stack.callback(self._wandb.close)
            stack.callback(self._events.close)
            stack.callback(self._close_rows)
            self.end_progress()

    def _close_rows(self) -> None:
        with contextlib.suppress(OSError):  # of what could not be written ``row`` has told
            self._file.close()

    def _open_progress(self, step: int) -> Progress:
        losses = Column(no_wrap=True, overflow="ellipsis", ratio=1)  # what gives way on a narrow terminal
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[losses]}", table_column=losses),
            console=self._console,
            expand=True,
        )
        self._task = progress.add_task(self._label, total=self._total, completed=step, speed="", losses="")
        progress.start()
        return progress


class Unheard:
    """The log of a process that is not the first of its run: what is told it goes nowhere."""

    def tick(self, step: int, seconds: float) -> None:
        """See RunLog."""

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """See RunLog."""

    def say(self, text: str) -> None:
        """See RunLog."""

    def end_progress(self) -> None:
        """See RunLog."""

    def close(self) -> None:
        """See RunLog."""


def progress(total: int, label: str) -> Iterable[int]:
    """1, 2, ..., total behind a progress bar, which is shown on a terminal alone and goes when it is done."""
    console = Console()
    return track(range(1, total + 1), label, console=console, transient=True, disable=not console.is_terminal)


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s or 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def read_rows(path: Path, warn: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """The rows of a file of JSON objects, one a line.

    Lines that are none, such as a last one cut short by a crash, are left out; ``warn`` (default: a line on stderr)
    hears of their numbers once.
    """
    return [row for _, row in _rows(path, warn, _is_object)]


def read_history(path: Path, warn: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl: "step", an integer >= 0, and names with a number or None. See ``read_rows``."""
    return [row for _, row in _rows(path, warn, is_row)]


def is_row(row: Any) -> bool:
    """Whether ``row`` has a step and, besides, only numbers or None."""
    return (
        isinstance(row, dict)
        and type(row.get("step")) is int
        and row["step"] >= 0
        and all(value is None or type(value) in (int, float) for value in row.values())
    )


def _keep_up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """Rewrite a metrics.jsonl with its whole rows up to ``step``, if it holds anything else; those rows."""
    if not path.exists():
        return []
    kept = [(line, row) for line, row in _rows(path, None, is_row) if row["step"] <= step]
    whole = b"".join(line + b"\n" for line, _ in kept)
    if whole != path.read_bytes():
        write_atomically(path, lambda temporary: temporary.write_bytes(whole))
    return [row for _, row in kept]


def _rows(
    path: Path, warn: Callable[[str], None] | None, belongs: Callable[[Any], bool]
) -> list[tuple[bytes, dict[str, Any]]]:
    """Each line of ``path`` that ``belongs``, as it stands and as an object."""
    rows, damaged = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):  # no JSON, no text, a number of 5,000 digits; brackets 100,000 deep
            row = None
        if belongs(row):
            rows.append((line, row))
        else:
            damaged.append(number)
    if damaged:
        more = f" and {len(damaged) - SHOWN_LINES} more" if len(damaged) > SHOWN_LINES else ""
        numbers = ", ".join(map(str, damaged[:SHOWN_LINES])) + more
        which = f"line {numbers} is" if len(damaged) == 1 else f"lines {numbers} are"
        (warn or _warn)(f"{printable(str(path))}: {which} damaged and left out")
    return rows


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """The values of a row of metrics.jsonl."""
    return {name: math.nan if value is None else value for name, value in row.items() if name != "step"}


def _is_object(row: Any) -> bool:
    return isinstance(row, dict)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
