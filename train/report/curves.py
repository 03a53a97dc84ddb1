"""Curves as a page draws them: values against iterations and time, averaged where they are too many to see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MOST_POINTS = 300  # of a curve in a page; more than its pixels can show
LOGARITHMIC = 20.0  # positive values are drawn on a logarithmic axis where the largest is so many times the smallest
AXES = {"step": "iteration", "seconds": "time of training"}
Number = float | None


@dataclass(frozen=True)
class Line:
    """y against each axis of x, None where a value is not finite; low and high bound a band around it."""

    name: str
    x: Mapping[str, Sequence[float]]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """Lines over common axes: axis -> its label. hint: beside the title; note: below the curves."""

    title: str
    lines: Sequence[Line]
    axes: Mapping[str, str] = field(default_factory=lambda: AXES)
    hint: str = ""
    note: str = ""
    linear: bool = False
    """Whether the axis of values is linear whatever they are."""

    @property
    def logarithmic(self) -> bool:
        """Whether all values are positive and span more than a factor of 20, and a linear axis is not asked for."""
        if self.linear:
            return False
        bounds = [values for line in self.lines for values in (line.y, line.low or (), line.high or ())]
        known = [value for values in bounds for value in values if value is not None and math.isfinite(value)]
        return bool(known) and min(known) > 0 and max(known) > LOGARITHMIC * min(known)

    def as_json(self) -> dict[str, Any]:
        """What the page's script draws."""
        lines = [
            {
                "name": line.name,
                "x": {axis: [_short(value) for value in values] for axis, values in line.x.items()},
                "y": [_short(value) for value in line.y],
                "low": None if line.low is None else [_short(value) for value in line.low],
                "high": None if line.high is None else [_short(value) for value in line.high],
                "colour": line.colour,
            }
            for line in self.lines
        ]
        return {"title": self.title, "axes": dict(self.axes), "lines": lines, "log": self.logarithmic}


def series(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[list[float], list[Number]]:
    """Steps and values of ``key`` in the rows of a metrics.jsonl that have it; None where it was not finite."""
    found = [(row["step"], row[key]) for row in rows if key in row]
    return [step for step, _ in found], [value for _, value in found]


def clock(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and seconds of training, both rising, from (0, 0) on, for ``seconds_at``."""
    known = {0: 0.0, **{row["step"]: row["seconds"] for row in rows if row.get("seconds") is not None}}
    steps = np.array(sorted(known), dtype=float)
    return steps, np.maximum.accumulate([known[step] for step in sorted(known)])


def seconds_at(steps: Sequence[float], clocked: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """The time at each of ``steps``, linear between the rows of the log that carry it."""
    return np.interp(steps, *clocked).tolist() if len(steps) else []


def averaged(line: Line, most: int = MOST_POINTS) -> Line:
    """``line`` as at most ``most`` points: means of equal numbers of neighbours, between their extremes."""
    n = len(line.y)
    if n <= most:
        return line
    parts = np.array_split(np.arange(n), most)
    values = np.array([math.nan if value is None else value for value in line.y])
    return Line(
        line.name,
        {axis: [float(np.mean(np.asarray(x)[part])) for part in parts] for axis, x in line.x.items()},
        [_number(values[part].mean()) for part in parts],
        [_number(values[part].min()) for part in parts],
        [_number(values[part].max()) for part in parts],
        line.colour,
    )


def distribution(values: Sequence[float], name: str, colour: int, axis: str) -> Line:
    """The share of ``values`` that are at most x, as a line over ``axis``."""
    ordered = sorted(values)
    shares = [(i + 1) / len(ordered) for i in range(len(ordered))]
    return Line(name, {axis: ordered}, shares, colour=colour)


def _number(value: float) -> Number:
    return float(value) if math.isfinite(value) else None


def _short(value: Number) -> Number:
    """Six digits: what a curve can show, in a third of the bytes."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
