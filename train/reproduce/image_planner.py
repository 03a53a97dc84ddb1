"""What a table on images will take: hours and disk, from a few iterations of each row on this machine."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch

from models.games import GAMES, Game
from train.data.config import load, load_images
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
EXPORTS = 2  # the last and the best of a run, a phase's and its copy in the cache


@dataclass(frozen=True)
class RowCost:
    """Of one row."""

    iteration: float
    """Seconds of an iteration."""
    disk: int
    """Bytes that a run leaves: checkpoints and exports."""
    phases: dict[str, tuple[float, int]]
    """Of each phase before it, by the phase's name: seconds of an iteration, bytes."""


def print_plan(cells: Sequence[Cell], config: ImagesConfig) -> None:
    """Time every row for a few seconds, then print a line a row and the sums."""
    if config.threads is not None:  # the cells' number, also of the extractor
        torch.set_num_threads(config.threads)
    data = load(config.data, torch_device(config.device))
    image = image_seconds(config, data)
    print(f"{'row':<24} {'cells':>5} {'iterations':>10} {'it/s':>8} {'hours':>7}  disk", flush=True)
    phases: dict[str, tuple[str, float, int]] = {}
    total_seconds, total_bytes = 0.0, 0
    for row in dict.fromkeys(cell.row for cell in cells):
        here = [cell for cell in cells if cell.row == row]
        cost = row_cost(here[0], data)
        settings = here[0].config
        scored = scorings(settings) * config.scores.n * image
        seconds = len(here) * (settings.iterations * cost.iteration + scored)
        size = len(here) * cost.disk
        for cell in here:
            phases |= phase_runs(cell, cost)
        total_seconds, total_bytes = total_seconds + seconds, total_bytes + size
        print(
            f"{row:<24} {len(here):>5} {settings.iterations:>10,} {1 / cost.iteration:>8.3g} {seconds / 3600:>7.2f}  "
            f"{amount(size)}",
            flush=True,
        )
    real = config.scores.reference or len(load_images(config.data))
    once = [("real images, once", real * image, 0)] if image > 0 else []
    for label, group in groupby(sorted([*phases.values(), *once]), key=itemgetter(0)):
        parts = list(group)
        seconds, size = sum(part[1] for part in parts), sum(part[2] for part in parts)
        total_seconds, total_bytes = total_seconds + seconds, total_bytes + size
        print(f"{label:<24} {len(parts):>5} {'':>10} {'':>8} {seconds / 3600:>7.2f}  {amount(size) if size else ''}")
    jobs = f", {config.jobs} at a time: about {duration(total_seconds / config.jobs)}" if config.jobs > 1 else ""
    print(f"{len(cells)} cells: about {duration(total_seconds)}{jobs}; {amount(total_bytes)} on disk")
    if image > 0:
        print(f"scores: {1 / image:,.0f} images/s through {config.scores.extractor}, counted above")


def scorings(config: TrainConfig) -> int:
    """How often a run is scored: along the training, and at its end."""
    every = config.scores.every
    along = (config.iterations - 1) // every if every > 0 else 0
    return along + 1


def phase_runs(cell: Cell, cost: RowCost) -> dict[str, tuple[str, float, int]]:
    """By settings and seed, what each phase of the cell is called, its seconds and bytes: equals are trained once."""
    found = {}
    for phase, (seconds, size) in cost.phases.items():
        run = phase_as_run(cell.config, phase, registered(GAMES[cell.game].phases[phase].game))
        key = repr(dataclasses.replace(run, out=None))
        found[key] = (f"{phase} ({run.iterations:,} iterations)", seconds * run.iterations, size)
    return found


def row_cost(cell: Cell, data: Dataset) -> RowCost:
    """Time the row's phases and its game for a few seconds each; everything is written to a temporary folder."""
    phases: dict[str, tuple[float, int]] = {}
    earlier: dict[str, Game] = {}
    with tempfile.TemporaryDirectory() as folder:
        for phase, declared in GAMES[cell.game].phases.items():
            settings = getattr(cell.config, phase)
            if settings.iterations == 0 or not declared.needed(cell.config.game, data.shape):
                continue
            kind = registered(declared.game)
            run = phase_as_run(cell.config, phase, kind)
            seconds, size, earlier[phase] = timed(kind, run, data, Path(folder) / phase, {})
            phases[phase] = seconds, size
        seconds, size, _ = timed(cell.game, cell.config, data, Path(folder) / "run", earlier)
    return RowCost(seconds, size, phases)


def timed(
    name: str, config: TrainConfig, data: Dataset, folder: Path, earlier: dict[str, Game]
) -> tuple[float, int, Game]:
    """Seconds of an iteration, bytes of its checkpoints and exports, and the game."""
    trainer = make_trainer(name, dataclasses.replace(config, out=None), data, folder, earlier)
    seconds = seconds_of(trainer.loop.iterate, trainer.loop.device)
    game = trainer.loop.game
    export = sum(value.nbytes for value in game.players.state_dict().values())
    return seconds, (config.keep + 1) * trainer.save().stat().st_size + EXPORTS * export, game


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
