"""From a configuration to a run: directory, data, game, trainer."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from models.games import GAMES, Game
from train.data.datasets import Dataset, PointSet, load
from train.run.config import TrainConfig, save_config, torch_device
from train.run.directory import RUN_FILE, locked, new_directory
from train.run.memory import check_fits
from train.run.resume import Resume, check_changes
from train.run.threads import choose_threads
from train.run.trainer import Trainer


@contextmanager
def run_directory(config: TrainConfig, game: str, resume: Resume | None) -> Iterator[Path]:
    """The run's folder, locked within the block: the one resumed, ``config.out`` or a new runs/GAME-DATA, -2, ..."""
    if resume is None:
        with new_directory(config.out, Path("runs") / f"{game}-{config.data.name}") as directory:
            yield directory
    else:
        with locked(resume.directory):
            yield resume.directory


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
    """The game of that name, built for ``data`` from ``config.game`` with the run's seed, and its trainer.

    On the CPU it sets PyTorch's number of threads: ``config.threads``, or one that suits the networks.
    """
    kind, device = GAMES[name], torch_device(config.device)
    check_fits(kind, config.game, data.shape, config.batch_size, device, ema=config.ema > 0)  # type: ignore[attr-defined]
    torch.manual_seed(config.seed)
    game: Game = GAMES[name].build(config.game, data.shape)  # type: ignore[attr-defined]
    if config.batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in game.modules()):
        raise ValueError(f"train: batch_size must be at least 2 for {name}, whose networks have batch norm, got 1")
    threads = config.threads or choose_threads(game, config.batch_size)
    torch.set_num_threads(threads)
    return Trainer(game, data, replace(config, threads=threads), directory, name)


def load_run(trainer: Trainer, resume: Resume | None, prefix: str = "") -> None:
    """Load the newest checkpoint if a run is resumed; ValueError if it has more iterations than are asked for.

    prefix: of the names of a phase's settings in messages.
    """
    if resume is None:
        return
    trainer.resume(resume.other_data)
    if trainer.step > trainer.config.iterations:
        raise ValueError(
            f"resume: {prefix}iterations must be at least the {trainer.step} that are done, "
            f"got {trainer.config.iterations}"
        )
    trainer.say_jumps(resume.stored.iterations)


def open_run(directory: Path, name: str, config: TrainConfig) -> None:
    """Write config.json: from here on the run exists and can be resumed."""
    if not (directory / RUN_FILE).exists():
        print(f"{name}: run directory {directory}", flush=True)
    save_config(directory, name, config)


def begin(trainer: Trainer, config: TrainConfig, resume: Resume | None) -> bool:
    """Load a resumed run, then write its config.json, with the number of threads; whether anything is left to do.

    Nothing on disk changes before the checkpoint is loaded, nor if the run has ended already.
    """
    load_run(trainer, resume)
    if resume is not None and trainer.ended():
        print(f"{trainer.label}: all {trainer.step} iterations are done; --iterations N asks for more", flush=True)
        return False
    open_run(trainer.directory, trainer.label, replace(config, threads=trainer.config.threads))
    return True


def play(name: str, config: TrainConfig, resume: Resume | None = None) -> dict[str, float]:
    """A whole run of one game; the final metrics, none if the run had ended before."""
    if resume is not None:
        check_changes(resume, config)
    with run_directory(config, name, resume) as directory:
        trainer = make_trainer(name, config, load_data(config), directory)
        if not begin(trainer, config, resume):
            return {}
        return trainer.run(f"python -m train {name} --resume {shlex.quote(str(directory))}")
