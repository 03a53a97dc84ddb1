"""What a table on images will take: hours and disk, from a few iterations of each row on this machine."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.games import GAMES, Game
from train.data.config import load
from train.data.datasets import Dataset
from train.errors import amount
from train.reproduce.image_cells import Cell, ImagesConfig
from train.run.build import make_trainer
from train.run.config import TrainConfig, phase_as_run, torch_device
from train.run.log import duration
from train.run.phases import registered
from train.scores.extractors import load_extractor

TIMED_SECONDS = 3.0
WARM_UP = 2


@dataclass(frozen=True)
class RowCost:
    """Of one row."""

    iteration: float
    """Seconds of an iteration."""
    phases: dict[str, float]
    """Seconds of an iteration of each phase before it, by the phase's name."""
    checkpoint: int
    """Bytes of a checkpoint."""


def print_plan(cells: Sequence[Cell], config: ImagesConfig) -> None:
    """Time every row for a few seconds, then print a line a row and the sums."""
    if config.threads is not None:  # the cells' number, also of the extractor
        torch.set_num_threads(config.threads)
    data = load(config.data, torch_device(config.device))
    image = image_seconds(config, data)
    costs: dict[str, RowCost] = {}
    rows = list(dict.fromkeys(cell.row for cell in cells))
    print(f"{'row':<24} {'cells':>5} {'iterations':>10} {'it/s':>8} {'hours':>7}  disk", flush=True)
    phases: dict[str, tuple[str, float]] = {}
    total_seconds = total_bytes = 0.0
    for row in rows:
        here = [cell for cell in cells if cell.row == row]
        costs[row] = cost = row_cost(here[0], data)
        settings = here[0].config
        scored = scorings(settings) * config.scores.n * image
        seconds = len(here) * (settings.iterations * cost.iteration + scored)
        size = len(here) * (settings.keep + 1) * cost.checkpoint
        for cell in here:
            phases |= phase_runs(cell, cost)
        total_seconds, total_bytes = total_seconds + seconds, total_bytes + size
        print(
            f"{row:<24} {len(here):>5} {settings.iterations:>10,} {1 / cost.iteration:>8.3g} {seconds / 3600:>7.2f}  "
            f"{amount(int(size))}",
            flush=True,
        )
    for label in dict.fromkeys(label for label, _ in phases.values()):
        hours = [seconds / 3600 for theirs, seconds in phases.values() if theirs == label]
        print(f"{label:<24} {len(hours):>5} {'':>10} {'':>8} {sum(hours):>7.2f}")
    together = total_seconds + sum(seconds for _, seconds in phases.values())
    jobs = f", {config.jobs} at a time: about {duration(together / config.jobs)}" if config.jobs > 1 else ""
    print(f"{len(cells)} cells: about {duration(together)}{jobs}; {amount(int(total_bytes))} on disk")
    if image > 0:
        print(f"scores: {1 / image:,.0f} images/s through {config.scores.extractor}, counted above")


def scorings(config: TrainConfig) -> int:
    """How often a run is scored: along the training, and at its end."""
    every = config.scores.every
    along = (config.iterations - 1) // every if every > 0 else 0
    return along + 1


def phase_runs(cell: Cell, cost: RowCost) -> dict[str, tuple[str, float]]:
    """By settings and seed, what each phase of the cell is called and how long it takes: equals are trained once."""
    found = {}
    for phase, seconds in cost.phases.items():
        run = phase_as_run(cell.config, phase, registered(GAMES[cell.game].phases[phase].game))
        key = repr(dataclasses.replace(run, out=None))
        found[key] = (f"{phase} ({run.iterations:,} iterations)", seconds * run.iterations)
    return found


def row_cost(cell: Cell, data: Dataset) -> RowCost:
    """Time the row's phases and its game for a few seconds each; everything is written to a temporary folder."""
    phases, earlier = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for phase, declared in GAMES[cell.game].phases.items():
            settings = getattr(cell.config, phase)
            if settings.iterations == 0 or not declared.needed(cell.config.game, data.shape):
                continue
            kind = registered(declared.game)
            run = phase_as_run(cell.config, phase, kind)
            phases[phase], _, earlier[phase] = timed(kind, run, data, Path(folder) / phase, {})
        seconds, size, _ = timed(cell.game, cell.config, data, Path(folder) / "run", earlier)
    return RowCost(seconds, phases, size)


def timed(
    name: str, config: TrainConfig, data: Dataset, folder: Path, earlier: dict[str, Game]
) -> tuple[float, int, Game]:
    """Seconds of an iteration, bytes of a checkpoint, and the game."""
    trainer = make_trainer(name, dataclasses.replace(config, out=None), data, folder, earlier)
    seconds = seconds_of(trainer.loop.iterate, trainer.loop.device)
    return seconds, trainer.save().stat().st_size, trainer.loop.game


def image_seconds(config: ImagesConfig, data: Dataset) -> float:
    """Seconds that the extractor takes for an image; 0 without one."""
    if config.scores.extractor == "none":
        return 0.0
    device = torch_device(config.device)
    extractor = load_extractor(config.scores.extractor, config.scores.weights, device)
    images = torch.zeros(64, *data.shape, dtype=torch.uint8)
    return seconds_of(lambda: extractor.features(images), device) / len(images)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, over about three seconds of them after two that do not count."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(WARM_UP):
        work()
    wait()
    started, calls = time.monotonic(), 0
    while time.monotonic() - started < TIMED_SECONDS:
        work()
        wait()
        calls += 1
    return (time.monotonic() - started) / calls
