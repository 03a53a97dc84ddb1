"""What a run tells: a progress line, metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, track
from rich.table import Column

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
        _drop_after(self._path, step)
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
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        losses = [f"{name.split('/')[0]} {value:.4g}" for name, value in values.items() if name.endswith("/loss")]
        self._losses = "  ".join(losses) or self._losses

    def say(self, text: str) -> None:
        """One line for the person, above the progress line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def end_progress(self) -> None:
        """Leave the progress line as it is: training is over."""
        if self._progress is not None:
            self._progress.stop()

    def close(self) -> None:
        """Finish the progress line and the files."""
        self.end_progress()
        self._file.close()
        self._events.close()

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


def read_rows(path: Path) -> list[dict[str, float | None]]:
    """The rows of a metrics.jsonl; a last line cut short by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [json.dumps(row) + "\n" for row in read_rows(path) if (row["step"] or 0) <= step]
    path.write_text("".join(kept), encoding="utf-8")
