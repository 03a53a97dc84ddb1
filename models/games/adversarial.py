"""A generator against one opponent: what GAN, WGAN and their kin share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.config import check_fields
from models.games.game import Game, Turn, full
from models.networks import NetworkConfig, make_critic, make_generator


@dataclass(frozen=True)
class AdversarialConfig:
    """Networks of a generator and its opponent."""

    networks: NetworkConfig = field(default_factory=NetworkConfig)
    """Generator and its opponent."""

    def __post_init__(self) -> None:
        check_fields(self)


class Adversarial(Game):
    """Player ``generator`` (G) and ``opponent`` (a "critic" or "discriminator", D); noise is N(0, I) [N, noise_dim]."""

    opponent: ClassVar[str] = "critic"

    def __init__(self, config: Any, generator: nn.Module, opponent: nn.Module, opponent_steps: int = 1) -> None:
        super().__init__()
        self.config = config
        self.players = nn.ModuleDict({self.opponent: opponent, "generator": generator})
        self.order = (Turn(self.opponent, opponent_steps), Turn("generator"))
        self._mixes = any(isinstance(module, _BatchNorm) for module in opponent.modules())

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...]) -> Adversarial:
        """The game for samples of ``shape``: (D,) for points or (C, H, W) for images in [-1, 1]."""
        return cls(config, make_generator(config.networks, shape), make_critic(config.networks, shape))

    def sample(self, noise: Tensor) -> Tensor:
        return self.players["generator"](noise)

    def score(self, *inputs: Tensor) -> Tensor:
        """The opponent's scores [N] of samples, in full precision."""
        return full(self.players[self.opponent](*inputs))

    def scores(self, real: Tensor, fake: Tensor, runs: int = 0) -> tuple[Tensor, Tensor]:
        """The opponent's scores [N] of both, in one pass, which is faster, unless batch norm would mix them.

        runs: leading dimensions before N.
        """
        if self._mixes:
            return self.score(real), self.score(fake)
        on_real, on_fake = self.score(torch.cat([real, fake], runs)).split((real.shape[runs], fake.shape[runs]), -1)
        return on_real, on_fake

    @torch.no_grad()
    def fake(self, noise: Tensor) -> Tensor:
        """Samples for the opponent's turn: no gradient reaches the generator."""
        return self.sample(noise)
