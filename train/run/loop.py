"""Rounds of a game: the trainer plays turns, and knows no game by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models.games import Game, Loss, Turn
from train.data.datasets import stream_seed
from train.run.config import TrainConfig, torch_device
from train.run.ema import Ema

NOISE_STREAM = 2**32  # past the epochs that number the streams of an image set


class Rounds(ABC):
    """The players of ``game``, their optimizers and the average of the weights that make samples.

    Each player has an optimizer of the game's class with the run's settings, overridden by the game's
    ``optimizer_options(player)``. One iteration plays every turn of ``game.order`` and then updates the average.
    """

    def __init__(self, game: Game, config: TrainConfig) -> None:
        self.device = torch_device(config.device)
        self.game, self.config = game.to(self.device).train(), config
        self.step = 0
        self.options = {player: self._optimizer_options(player) for player in game.players}
        self.optimizers = {
            player: game.optimizer(module.parameters(), **self.options[player])
            for player, module in game.players.items()
        }
        self.ema = Ema(self._sampling_players(), config.ema) if config.ema > 0 else None

    @abstractmethod
    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """A fresh batch: n real samples and the noise for n generated ones."""

    @abstractmethod
    def watch(self, player: str, loss: Loss) -> None:
        """Called after each step with its loss, without the graph."""

    def iterate(self) -> None:
        """One round of the game: every turn in order, each step on a fresh batch unless the turn says otherwise."""
        done = self.step / self.config.iterations
        self._set_learning_rates(1 - done if self.config.lr_decay == "linear" else 1.0)
        self.game.set_progress(done)
        batch: tuple[Tensor, Tensor] | None = None
        for turn in self.game.order:
            batch = self._play(turn, batch)
        if self.ema is not None:
            self.ema.update()
        self.step += 1

    @contextmanager
    def sampling(self) -> Iterator[Game]:
        """The game in eval mode with averaged weights and without gradients; random states are as before after it."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            self.game.eval()
            try:
                if self.ema is None:
                    yield self.game
                else:
                    with self.ema.applied():
                        yield self.game
            finally:
                self.game.train()

    def _sampling_players(self) -> nn.Module:
        return self.game.players["generator"] if "generator" in self.game.players else self.game.players  # noqa: SIM401

    def _optimizer_options(self, player: str) -> dict[str, Any]:
        adam = {"betas": self.config.betas, "fused": True} if issubclass(self.game.optimizer, torch.optim.Adam) else {}
        return {"lr": self.config.lr, **adam, **self.game.optimizer_options(player)}

    def _set_learning_rates(self, factor: float) -> None:
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.options[player]["lr"] * factor

    def _play(self, turn: Turn, batch: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
        for _ in range(turn.steps):
            if batch is None or turn.fresh:
                batch = self.draw(self.config.batch_size)
            loss = self.game.step(turn.player, *batch, self.optimizers[turn.player])
            self.watch(turn.player, Loss(loss.value.detach(), loss.terms))
        return batch


def noise_generator(seed: int, device: torch.device) -> torch.Generator:
    """The random stream of a run's noise, apart from those of its weights and its data."""
    return torch.Generator(device).manual_seed(stream_seed(seed, NOISE_STREAM))
