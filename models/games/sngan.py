"""SNGAN (Miyato et al. 2018): a discriminator whose layers have spectral norm 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils.parametrizations import spectral_norm

from models.games.game import Loss
from models.games.gan import Gan, GanConfig
from models.networks import make_critic, make_generator


@dataclass(frozen=True)
class SnganConfig(GanConfig):
    """SNGAN."""

    discriminator_steps: int = 5
    """n_dis: discriminator steps per generator step. [stated: 5 for CIFAR-10's residual networks]"""


class Sngan(Gan):
    """SNGAN (Miyato et al. 2018): hinge losses, spectral normalisation of the discriminator.

    Players ``discriminator`` (D) and ``generator`` (G).
    """

    Config: ClassVar[Any] = SnganConfig
    defaults: ClassVar[Any] = {"betas": (0.0, 0.9)}

    @classmethod
    def build(cls, config: SnganConfig, shape: tuple[int, ...]) -> Sngan:
        return cls(config, make_generator(config.networks, shape), normalised(make_critic(config.networks, shape)))

    def discriminator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Miyato et al.'s Eq. 16, negated: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))."""
        on_real = relu(1 - self.score(real)).mean(-1)
        on_fake = relu(1 + self.score(self.fake(noise))).mean(-1)
        return Loss(on_real + on_fake, {"real": on_real.detach(), "fake": on_fake.detach()})

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Their Eq. 17: -E D(G(z))."""
        return Loss(-self.score(self.sample(noise)).mean(-1))


def normalised(network: nn.Module) -> nn.Module:
    """Every linear and convolutional layer divided by its largest singular value, by one power iteration per call."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            spectral_norm(layer)
    return network
