"""The order of play, for one run or for many side by side. It knows no game by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.games import GAMES, Game, Loss
from models.networks.batch_norm import over_processes, statistics
from models.processes import here
from models.stack import stack
from train.data.config import load
from train.run.config import TrainConfig, torch_device
from train.run.ema import Ema
from train.run.recorded import recorded
from train.run.schedule import factor
from train.run.source import Batches, Source, StackedSource

Watch = Callable[[str, Loss], None]


class Loop:
    """A game, the source of its batches, an optimizer for each player, and the average of the weights for samples.

    The optimizers are of the game's class, with the run's settings overridden by ``game.optimizer_options(player)``.
    ``average`` is None if ``config.ema`` is 0. ``processes`` play together, each on its rows of a batch. Several runs
    at once are the same loop with a stacked game and a stacked source (``side_by_side``).
    """

    def __init__(self, game: Game, source: Batches, config: TrainConfig) -> None:
        self.device = torch_device(config.device)
        self.game, self.source, self.config = game.to(self.device).train(), source, config
        self.processes = game.processes = here()
        if config.sync_batch_norm and self.processes.size > 1:
            over_processes(game, self.processes)
        self._own = self.processes.rows(config.batch_size)
        self._statistics = statistics(game) if self.processes.size > 1 and not config.sync_batch_norm else []
        self.step = 0
        self.options = {player: optimizer_options(game, player, config) for player in game.players}
        self.optimizers = {
            player: game.optimizer(module.parameters(), **self.options[player])
            for player, module in game.players.items()
        }
        if self.device.type == "cpu" and self.processes.size == 1:
            game.recorded = recorded(game, config.compile)
        self.average = Ema(game.sampling_players, config.ema) if config.ema > 0 else None

    def iterate(self, watch: Watch | None = None) -> None:
        """One round of the game: every turn in order, each step on a fresh batch unless the turn says otherwise.

        watch: called after each step with the player and its loss, without the graph.
        """
        done = self.step / self.config.iterations
        config = self.config
        self._set_learning_rates(factor(config.lr_decay, config.lr_warmup, self.step, config.iterations))
        self.game.set_progress(done)
        batch: tuple[Tensor, Tensor] | None = None
        for turn in self.game.order:
            for _ in range(turn.steps):
                if batch is None or turn.fresh:
                    batch = self.source.draw(self.config.batch_size, self._own)
                loss = self.game.step(turn.player, *batch, self.optimizers[turn.player])
                if watch is not None:
                    watch(turn.player, Loss(loss.value.detach(), loss.terms))
        self.processes.average(self._statistics)  # so that any process may sample, at any time
        if self.average is not None:
            self.average.update()
        self.step += 1

    @contextmanager
    def sampling(self) -> Iterator[Game]:
        """The game in eval mode with averaged weights and without gradients; random states are as before after it."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            self.game.eval()
            try:
                if self.average is None:
                    yield self.game
                else:
                    with self.average.applied():
                        yield self.game
            finally:
                self.game.train()

    def samples(self, n: int) -> Tensor:
        """n samples [n, ...] of the averaged game, from the same noise at each call; [R, n, ...] of R runs."""
        with self.sampling() as game:
            return game.sample(self.source.fixed_noise(n))

    def _set_learning_rates(self, factor: float) -> None:
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.options[player]["lr"] * factor


def optimizer_options(game: Game, player: str, config: TrainConfig) -> dict[str, Any]:
    """What ``player``'s optimizer is made with."""
    adam = {"betas": config.betas, "fused": True} if issubclass(game.optimizer, torch.optim.Adam) else {}
    return {"lr": config.lr, **adam, **game.optimizer_options(player)}


def side_by_side(name: str, config: TrainConfig, seeds: Sequence[int]) -> Loop:
    """A loop that plays R runs of the game ``name`` at once, one for each seed: tensors have a leading dimension R.

    Run r has the weights, data and noise of ``python -m train NAME --seed seeds[r]``. What is drawn while playing (the
    penalty's shares, a forest's thresholds) comes from one stream for all. A run that diverges stays at NaN and leaves
    the others alone. ValueError for a game that ``models.stack`` cannot stack: images, SNGAN.
    """
    device = torch_device(config.device)
    games, sets = [], []
    for seed in seeds:
        sets.append(load(config.data, device, seed))
        torch.manual_seed(seed)
        games.append(GAMES[name].build(config.game, sets[-1].shape))
        if len(games) == 1:
            stack(games)  # refuses before any more is loaded
    game = stack(games)
    sources = [Source(data, game.draw_noise, seed, device) for data, seed in zip(sets, seeds, strict=True)]
    return Loop(game, StackedSource(sources), config)
