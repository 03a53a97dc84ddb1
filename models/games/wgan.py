"""WGAN (Arjovsky et al. 2017): the critic is kept Lipschitz by clipping its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.config import check_range
from models.games.adversarial import Adversarial, AdversarialConfig
from models.games.game import Loss


@dataclass(frozen=True)
class CriticConfig(AdversarialConfig):
    """Networks and the critic's share of the steps."""

    critic_steps: int = 5
    """Critic steps per generator step. WGAN and WGAN-GP take five [stated]; POT-GAN's Algorithm 2 shows one [open]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "critic_steps", least=1)


@dataclass(frozen=True)
class WganConfig(CriticConfig):
    """WGAN."""

    clip: float = 0.01
    """c: the critic's parameters are kept in [-c, c]. [stated]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "clip", above=0)


class WassersteinGame(Adversarial):
    """Players ``critic`` (D) and ``generator`` (G) for the dual form of W1 (Arjovsky et al.'s Eq. 2 and 3)."""

    notes: ClassVar[Mapping[str, str]] = {
        "wasserstein": "Mean critic score of real samples minus that of generated ones, an estimate of their distance.",
        "score": "Mean critic score of generated samples.",
    }

    def __init__(self, config: Any, generator: nn.Module, critic: nn.Module) -> None:
        super().__init__(config, generator, critic, config.critic_steps)

    def critic_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Eq. 3, negated: E D(G(z)) - E D(x); the maximum of its negative over 1-Lipschitz D is W1."""
        on_real, on_fake = self.scores(real, self.fake(noise), noise.dim() - 2)
        distance = on_real.mean(-1) - on_fake.mean(-1)
        return Loss(-distance, {"wasserstein": distance.detach()})

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """The part of Eq. 3 that G moves: -E D(G(z))."""
        score = self.score(self.sample(noise)).mean(-1)
        return Loss(-score, {"score": score.detach()})


class Wgan(WassersteinGame):
    """WGAN (Arjovsky et al. 2017, Algorithm 1): RMSprop, and the critic's weights clipped after each step."""

    Config: ClassVar[Any] = WganConfig
    fixed = True
    optimizer = torch.optim.RMSprop
    defaults: ClassVar[Any] = {"lr": 5e-5}

    def step(self, player: str, real: Tensor, noise: Tensor, optimizer: torch.optim.Optimizer) -> Loss:
        loss = super().step(player, real, noise, optimizer)
        if player == "critic":
            with torch.no_grad():
                for parameter in self.players["critic"].parameters():
                    parameter.clamp_(-self.config.clip, self.config.clip)
        return loss
