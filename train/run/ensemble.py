"""Many runs of one game at once, one seed each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.games import GAMES, Loss
from models.stack import stack
from train.data.datasets import Dataset, load
from train.run.config import TrainConfig, torch_device
from train.run.loop import Rounds, noise_generator


class Ensemble(Rounds):
    """R runs of the game ``name`` with ``config``, side by side: every tensor has a leading dimension of runs.

    Run r has the weights, data and noise of ``python -m train NAME --seed seeds[r]``. What is drawn while playing (the
    penalty's shares, a forest's thresholds) comes from one stream for all. A run that diverges stays at NaN and leaves
    the others alone. ValueError for a game that ``models.stack`` cannot stack: images, SNGAN.
    """

    def __init__(self, name: str, config: TrainConfig, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        device, games = torch_device(config.device), []
        self.data: list[Dataset] = []
        for seed in self.seeds:
            self.data.append(load(config.data, device, seed))
            torch.manual_seed(seed)
            games.append(GAMES[name].build(config.game, self.data[-1].shape))  # type: ignore[attr-defined]
            if len(games) == 1:
                stack(games)  # refuses before any more is loaded
        super().__init__(stack(games), config)
        self.noise = [noise_generator(seed, device) for seed in self.seeds]
        self.losses: dict[str, Loss] = {}

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        real = torch.stack([data.batch(n) for data in self.data])
        return real, torch.stack([self.game.draw_noise(n, generator) for generator in self.noise])

    def watch(self, player: str, loss: Loss) -> None:
        self.losses[player] = loss

    def samples(self, n: int) -> Tensor:
        """n samples of each run [R, n, ...], of the averaged game, the same noise at each call."""
        generators = [torch.Generator(self.device).manual_seed((seed + 1) % 2**64) for seed in self.seeds]
        with self.sampling() as game:
            return game.sample(torch.stack([game.draw_noise(n, generator) for generator in generators]))
