"""SNGAN (Miyato et al. 2018): a discriminator whose layers have spectral norm 1."""

from __future__ import annotations

from collections.abc import Mapping
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
    fixed = True
    defaults: ClassVar[Any] = {"betas": (0.0, 0.9)}
    shape: tuple[int, ...] | None = None

    @classmethod
    def build(cls, config: SnganConfig, shape: tuple[int, ...]) -> Sngan:
        game = cls(config, make_generator(config.networks, shape), normalised(make_critic(config.networks, shape)))
        game.shape = tuple(shape)
        return game

    def __reduce__(self) -> Any:
        """Pickled as what ``build`` takes and its state: PyTorch pickles no module with a spectral norm."""
        if self.shape is None:
            return super().__reduce__()
        return _restored, (type(self), self.config, self.shape, self.state_dict(), self.training)

    def discriminator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Miyato et al.'s Eq. 16, negated: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))."""
        on_real = relu(1 - self.score(real)).mean(-1)
        on_fake = relu(1 + self.score(self.fake(noise))).mean(-1)
        return Loss(on_real + on_fake, {"real": on_real.detach(), "fake": on_fake.detach()})

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Their Eq. 17: -E D(G(z))."""
        return Loss(-self.score(self.sample(noise)).mean(-1))


def _restored(
    kind: type[Sngan], config: SnganConfig, shape: tuple[int, ...], state: Mapping[str, Tensor], training: bool
) -> Sngan:
    game = kind.build(config, shape)
    game.load_state_dict(state, assign=True)
    game.train(training)
    return game


def normalised(network: nn.Module) -> nn.Module:
    """Every linear and convolutional layer divided by its largest singular value, by one power iteration per call."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            spectral_norm(layer)
    return network
