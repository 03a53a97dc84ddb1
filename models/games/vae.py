"""The variational auto-encoder as a game with one player (Kingma & Welling 2014)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from models.config import check_fields, check_range
from models.games.game import Game, Loss, Turn, full
from models.networks import NetworkConfig
from models.vae import VAE


@dataclass(frozen=True)
class VaeConfig:
    """VAE, trained before POT-GAN and then frozen."""

    networks: NetworkConfig = field(default_factory=NetworkConfig)
    """Encoder and decoder; noise_dim is the size of the latent, 128 [stated]."""
    noise_scale: float = 0.5
    """Standard deviation of the Gaussian decoder p(x | z) = N(decoder(z), noise_scale^2 I). [open]"""

    def __post_init__(self) -> None:
        check_fields(self)
        check_range(self, "noise_scale", above=0)


class VaeGame(Game):
    """VAE (Kingma & Welling 2014), whose encoder may be POT-GAN's Q.

    Player ``vae``; noise N(0, I) [N, noise_dim] is the reparametrisation's in ``loss``, the latent in ``sample``.
    """

    Config: ClassVar[Any] = VaeConfig
    fixed = True
    notes: ClassVar[Mapping[str, str]] = {
        "loss": "Negative evidence lower bound (ELBO) of a sample, in nats: reconstruction + kl.",
        "reconstruction": "Mean of -log p(x | z) of a sample, a Gaussian density of its values in [-1, 1], in nats.",
        "kl": "KL divergence of a sample's latent from the prior N(0, I), in nats.",
    }

    def __init__(self, config: VaeConfig, vae: VAE) -> None:
        super().__init__()
        self.config = config
        self.players = nn.ModuleDict({"vae": vae})
        self.order = (Turn("vae"),)

    @property
    def vae(self) -> VAE:
        return cast(VAE, self.players["vae"])

    @classmethod
    def build(cls, config: VaeConfig, shape: tuple[int, ...]) -> VaeGame:
        """The game for samples of ``shape``: (D,) for points or (C, H, W) for images in [-1, 1]."""
        return cls(config, VAE(config.networks, shape))

    def sample(self, noise: Tensor) -> Tensor:
        return self.vae.decoder(noise)

    def reconstruct(self, real: Tensor) -> Tensor:
        """decoder(mean of q(z | x)), shaped like ``real``."""
        return self.vae.reconstruct(real)

    def vae_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """The negative evidence lower bound of Kingma & Welling's Eq. 10, per sample of D values and in nats:

        |x - decoder(z)|^2 / (2 s^2) + (D / 2) log(2 pi s^2) + (1/2) sum_k (mean_k^2 + var_k - 1 - log var_k)

        with s = noise_scale; logged as ``reconstruction``, the first two terms, and ``kl``, the last.
        """
        output, mean, log_variance = map(full, self.vae(real, noise))
        difference = (real - output).flatten(mean.dim() - 1)  # [N, D]
        variance = self.config.noise_scale**2
        constant = difference.shape[-1] / 2 * math.log(2 * math.pi * variance)
        reconstruction = difference.square().sum(-1).mean(-1) / (2 * variance) + constant
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean(-1)
        return Loss(reconstruction + kl, {"reconstruction": reconstruction.detach(), "kl": kl.detach()})
