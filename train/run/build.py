"""From a configuration to what a run is made of: its folder, its data, its trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.games import GAMES, Game
from models.processes import here
from train.data.config import load
from train.data.datasets import Dataset
from train.run.config import TrainConfig, save_config, torch_device
from train.run.directory import RUN_FILE, locked, new_directory
from train.run.launch import decided, in_turn
from train.run.memory import check_fits
from train.run.resume import Resume, say_jumps
from train.run.threads import choose_threads
from train.run.trainer import Trainer
from train.scores.images import Scorer

NONE: Mapping[str, Game] = {}


@contextmanager
def run_directory(config: TrainConfig, game: str, resume: Resume | None) -> Iterator[Path]:
    """The run's folder, locked within the block: the one resumed, ``config.out`` or a new runs/GAME-DATA, -2, ...

    Of several processes the first has it, and tells the others.
    """
    if not here().first:
        yield decided(None)
        return
    with _own_directory(config, game, resume) as directory:
        yield decided(directory)


@contextmanager
def _own_directory(config: TrainConfig, game: str, resume: Resume | None) -> Iterator[Path]:
    if resume is None:
        with new_directory(config.out, Path("runs") / f"{game}-{config.data.name}") as directory:
            yield directory
    else:
        with locked(resume.directory):
            yield resume.directory


def load_data(config: TrainConfig) -> Dataset:
    """The run's data set on the run's device; prints what it is."""
    with in_turn():
        data = load(config.data, torch_device(config.device), config.seed)
    kind = "samples" if data.target is None else "points"
    if kind == "points" and data.size is not None and config.batch_size > data.size:
        raise ValueError(f"train: batch_size must be at most data.limit={config.data.limit}, got {config.batch_size}")
    size = f"{kind} drawn on the fly, " if data.size is None else f"{data.size} {kind} of "
    print(f"data: {data.name}, {size}shape {list(data.shape)}, on {config.device}", flush=True)
    return data


def make_trainer(
    name: str,
    config: TrainConfig,
    data: Dataset,
    directory: Path,
    earlier: Mapping[str, Game] = NONE,
    scorer: Scorer | None = None,
) -> Trainer:
    """The game of that name, built for ``data`` from ``config.game`` with the run's seed, and its trainer.

    earlier: the games of its phases that were played, by the phase's name. scorer: of the run's samples. On the CPU it
    sets PyTorch's number of threads: ``config.threads``, or one that suits the networks.
    """
    kind = GAMES[name]

    def build(game_config: Any) -> Game:
        return kind.build_on(game_config, data.shape, earlier)

    check_fits(build, config.game, data.shape, config.batch_size, torch_device(config.device), ema=config.ema > 0)
    torch.manual_seed(config.seed)
    game = build(config.game)
    _check_shares(name, game, config)
    threads = config.threads or choose_threads(game, config.batch_size)
    torch.set_num_threads(threads)
    return Trainer(game, data, replace(config, threads=threads), directory, name, scorer)


def _check_shares(name: str, game: Game, config: TrainConfig) -> None:
    """ValueError unless every process has as many samples of a batch, and enough of them for batch norm."""
    size, batch = here().size, config.batch_size
    if batch % size:
        raise ValueError(f"train: the batch_size of {name} must be a multiple of the {size} processes, got {batch}")
    own = batch if config.sync_batch_norm else batch // size
    if own == 1 and any(isinstance(module, nn.BatchNorm1d) for module in game.modules()):
        each = "" if size == 1 else f" in each of the {size} processes, or sync_batch_norm on,"
        raise ValueError(
            f"train: batch_size must be at least 2{each} for {name}, whose networks have batch norm, got 1"
        )


def load_run(trainer: Trainer, resume: Resume | None, prefix: str = "") -> None:
    """Load the newest checkpoint if a run is resumed; ValueError if it has more iterations than are asked for.

    prefix: of the names of a phase's settings in messages.
    """
    if resume is None:
        return
    trainer.resume(resume.other_data)
    done, asked = trainer.loop.step, trainer.config.iterations
    if done > asked:
        raise ValueError(f"resume: {prefix}iterations must be at least the {done} that are done, got {asked}")
    say_jumps(trainer.loop, resume.stored.iterations)


def open_run(directory: Path, name: str, config: TrainConfig) -> None:
    """Write config.json: from here on the run exists and can be resumed. The first process does, and others nothing."""
    if not here().first:
        return
    if not (directory / RUN_FILE).exists():
        print(f"{name}: run directory {directory}", flush=True)
    save_config(directory, name, config)
