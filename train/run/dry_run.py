"""``--dry-run``: everything that a run is made of, built and described, one iteration of it played, nothing written."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import torch

from models.games import GAMES, Game
from train.data.datasets import Dataset
from train.errors import amount
from train.run.build import load_data, make_trainer
from train.run.config import TrainConfig, phase_as_run, torch_device
from train.run.log import duration
from train.run.loop import Loop
from train.run.memory import available_bytes, batch_bytes, game_bytes
from train.run.phases import registered
from train.run.scoring import make_scorer
from train.run.trainer import Trainer
from train.run.wandb_log import check_wandb

PLAYED = 3  # iterations, of which the last is timed


def dry_run(name: str, config: TrainConfig) -> list[str]:
    """What ``python -m train NAME`` would do with ``config``, in lines; whatever it could not do is an error here, too.

    Data are decoded into the cache folder, and their features for scores are kept there, as for the run. Phases are
    built and not trained.
    """
    check_wandb(config.wandb)
    data = load_data(config)
    make_scorer(config, data)
    earlier: dict[str, Game] = {}
    lines = [f"{name} on {data.name}, samples {_shape(data.shape)}"]
    for phase, declared in GAMES[name].phases.items():
        settings = phase_as_run(config, phase, registered(declared.game))
        if getattr(config, phase).iterations == 0 or not declared.needed(config.game, data.shape):
            continue
        trainer = make_trainer(registered(declared.game), settings, data.with_seed(settings.seed), Path())
        earlier[phase] = trainer.loop.game
        lines += [f"first the phase {phase}, unless it is kept from an earlier run", *_described(trainer, data)]
    trainer = make_trainer(name, config, data, Path(), earlier)
    lines += ["then the game" if earlier else "the game", *_described(trainer, data), *_plan(name, config, trainer)]
    return [*lines, "no run was written; the same command without --dry-run starts the run"]


def _described(trainer: Trainer, data: Dataset) -> list[str]:
    """Players, shapes, memory and time of one game."""
    loop, config = trainer.loop, trainer.config
    counts = {player: sum(p.numel() for p in module.parameters()) for player, module in loop.game.players.items()}
    turns = {turn.player: turn for turn in loop.game.order}
    width, digits = max(map(len, counts)), len(f"{max(counts.values()):,}")
    lines = []
    for player, count in counts.items():
        rate, kind = loop.options[player]["lr"], type(loop.optimizers[player]).__name__
        steps = turns[player].steps
        times = "once an iteration" if steps == 1 else f"{steps} times an iteration"
        lines.append(f"  {player:<{width}}  {count:>{digits},} parameters, {kind} with lr {rate:g}, {times}")
    real, noise = loop.source.draw(config.batch_size, loop.processes.rows(config.batch_size))
    with loop.sampling() as game:
        samples = game.sample(noise)
    shapes = {"real": real, "noise": noise, "samples": samples}
    lines.append("  " + ", ".join(f"{name} {_shape(tuple(value.shape))}" for name, value in shapes.items()))
    seconds = _seconds(loop)
    whole = duration(seconds * config.iterations)
    needed = game_bytes(loop.game, ema=config.ema > 0)
    batch = batch_bytes(copy.deepcopy(loop.game).to("meta"), data.shape, config.batch_size)
    there = amount(available_bytes(loop.device))
    lines.append(
        f"  memory: at least {amount(needed)} for weights, gradients and optimizers, {amount(batch)} for a batch; "
        f"{there} are available on {loop.device}"
    )
    each = f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
    lines.append(f"  time: an iteration takes about {each}, {config.iterations:,} of them {whole}")
    return lines


def _seconds(loop: Loop) -> float:
    for _ in range(PLAYED):
        start = time.perf_counter()
        loop.iterate()
        if loop.device.type == "cuda":
            torch.cuda.synchronize(loop.device)
    return time.perf_counter() - start


def _plan(name: str, config: TrainConfig, trainer: Trainer) -> list[str]:
    """What the run would write, and where."""
    data, drawn = trainer.source.data, config.iterations * config.batch_size * trainer.loop.game.batches
    seen = "" if data.size is None else f", in which each sample is seen {drawn / data.size:,.1f} times"
    every = {
        "log": (config.log_every, "a row of losses"),
        "sample": (config.sample_every, "a picture of samples" if len(data.shape) == 3 else "a picture and metrics"),
        "checkpoint": (config.checkpoint_every, f"a checkpoint, of which {config.keep} are kept"),
    }
    lines = [f"plan: {config.iterations:,} iterations with batches of {config.batch_size}{seen}"]
    for interval, what in every.values():
        lines.append(f"  every {interval:,} iterations {what}: {math.ceil(config.iterations / interval):,} times")
    scores = config.scores
    if scores.extractor != "none":
        often = f"every {scores.every:,} iterations and " if scores.every else ""
        lines.append(f"  {often}at the end scores of {scores.n:,} samples by {scores.extractor}")
    where = config.out or f"runs/{name}-{config.data.name}, or the first of -2, -3, ... that is free"
    return [*lines, f"  seed {config.seed}, on {torch_device(config.device)}, in {where}"]


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
