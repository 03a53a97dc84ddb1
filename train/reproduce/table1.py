"""POT-GAN's Table 1: reverse KL of every game on two toy targets, over several seeds that train at once.

A cell is a row (a game) with one setting on one target. It is trained as one ensemble and written to its own file, so
that a run that is stopped goes on with the next cell. Several processes may share the work by ``--targets``, ``--rows``
or ``--settings``; whoever comes last writes the tables from all cells that are there.
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

from benchmarks.hardware import describe
from train.checkpoint import write_atomically
from train.cli import parse_fields
from train.config import TrainConfig
from train.data import TARGETS
from train.ensemble import Ensemble
from train.log import duration, progress
from train.metrics import toy_metrics
from train.outputs import POINTS
from train.reproduce.cells import ROWS, SETTINGS, cell_config

SHOWN = 1000  # samples of the first run that a cell keeps for pictures


@dataclass(frozen=True)
class Table1Config:
    """POT-GAN's Table 1 with every game of the two papers: cell by cell, all runs of a cell at once."""

    runs: int = 10
    """Runs per cell, with seeds 0, 1, ... The paper has 50."""
    targets: tuple[str, ...] = tuple(TARGETS)
    """Of ring8 and ball3d."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """paper: the papers' own; best: the best that we found."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which games and variants."""
    iterations: int | None = None
    """Iterations of every cell (default: as the settings say)."""
    threads: int | None = None
    """CPU threads (default: all). Two processes with one thread each do more than one with two."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    out: str = "results/table1"
    """Where cells, tables and pictures go; cells that are there with the same settings are not trained again."""

    def __post_init__(self) -> None:
        for name, known in (("targets", TARGETS), ("settings", SETTINGS), ("rows", ROWS)):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown or not getattr(self, name):
                raise ValueError(f"table1: {name} must be of {', '.join(known)}, got {', '.join(unknown) or 'none'}")
        if self.runs < 1:
            raise ValueError(f"table1: runs must be at least 1, got {self.runs}")


def main(argv: Sequence[str], prog: str) -> None:
    """Train what is missing, then write the tables and pictures."""
    from train.reproduce import table1_report  # matplotlib is slow to import

    config = parse_fields(Table1Config, Table1Config(), argv, prog)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    out = Path(config.out)
    (out / "cells").mkdir(parents=True, exist_ok=True)
    command = shlex.join([*prog.split(), *argv])
    for target, setting, row in cells(config):
        wanted = cell_config(target, setting, row)
        wanted = replace(wanted, device=config.device, iterations=config.iterations or wanted.iterations)
        path = out / "cells" / f"{target}-{setting}-{row}.json"
        if not is_done(path, wanted, config.runs):
            machine = describe(command, "models", "train")
            text = json.dumps(train_cell(row, wanted, range(config.runs), path.stem) | {"machine": machine}) + "\n"
            write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
    for path in table1_report.write(out):
        print(path)


def cells(config: Table1Config) -> Iterator[tuple[str, str, str]]:
    """(target, setting, row) in the order of the tables."""
    for setting in config.settings:
        for target in config.targets:
            for row in config.rows:
                yield target, setting, row


def is_done(path: Path, wanted: TrainConfig, runs: int) -> bool:
    """Whether ``path`` holds these runs. A cell of other settings is trained anew."""
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["config"] == plain(wanted) and found["seeds"] == list(range(runs))


def plain(config: TrainConfig) -> dict[str, Any]:
    """The settings as JSON gives them back; the device is no part of them."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    del values["device"]
    return values


def train_cell(row: str, config: TrainConfig, seeds: Sequence[int], label: str) -> dict[str, Any]:
    """Train one cell; its settings, seeds, times and the metrics of each run (None where it diverged)."""
    started = time.monotonic()
    ensemble = Ensemble(ROWS[row].game, config, seeds)
    for _ in progress(config.iterations, label):
        ensemble.iterate()
    samples = ensemble.samples(POINTS).cpu()
    trained = time.monotonic()
    metrics = [
        run_metrics(run, data.target, seed) for run, data, seed in zip(samples, ensemble.data, seeds, strict=True)
    ]
    seconds = {"training": round(trained - started, 1), "metrics": round(time.monotonic() - trained, 1)}
    kl = ", ".join("diverged" if run is None else f"{run['reverse_kl']:.4f}" for run in metrics)
    print(f"{label}: reverse KL {kl}; {duration(trained - started)} of training", flush=True)
    return {
        "label": ROWS[row].label,
        "config": plain(config),
        "seeds": list(seeds),
        "seconds": seconds,
        "metrics": metrics,
        "samples": [[round(x, 3) for x in point] for point in samples[0, :SHOWN].tolist()],
    }


def run_metrics(samples: torch.Tensor, target: Any, seed: int) -> dict[str, float] | None:
    """The figures of one run's samples [n, dim], or None if it diverged."""
    return toy_metrics(samples, target, seed=seed) if samples.isfinite().all() else None
