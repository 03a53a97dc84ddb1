"""The order of play, for one run or for many side by side. It knows no game by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.games import GAMES, Game, Loss
from models.networks.batch_norm import over_processes, statistics
from models.networks.network import has_convolutions
from models.processes import here
from models.stack import stack
from train.data.config import load
from train.run.config import TrainConfig, torch_device
from train.run.ema import Ema
from train.run.graphs import Graphs
from train.run.recorded import is_fixed, recorded
from train.run.schedule import factor
from train.run.source import Batches, Source, StackedSource

Watch = Callable[[str, Loss], None]
Step = Callable[[str, Tensor, Tensor], Loss]


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
        game.autocast = torch.bfloat16 if config.precision == "bf16" else None
        if config.sync_batch_norm and self.processes.size > 1:
            over_processes(game, self.processes)
        self._own = self.processes.rows(config.batch_size)
        self._statistics = statistics(game) if self.processes.size > 1 and not config.sync_batch_norm else []
        self.step = 0
        self._channels_last = config.channels_last and has_convolutions(game)
        if self._channels_last:
            game.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.options = {player: optimizer_options(game, player, config) for player in game.players}
        self.optimizers = {player: self._make_optimizer(player) for player in game.players}
        self._step: Step = self._eager_step
        small = not has_convolutions(game)  # beside convolutions, what recording saves is nothing
        if config.compile and (self.device.type != "cpu" or self.processes.size > 1):
            raise ValueError("train: compile is for one process on a CPU: elsewhere steps are not recorded")
        if self.device.type == "cpu" and self.processes.size == 1 and (small or config.compile):
            game.recorded = recorded(game, config.compile)
        elif self._graphed:
            self._step = Graphs(game, self.optimizers).step
        game.keeps_batch = not game.recorded and not self._graphed
        self.average = Ema(game.sampling_players, config.ema) if config.ema > 0 else None

    def iterate(self, watch: Watch | None = None) -> None:
        """One round of the game: every turn in order, each step on a fresh batch unless the turn says otherwise.

        watch: called after each step with the player and its loss, without the graph.
        """
        config = self.config
        done = self.step / config.iterations
        self._set_learning_rates(factor(config.lr_decay, config.lr_warmup, self.step, config.iterations))
        self.game.set_progress(done)
        batch: tuple[Tensor, Tensor] | None = None
        for turn in self.game.order:
            for _ in range(turn.steps):
                if batch is None or turn.fresh:
                    batch = self._draw()
                loss = self._step(turn.player, *batch)
                if watch is not None:
                    watch(turn.player, Loss(loss.value.detach(), loss.terms))
        self.processes.average(self._statistics)  # so that any process may sample, at any time
        if self.average is not None:
            self.average.update()
        self.step += 1

    def _draw(self) -> tuple[Tensor, Tensor]:
        real, noise = self.source.draw(self.config.batch_size, self._own)
        return (real.contiguous(memory_format=torch.channels_last) if self._channels_last else real), noise

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

    @property
    def _graphed(self) -> bool:
        """Whether steps become CUDA graphs."""
        one_gpu = self.device.type == "cuda" and self.processes.size == 1
        return self.config.cuda_graphs and one_gpu and is_fixed(self.game)

    def _eager_step(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        return self.game.step(player, real, noise, self.optimizers[player])

    def _make_optimizer(self, player: str) -> torch.optim.Optimizer:
        options = self.options[player]
        if self._graphed and player not in self.game.eager:  # a graph reads the rate anew at each step
            options = {**options, "lr": torch.tensor(options["lr"], device=self.device), "capturable": True}
        return self.game.optimizer(self.game.players[player].parameters(), **options)

    def _set_learning_rates(self, factor: float) -> None:
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                set_rate(group, self.options[player]["lr"] * factor)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of an optimizer's parameter group: a number, or a tensor that a CUDA graph reads."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def optimizer_options(game: Game, player: str, config: TrainConfig) -> dict[str, Any]:
    """What ``player``'s optimizer is made with, its learning rate a number."""
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
