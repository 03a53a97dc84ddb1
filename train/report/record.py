"""What a run directory says of its run, read without building the run: for reports and comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.errors import printable
from train.report.curves import clock, seconds_at
from train.run.directory import RUN_FILE
from train.run.log import METRICS, is_row, read_history

FIGURES = "figures.json"
SCORES = "scores.json"
PAIRS = "pictures"
POINTS = "metrics/"  # what figures of points begin with in metrics.jsonl


@dataclass(frozen=True)
class Record:
    """One run as its directory has it.

    rows: of metrics.jsonl. protocol, scores: of scores.json, empty without one. figures: what the final outputs
    measured (figures.json: "step", "pairs" and what else was found), empty until they are written.
    """

    directory: Path
    game: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    protocol: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Any]

    @property
    def data(self) -> str:
        """What the run is trained on: the data set, of a folder or an archive its own name."""
        data = self.config.get("data")
        data = data if isinstance(data, Mapping) else {}
        name, path = data.get("name", "unknown data"), data.get("path")
        return Path(path).name if name == "folder" and isinstance(path, str) else str(name)

    @property
    def step(self) -> int:
        """The last iteration that the directory knows of."""
        return max([0, *(row["step"] for row in (*self.rows, *self.scores))])

    @property
    def iterations(self) -> int:
        """How many were asked for."""
        return int(self.config["iterations"])

    @property
    def seconds(self) -> float:
        """Training time as far as it is known."""
        return float(clock(self.rows)[1][-1])

    def measured(self) -> list[dict[str, Any]]:
        """Figures of the samples by step, with "step" and "seconds": scores of images, or metrics of points."""
        rows: dict[int, dict[str, Any]] = {row["step"]: dict(row) for row in self.scores}
        if not self.scores:
            for row in self.rows:
                named = {name.removeprefix(POINTS): v for name, v in row.items() if name.startswith(POINTS)}
                if named:
                    rows.setdefault(row["step"], {"step": row["step"]}).update(named)
        steps = sorted(rows)
        times = seconds_at(steps, clock(self.rows))
        return [{"seconds": time, **rows[step]} for step, time in zip(steps, times, strict=True)]

    @property
    def ended(self) -> bool:
        """Whether the final outputs of the last iteration were written."""
        return self.figures.get("step") == self.iterations


def read_record(directory: Path, who: str, described: Mapping[str, Any] | None = None) -> Record:
    """The run in ``directory``; ValueError in one line, beginning with ``who``, if it is none or damaged.

    described: "game" and "config", if they are known; else config.json says them.
    """
    if described is None:
        if not (directory / RUN_FILE).is_file():
            raise ValueError(f"{who}: {printable(str(directory))} is no run directory: it has no {RUN_FILE}")
        described = _read(directory / RUN_FILE, who)
    game, config = described.get("game"), described.get("config")
    if not isinstance(game, str) or not isinstance(config, dict) or type(config.get("iterations")) is not int:
        raise ValueError(f"{who}: {printable(str(directory / RUN_FILE))} does not describe a run")
    log = directory / METRICS
    scored = _read(directory / SCORES, who) if (directory / SCORES).is_file() else {}
    protocol, scores = scored.get("protocol", {}), scored.get("rows", [])
    if not isinstance(protocol, dict) or not isinstance(scores, list) or not all(map(is_row, scores)):
        raise ValueError(f"{who}: {printable(str(directory / SCORES))} must hold a protocol and rows of scores")
    figures = _read(directory / FIGURES, who) if (directory / FIGURES).is_file() else {}
    if figures and not _are_figures(figures):
        raise ValueError(
            f"{who}: {printable(str(directory / FIGURES))} must hold a step, pairs and distances of neighbours"
        )
    rows = read_history(log) if log.is_file() else []
    return Record(directory, game, config, rows, protocol, sorted(scores, key=lambda row: row["step"]), figures)


def _read(path: Path, who: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{who}: {printable(str(path))} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{who}: {printable(str(path))} is damaged: it holds no mapping")
    return found


def _are_figures(found: Mapping[str, Any]) -> bool:
    kinds, pairs = found.get("neighbours", {}), found.get("pairs", [])
    if type(found.get("step")) is not int or not isinstance(kinds, dict) or not isinstance(pairs, list):
        return False
    if not all(isinstance(name, str) and name == Path(name).name for name in pairs):  # no path to another place
        return False
    return all(
        isinstance(kind, dict)
        and all(type(kind.get(name)) is int for name in ("images", "shown"))
        and all(_are_distances(kind.get(name)) for name in ("samples", "training"))
        for kind in kinds.values()
    )


def _are_distances(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(type(value) in (int, float) for value in values)
