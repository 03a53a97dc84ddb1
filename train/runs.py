"""From a configuration to a run: directory, data, game, trainer."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from models.games import GAMES, Game
from train.config import RUN_FILE, TrainConfig, save_config, torch_device
from train.data import Dataset, PointSet, load
from train.trainer import Trainer


def run_directory(config: TrainConfig, game: str, resume: Path | None) -> Path:
    """Where the run lives: the one resumed, ``config.out``, or the first free of runs/GAME-DATA, -2, -3, ..."""
    if resume is not None:
        return resume
    if config.out is not None:
        directory = Path(config.out)
        if (directory / RUN_FILE).exists():
            raise ValueError(f"train: out: {directory} holds a run; --resume {directory} continues it")
        return directory
    return free_directory(Path("runs") / f"{game}-{config.data.name}")


def free_directory(directory: Path) -> Path:
    """``directory``, or the first of directory-2, directory-3, ... that does not exist."""
    number, free = 2, directory
    while free.exists():
        free = directory.with_name(f"{directory.name}-{number}")
        number += 1
    return free


def load_data(config: TrainConfig) -> Dataset:
    """The run's data set on the run's device; prints what it is."""
    data = load(config.data, torch_device(config.device), config.seed)
    if isinstance(data, PointSet):
        if data.points is not None and config.batch_size > len(data.points):
            raise ValueError(
                f"train: batch_size must be at most data.limit={config.data.limit}, got {config.batch_size}"
            )
        size = "points drawn on the fly, " if data.points is None else f"{len(data.points)} points of "
    else:
        size = f"{len(data)} samples of "
    print(f"data: {data.name}, {size}shape {list(data.shape)}, on {config.device}", flush=True)
    return data


def make_trainer(name: str, config: TrainConfig, data: Dataset, directory: Path) -> Trainer:
    """The game of that name, built for ``data`` from ``config.game`` with the run's seed, and its trainer."""
    torch.manual_seed(config.seed)
    game: Game = GAMES[name].build(config.game, data.shape)  # type: ignore[attr-defined]
    return Trainer(game, data, config, directory, name)


def open_run(directory: Path, name: str, config: TrainConfig) -> None:
    """Write config.json: from here on the run exists and can be resumed."""
    if not (directory / RUN_FILE).exists():
        print(f"{name}: run directory {directory}", flush=True)
    save_config(directory, name, config)


def play(name: str, config: TrainConfig, resume: Path | None = None) -> dict[str, float]:
    """A whole run of one game; the final metrics."""
    directory = run_directory(config, name, resume)
    trainer = make_trainer(name, config, load_data(config), directory)
    open_run(directory, name, config)
    return trainer.run(f"python -m train {name} --resume {shlex.quote(str(directory))}")
