"""A game and a data set small enough to train in a blink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.games import Game, Loss, Turn
from train.data.config import DataConfig, load
from train.run.config import TrainConfig
from train.run.trainer import Trainer


@dataclass(frozen=True)
class TinyConfig:
    width: int = 4


class TinyGame(Game):
    """Two players with batch norm and dropout, for buffers and the global random state; it records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.config = TinyConfig()
        self.players = nn.ModuleDict({"critic": nn.Linear(2, 1), "generator": make_generator()})
        self.order = (Turn("critic", 2), Turn("generator", 1, fresh=False))
        self.calls: list[tuple[str, Tensor, Tensor]] = []
        self.poison_at: int | None = None

    def loss(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        fake = self.sample(noise)
        if player == "critic":
            fake = fake.detach()
            value = (self.players["critic"](fake).mean() - self.players["critic"](real).mean()).square()
        else:
            value = -self.players["critic"](fake).mean()
        if self.poison_at is not None and len(self.calls) > self.poison_at:
            value = value * float("nan")
        return Loss(value, {"size": fake.detach().square().mean()})

    def step(self, player: str, real: Tensor, noise: Tensor, optimizer: torch.optim.Optimizer) -> Loss:
        self.calls.append((player, real, noise))
        return super().step(player, real, noise, optimizer)

    def sample(self, noise: Tensor) -> Tensor:
        torch.rand(1)  # a game may use the global random state
        return self.players["generator"](noise)

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 3, generator=generator)

    def optimizer_options(self, player: str) -> dict[str, Any]:
        return {"lr": 0.5} if player == "critic" else {}


def make_generator() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 2))


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch) -> None:
    """Decoded images go to a folder of the test's own, whatever the machine's user has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache-home")))


@pytest.fixture
def make_trainer(tmp_path):
    """A function: settings -> a trainer of TinyGame on the ring, in its own folder unless one is named."""

    def make(folder: str = "run", **settings: Any) -> Trainer:
        values = {"iterations": 10, "batch_size": 8, "lr": 0.01, "ema": 0.9, **settings}
        config = TrainConfig(**values)
        torch.manual_seed(config.seed)
        data = load(DataConfig("ring8"), "cpu", config.seed)
        return Trainer(TinyGame(), data, config, tmp_path / folder, "tiny")

    return make
