"""WGAN-GP (Gulrajani et al. 2017), the baseline that POT-GAN extends: Eq. 12 of Avraham et al. 2019."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.games.game import Game, Loss, Turn
from models.networks import NetworkConfig, make_critic, make_generator


@dataclass(frozen=True)
class WganGpConfig:
    """WGAN-GP."""

    networks: NetworkConfig = field(default_factory=NetworkConfig)
    """Generator and critic."""
    critic_steps: int = 5
    """Critic steps per generator step. Algorithm 2 shows one; its WGAN-GP baseline usually takes five. [open]"""
    gradient_penalty_weight: float = 10.0
    """lambda_GP of Eq. 12. [stated]"""

    def __post_init__(self) -> None:
        if self.critic_steps < 1:
            raise ValueError(f"{type(self).__name__}: critic_steps must be at least 1, got {self.critic_steps}")
        if self.gradient_penalty_weight < 0:
            raise ValueError(
                f"{type(self).__name__}: gradient_penalty_weight must not be negative, "
                f"got {self.gradient_penalty_weight}"
            )


class WganGp(Game):
    """Players ``critic`` (D) and ``generator`` (G); noise is N(0, I) [N, noise_dim]."""

    Config: ClassVar[Any] = WganGpConfig

    def __init__(self, config: WganGpConfig, generator: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.config: Any = config
        self.players = nn.ModuleDict({"critic": critic, "generator": generator})
        self.order = (Turn("critic", config.critic_steps), Turn("generator"))

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...]) -> WganGp:
        """The game for samples of ``shape``: (D,) for points or (C, H, W) for images in [-1, 1]."""
        return cls(config, make_generator(config.networks, shape), make_critic(config.networks, shape))

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        device = next(self.players["generator"].parameters()).device
        return torch.randn(n, self.config.networks.noise_dim, generator=generator, device=device)

    def sample(self, noise: Tensor) -> Tensor:
        return self.players["generator"](noise)

    def loss(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        if player == "critic":
            return self.critic_loss(real, noise)
        if player == "generator":
            return self.generator_loss(real, noise)
        raise ValueError(f"{type(self).__name__}: player must be one of {', '.join(self.players)}, got {player!r}")

    def critic_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Eq. 12: mean D(x_g) - mean D(x_r) + lambda_GP E[(|grad D(x^)| - 1)^2]."""
        with torch.no_grad():
            fake = self.sample(noise)
        critic = self.players["critic"]
        distance = critic(real).mean() - critic(fake).mean()
        penalty = gradient_penalty(critic, real, fake)
        value = -distance + self.config.gradient_penalty_weight * penalty
        return Loss(value, {"wasserstein": distance.detach(), "penalty": penalty.detach()})

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """The first term of Eq. 13: -mean D(G(noise))."""
        score = self.players["critic"](self.sample(noise)).mean()
        return Loss(-score, {"score": score.detach()})


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(|grad D(x^)|_2 - 1)^2], two-sided (Eq. 12), x^ uniform on the segment between real[i] and fake[i]."""
    share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    between = torch.lerp(fake, real, share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()
