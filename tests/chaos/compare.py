"""Whether two run folders say the same, bit for bit, except for what tells the time."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.run.checkpoint import checkpoints
from train.run.directory import LOCK

TIMES = {"seconds"}
SHOWN = re.compile(r"<h[1-6][^>]*>.*?</h[1-6]>|data:image/[^\"']+")  # of a page, which also has curves against time


def differences(whole: Path, parts: Path) -> list[str]:
    """In what the run folder ``parts``, which was stopped and resumed, differs from ``whole``, which never was.

    Every file must be there, and no other. Of checkpoints the newest is compared: a kill may leave one too many. The
    events that TensorBoard reads must be the rows of metrics.jsonl, each once.
    """
    ours, theirs = _names(whole), _names(parts)
    found = [f"{name} is missing" for name in sorted(ours - theirs)]
    found += [f"{name} should not be there" for name in sorted(theirs - ours)]
    found += [f"{name} differs" for name in sorted(ours & theirs) if not _same(whole / name, parts / name)]
    for log in sorted(parts.rglob("metrics.jsonl")):
        found += [f"{log.parent.relative_to(parts) / 'tensorboard'}: {text}" for text in _events_differ(log)]
    return found


def same(ours: Any, theirs: Any) -> bool:
    """Whether two states are equal to the last bit, times aside."""
    if isinstance(ours, torch.Tensor):
        return isinstance(theirs, torch.Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(
            same(value, theirs[name]) for name, value in ours.items() if name not in TIMES
        )
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder of events: the steps and values of each name."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it says what it strikes out
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def _names(folder: Path) -> set[str]:
    """The files of a run that are compared by name; what dead writers left is among them."""
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        old = path.suffix == ".pt" and path not in checkpoints(path.parent)[:1]
        if path.is_file() and path.name != LOCK and path.parent.name != "tensorboard" and not old:
            found.add(str(name))
    return found


def _same(ours: Path, theirs: Path) -> bool:
    if ours.suffix == ".pt":
        return same(torch.load(ours, weights_only=True), torch.load(theirs, weights_only=True))
    if ours.suffix == ".jsonl":
        return same(_rows(ours), _rows(theirs))
    if ours.suffix == ".json":
        return same(json.loads(ours.read_text()), json.loads(theirs.read_text()))
    if ours.suffix == ".html":
        return SHOWN.findall(ours.read_text()) == SHOWN.findall(theirs.read_text())
    return ours.read_bytes() == theirs.read_bytes()


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _events_differ(log: Path) -> list[str]:
    expected: dict[str, list[tuple[int, float]]] = {}
    for row in _rows(log):
        for name, value in row.items():
            if name != "step":
                expected.setdefault(name, []).append((row["step"], math.nan if value is None else value))
    shown = scalars(log.parent / "tensorboard")
    found = [f"{name} is in one of metrics.jsonl and the events" for name in sorted(expected.keys() ^ shown.keys())]
    for name in expected.keys() & shown.keys():
        steps, rows = [step for step, _ in shown[name]], [step for step, _ in expected[name]]
        values = torch.tensor([value for _, value in shown[name]])
        if steps != rows:
            found.append(f"{name} has the steps {steps}, metrics.jsonl has {rows}")
        elif not torch.equal(values.nan_to_num(), torch.tensor([value for _, value in expected[name]]).nan_to_num()):
            found.append(f"{name} has other values than metrics.jsonl")
    return found
