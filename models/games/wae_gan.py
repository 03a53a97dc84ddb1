"""WAE-GAN (Tolstikhin et al. 2018): an auto-encoder whose codes an adversary holds to the prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.config import check_fields, check_range
from models.games.game import Game, Loss, Turn, full
from models.networks import NetworkConfig, make_encoder, make_generator, make_latent_critic


@dataclass(frozen=True)
class WaeGanConfig:
    """WAE-GAN."""

    networks: NetworkConfig = field(default_factory=NetworkConfig)
    """Encoder, decoder and latent discriminator; noise_dim is the size of a code."""
    adversary_weight: float = 10.0
    """lambda of Algorithm 1; 10 is its paper's value for MNIST. [open]"""
    discriminator_steps: int = 1
    """Steps of the discriminator for each of the auto-encoder; Algorithm 1 has 1. [stated]"""

    def __post_init__(self) -> None:
        check_fields(self)
        check_range(self, "adversary_weight", least=0)
        check_range(self, "discriminator_steps", least=1)


class WaeGan(Game):
    """WAE-GAN (Tolstikhin et al. 2018, Algorithm 1): an auto-encoder whose codes an adversary holds to the prior.

    Players ``discriminator`` (D, the logit that a code is the prior's) and ``autoencoder``: encoder Q and generator G.
    Noise N(0, I) [N, noise_dim] is the prior on codes.
    """

    Config: ClassVar[Any] = WaeGanConfig
    fixed = True
    defaults: ClassVar[Any] = {"betas": (0.5, 0.999)}

    def __init__(self, config: Any, encoder: nn.Module, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.config = config
        autoencoder = nn.ModuleDict({"encoder": encoder, "generator": generator})
        self.players = nn.ModuleDict({"discriminator": discriminator, "autoencoder": autoencoder})
        self.order = (Turn("discriminator", config.discriminator_steps), Turn("autoencoder", fresh=False))

    @classmethod
    def build(cls, config: WaeGanConfig, shape: tuple[int, ...]) -> WaeGan:
        """The game for samples of ``shape``: (D,) for points or (C, H, W) for images in [-1, 1]."""
        networks = config.networks
        return cls(
            config,
            make_encoder(networks, shape, networks.noise_dim),
            make_generator(networks, shape),
            make_latent_critic(networks, networks.noise_dim),
        )

    @property
    def autoencoder(self) -> nn.ModuleDict:
        return cast(nn.ModuleDict, self.players["autoencoder"])

    def sample(self, noise: Tensor) -> Tensor:
        return self.autoencoder["generator"](noise)

    def reconstruct(self, real: Tensor) -> Tensor:
        """G(Q(x)), shaped like ``real``."""
        return self.sample(self.autoencoder["encoder"](real))

    def discriminator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """-E log D(z) - E log(1 - D(Q(x))): Algorithm 1's ascent, without lambda, which only scales the step."""
        discriminator = self.players["discriminator"]
        with torch.no_grad():
            code = full(self.autoencoder["encoder"](real))
        on_prior = softplus(-full(discriminator(noise))).mean(-1)
        on_code = softplus(full(discriminator(code))).mean(-1)
        return Loss(on_prior + on_code, {"prior": on_prior.detach(), "code": on_code.detach()})

    def autoencoder_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """E |x - G(Q(x))|^2 - lambda E log D(Q(x)): Algorithm 1's descent with c(x, y) = |x - y|^2."""
        code = self.autoencoder["encoder"](real)  # [N, noise_dim]
        error = (real - full(self.autoencoder["generator"](code))).flatten(code.dim() - 1).square().sum(-1).mean(-1)
        adversary = softplus(-full(self.players["discriminator"](code))).mean(-1)
        value = error + self.config.adversary_weight * adversary
        return Loss(value, {"squared_error": error.detach(), "adversary": adversary.detach()})
