"""WGAN-GP (Gulrajani et al. 2017), the baseline that POT-GAN extends: Eq. 12 of Avraham et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.config import check_range
from models.games.game import Loss, full
from models.games.wgan import CriticConfig, WassersteinGame
from models.processes import ALONE, Processes


@dataclass(frozen=True)
class WganGpConfig(CriticConfig):
    """WGAN-GP."""

    gradient_penalty_weight: float = 10.0
    """lambda_GP of Eq. 12. [stated]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "gradient_penalty_weight", least=0)


class WganGp(WassersteinGame):
    """WGAN-GP (Gulrajani et al. 2017): a penalty on the critic's gradient, POT-GAN's baseline.

    Players ``critic`` (D) and ``generator`` (G).
    """

    Config: ClassVar[Any] = WganGpConfig
    fixed = True
    notes: ClassVar[Mapping[str, str]] = {
        **WassersteinGame.notes,
        "penalty": "Mean of (|gradient of the critic| - 1)^2 between real and generated samples (Eq. 12).",
    }

    def critic_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Eq. 12: mean D(x_g) - mean D(x_r) + lambda_GP E[(|grad D(x^)| - 1)^2]."""
        fake = self.fake(noise)
        on_real, on_fake = self.scores(real, fake, noise.dim() - 2)
        distance = on_real.mean(-1) - on_fake.mean(-1)
        penalty = gradient_penalty(self.players["critic"], real, fake, on_real.dim(), self.processes)
        value = -distance + self.config.gradient_penalty_weight * penalty
        return Loss(value, {"wasserstein": distance.detach(), "penalty": penalty.detach()})


def gradient_penalty(
    critic: nn.Module, real: Tensor, fake: Tensor, batch: int = 1, processes: Processes = ALONE
) -> Tensor:
    """E[(|grad D(x^)|_2 - 1)^2], two-sided (Eq. 12), x^ uniform on the segment between real[i] and fake[i].

    batch: how many leading dimensions count samples: 1 for [N, ...], 2 for runs side by side [R, N, ...]. The mean is
    over the last of them. processes: those that share the batch. Under autocast the critic plays in float32 here, since
    a norm near 1 has two digits in half precision. ValueError if real and fake differ in shape.
    """
    if real.shape != fake.shape:  # else one might be broadcast
        raise ValueError(f"gradient_penalty: fake must be shaped like real {list(real.shape)}, got {list(fake.shape)}")
    real, fake = full(real), full(fake)
    share = processes.uniform((*real.shape[:batch], *[1] * (real.dim() - batch)), real)
    between = torch.lerp(fake, real, share).requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(batch), dim=-1) - 1).square().mean(-1)
