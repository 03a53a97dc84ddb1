"""What a run tells: a progress line, metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, track
from rich.table import Column

from train.checkpoint import write_atomically

METRICS = "metrics.jsonl"
PLAIN_SECONDS = 5.0
TICK_SECONDS = 0.1


class RunLog:
    """The log of one run that starts (or resumes) at ``step`` of ``total``.

    Rows of metrics.jsonl past ``step``, written by a process that then died, are dropped: they will be written again.
    """

    def __init__(self, directory: Path, label: str, step: int, total: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import; --help does without

        self._path = directory / METRICS
        kept = _keep_until(self._path, step)
        self._measured = {row["step"] for row in kept if any(name.startswith("metrics/") for name in row)}
        self._file = self._path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)
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
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        if any(name.startswith("metrics/") for name in values):
            self._measured.add(step)
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        losses = [f"{name.split('/')[0]} {value:.4g}" for name, value in values.items() if name.endswith("/loss")]
        self._losses = "  ".join(losses) or self._losses

    def measured(self, step: int) -> bool:
        """Whether there is a row of metrics of the samples at ``step``."""
        return step in self._measured

    def say(self, text: str) -> None:
        """One line for the person, above the progress line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def end_progress(self) -> None:
        """Leave the progress line as it is: training is over."""
        if self._progress is not None:
            self._progress.stop()

    def close(self) -> None:
        """Finish the progress line and the files; a full disk, which is why the run ends, is no second error."""
        self.end_progress()
        for file in (self._file, self._events):
            with suppress(OSError):
                file.close()

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


Row = dict[str, Any]


def is_metrics(row: Row) -> bool:
    """Whether a row has a whole number "step" and beside it numbers or nulls."""
    numbers = (
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in row.values()
    )
    return type(row.get("step")) is int and all(numbers)


def read_rows(path: Path, fits: Callable[[Row], bool] = is_metrics) -> list[Row]:
    """The objects in a file of JSON lines that ``fits`` takes; damaged lines, such as one cut short, are left out."""
    return _parse(path, fits)[0]


def _parse(path: Path, fits: Callable[[Row], bool]) -> tuple[list[Row], list[int]]:
    """The good rows and the numbers of the damaged lines, counted from 1."""
    rows, damaged = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        try:
            row = json.loads(line) if line else None
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and fits(row):
            rows.append(row)
        elif line:
            damaged.append(number)
    return rows, damaged


def _keep_until(path: Path, step: int) -> list[Row]:
    """The rows up to ``step``; later ones and damaged lines, which are named, leave the file, in one replacement."""
    if not path.exists():
        return []
    rows, damaged = _parse(path, is_metrics)
    kept = [row for row in rows if row["step"] <= step]
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        lines = ", ".join(map(str, damaged[:5])) + more
        print(f"warning: {path} is damaged in line {lines}; the other rows are kept", flush=True)
    text = "".join(json.dumps(row) + "\n" for row in kept)
    if damaged or len(kept) < len(rows) or not path.read_bytes().endswith(b"\n"):
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return kept
