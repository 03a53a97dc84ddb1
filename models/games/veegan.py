"""VEEGAN (Srivastava et al. 2017): a reconstructor that maps samples back to noise keeps the modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.config import check_range
from models.games.adversarial import Adversarial, AdversarialConfig
from models.games.game import Loss, Turn, full
from models.networks import make_encoder, make_generator, make_pair_critic


@dataclass(frozen=True)
class VeeganConfig(AdversarialConfig):
    """VEEGAN."""

    reconstructor_std: float = 1.0
    """Standard deviation s of the reconstructor's law N(F(x), s^2 I) of the noise given a sample. 1 in a public port
    of its authors' code for Gaussian mixtures. [open]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "reconstructor_std", above=0)


class Veegan(Adversarial):
    """VEEGAN (Srivastava et al. 2017, Algorithm 1): a reconstructor maps samples back to their noise.

    Players ``discriminator`` (D, the logit of a pair (z, x)), ``reconstructor`` (F: x -> z) and ``generator`` (G). The
    reconstructor is a law of z, N(F(x), s^2 I): without its spread the two kinds of pairs lie on surfaces that hardly
    meet, and the log density ratio that D estimates has no bound.
    """

    Config: ClassVar[Any] = VeeganConfig
    fixed = True
    opponent = "discriminator"

    def __init__(self, config: Any, generator: nn.Module, discriminator: nn.Module, reconstructor: nn.Module) -> None:
        super().__init__(config, generator, discriminator)
        self.players["reconstructor"] = reconstructor
        # All three gradients are of one batch.
        self.order = (Turn("discriminator"), Turn("reconstructor", fresh=False), Turn("generator", fresh=False))

    @classmethod
    def build(cls, config: VeeganConfig, shape: tuple[int, ...]) -> Veegan:
        networks = config.networks
        return cls(
            config,
            make_generator(networks, shape),
            make_pair_critic(networks, shape, networks.noise_dim),
            make_encoder(networks, shape, networks.noise_dim),
        )

    def discriminator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """-E log sigmoid(D(z, G(z))) - E log(1 - sigmoid(D(F(x), x))): D estimates log q(x|z) p(z) / (p(z|x) p(x)).

        F(x) stands for a draw from N(F(x), s^2 I).
        """
        with torch.no_grad():
            mean = full(self.players["reconstructor"](real))
            code = mean + self.config.reconstructor_std * self.processes.normal_like(mean)
        on_fake = softplus(-self.score(noise, self.fake(noise))).mean(-1)
        on_real = softplus(self.score(code, real)).mean(-1)
        return Loss(on_real + on_fake, {"real": on_real.detach(), "fake": on_fake.detach()})

    def reconstructor_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """E |z - F(G(z))|^2 / (2 s^2), the auto-encoder over noise, as F's function."""
        return Loss(self.reconstruction(noise, self.fake(noise)))

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """E D(z, G(z)) + E |z - F(G(z))|^2 / (2 s^2): their objective with D for the log density ratio."""
        fake = self.sample(noise)
        ratio = self.score(noise, fake).mean(-1)
        reconstruction = self.reconstruction(noise, fake)
        return Loss(ratio + reconstruction, {"ratio": ratio.detach(), "reconstruction": reconstruction.detach()})

    def reconstruction(self, noise: Tensor, fake: Tensor) -> Tensor:
        """E |z - F(x_g)|^2 / (2 s^2), summed over the noise's dimensions: -log N(z; F(x_g), s^2 I) up to a constant."""
        error = (noise - full(self.players["reconstructor"](fake))).square().sum(-1).mean(-1)
        return error / (2 * self.config.reconstructor_std**2)
