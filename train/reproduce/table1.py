"""POT-GAN's Table 1: reverse KL of every game on two toy targets, over several seeds that train at once.

A cell is a row (a game) with one setting on one target. Its runs are trained side by side and written to its own file,
so that a run that is stopped goes on with the next cell. Several processes may share the work by ``--targets``,
``--rows`` or ``--settings``; whoever comes last writes the tables from all cells that are there.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.config import from_dict
from train.cli import parse_fields
from train.data.config import DISTRIBUTIONS
from train.report.page import flatten
from train.reproduce.cells import ROWS, SETTINGS, cell_config
from train.reproduce.start import start
from train.run.config import TrainConfig
from train.run.directory import PHASES
from train.run.files import write_atomically
from train.run.log import duration, progress
from train.run.loop import side_by_side
from train.run.outputs import POINTS
from train.scores.toy import toy_metrics

SHOWN = 1000


@dataclass(frozen=True)
class Table1Config:
    """POT-GAN's Table 1 with every game of the two papers: cell by cell, all runs of a cell at once."""

    runs: int = 10
    """Runs per cell, with seeds 0, 1, ... The paper has 50."""
    targets: tuple[str, ...] = tuple(DISTRIBUTIONS)
    """Some of the default."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """paper: what POT-GAN states (3P-WGAN: its own paper), ours elsewhere; best: tuned by us,
    see docs/studies/settings.md."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Some of the default: games, POT-GAN with another F or pairing, 3P-WGAN with h = identity."""
    iterations: int | None = None
    """Iterations of every cell (default: as the settings say)."""
    threads: int | None = None
    """CPU threads (default: all)."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    out: str = "results/table1"
    """Where cells, tables and pictures go. Cells that are there are not trained again; of other settings they are an
    error."""

    def __post_init__(self) -> None:
        for name, known in (("targets", DISTRIBUTIONS), ("settings", SETTINGS), ("rows", ROWS)):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown or not getattr(self, name):
                raise ValueError(f"table1: {name} must be of {', '.join(known)}, got {', '.join(unknown) or 'none'}")
        for name in ("runs", "iterations", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"table1: {name} must be at least 1, got {getattr(self, name)}")


def main(argv: Sequence[str], prog: str) -> None:
    """Train what is missing, then write the tables and pictures."""
    from train.reproduce import table1_report  # matplotlib is slow to import

    config = parse_fields(Table1Config, Table1Config(), argv, prog)
    out, machine = start(shlex.join([*prog.split(), *argv]), config.threads, config.device, config.out)
    (out / "cells").mkdir(exist_ok=True)
    for target, setting, row in cells(config):
        wanted = cell_config(target, setting, row)
        wanted = replace(wanted, device=config.device, iterations=config.iterations or wanted.iterations)
        path = out / "cells" / f"{target}-{setting}-{row}.json"
        if not is_done(path, wanted, config.runs):
            cell = train_cell(row, wanted, range(config.runs), path.stem) | {"machine": machine}
            write_atomically(path, partial(Path.write_text, data=json.dumps(cell) + "\n", encoding="utf-8"))
    for path in table1_report.write(out):
        print(path)


def cells(config: Table1Config) -> Iterator[tuple[str, str, str]]:
    """(target, setting, row) in the order of the tables."""
    for setting in config.settings:
        for target in config.targets:
            for row in config.rows:
                yield target, setting, row


def is_done(path: Path, wanted: TrainConfig, runs: int) -> bool:
    """Whether ``path`` holds these runs; ValueError if it holds others."""
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    stored = plain(from_dict(type(wanted), found["config"]))  # settings that came later have their defaults there
    if stored != plain(wanted) or found["seeds"] != list(range(runs)):
        theirs = {**dict(flatten(stored)), "runs": len(found["seeds"])}
        ours = {**dict(flatten(plain(wanted))), "runs": runs}
        other = ", ".join(f"{name} {theirs.get(name)}" for name in ours if ours[name] != theirs.get(name))
        raise ValueError(f"table1: {path} holds runs with other settings ({other}); remove it or choose another out")
    return True


def plain(config: TrainConfig) -> dict[str, Any]:
    """The settings as JSON gives them back; without those of phases, which points never have."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return {name: value for name, value in values.items() if name not in PHASES}


def train_cell(row: str, config: TrainConfig, seeds: Sequence[int], label: str) -> dict[str, Any]:
    """Train one cell: settings, seeds, times, the metrics of each run (None where it diverged), and some samples.

    "samples": 1,000 points of the first run that did not diverge, None if there is none.
    """
    started = time.monotonic()
    loop, target = side_by_side(ROWS[row].game, config, seeds), DISTRIBUTIONS[config.data.name]()
    for _ in progress(config.iterations, label):
        loop.iterate()
    samples = loop.samples(POINTS).cpu()
    trained = time.monotonic()
    metrics = [run_metrics(run, target, seed) for run, seed in zip(samples, seeds, strict=True)]
    seconds = {"training": round(trained - started, 1), "metrics": round(time.monotonic() - trained, 1)}
    kl = ", ".join("diverged" if run is None else f"{run['reverse_kl']:.4f}" for run in metrics)
    print(f"{label}: reverse KL {kl}; {duration(trained - started)} of training", flush=True)
    return {
        "label": ROWS[row].label,
        "config": plain(config),
        "seeds": list(seeds),
        "seconds": seconds,
        "metrics": metrics,
        "samples": next((points(run) for run, found in zip(samples, metrics, strict=True) if found), None),
    }


def points(samples: torch.Tensor) -> list[list[float]]:
    """The first samples of a run as they are stored."""
    return [[round(x, 3) for x in point] for point in samples[:SHOWN].tolist()]


def run_metrics(samples: torch.Tensor, target: Any, seed: int) -> dict[str, float] | None:
    """The figures of one run's samples [n, dim], or None if it diverged."""
    return toy_metrics(samples, target, seed=seed) if samples.isfinite().all() else None
