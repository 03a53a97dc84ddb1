"""GAN (Goodfellow et al. 2014) with the non-saturating generator loss, and DCGAN (Radford et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import softplus

from models.config import check_range
from models.games.adversarial import Adversarial, AdversarialConfig
from models.games.game import Loss
from models.networks import NetworkConfig, make_critic, make_generator


@dataclass(frozen=True)
class GanConfig(AdversarialConfig):
    """GAN."""

    discriminator_steps: int = 1
    """Discriminator steps per generator step: k of Algorithm 1. [stated: 1]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "discriminator_steps", least=1)


class Gan(Adversarial):
    """GAN (Goodfellow et al. 2014) with the generator loss that does not saturate.

    Players ``discriminator`` (D, a logit) and ``generator`` (G).
    """

    Config: ClassVar[Any] = GanConfig
    fixed = True
    opponent = "discriminator"

    def __init__(self, config: Any, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__(config, generator, discriminator, config.discriminator_steps)

    def discriminator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Goodfellow et al.'s Eq. 1, negated: -E log sigmoid(D(x)) - E log(1 - sigmoid(D(G(z))))."""
        real_scores, fake_scores = self.scores(real, self.fake(noise), noise.dim() - 2)
        on_real, on_fake = softplus(-real_scores).mean(-1), softplus(fake_scores).mean(-1)
        return Loss(on_real + on_fake, {"real": on_real.detach(), "fake": on_fake.detach()})

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Their section 3's alternative, which does not saturate: -E log sigmoid(D(G(z)))."""
        return Loss(softplus(-self.score(self.sample(noise))).mean(-1))


@dataclass(frozen=True)
class DcganConfig(GanConfig):
    """DCGAN."""

    networks: NetworkConfig = field(default_factory=lambda: NetworkConfig(init="normal"))
    """Generator and discriminator; weights start as N(0, 0.02^2). [stated]"""


class Dcgan(Gan):
    """DCGAN (Radford et al. 2016, section 3): GAN with batch norm in both networks."""

    Config: ClassVar[Any] = DcganConfig
    fixed = True
    defaults: ClassVar[Any] = {"betas": (0.5, 0.999)}

    @classmethod
    def build(cls, config: DcganConfig, shape: tuple[int, ...]) -> Dcgan:
        generator = make_generator(config.networks, shape, batch_norm=True)
        return cls(config, generator, make_critic(config.networks, shape, batch_norm=True))
