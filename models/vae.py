"""Variational auto-encoder (Kingma & Welling 2014), whose encoder is POT-GAN's Q."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks import NetworkConfig, make_features, make_generator
from models.networks.init import he_init


class Encoder(nn.Module):
    """q(z | x) = N(mean, diag(exp(log_variance))); called as a module it returns the mean, the latent of POT-GAN."""

    def __init__(self, body: nn.Module, features: int, latent_dim: int) -> None:
        super().__init__()
        self.body = body
        self.latent_dim = latent_dim
        # A small head: q starts near N(0, I), so that exp(log_variance) cannot overflow in the first steps.
        self.head = he_init(nn.Linear(features, 2 * latent_dim), gain=0.1)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each [N, latent_dim], for x [N, ...]."""
        mean, log_variance = self.head(self.body(x)).chunk(2, dim=-1)
        return mean, log_variance

    def forward(self, x: Tensor) -> Tensor:
        """The mean [N, latent_dim]."""
        return self.moments(x)[0]


class VAE(nn.Module):
    """Encoder and decoder for samples of ``shape``: vectors or square images in [-1, 1].

    ``networks.name`` "mlp" takes any shape, the others images; ``networks.noise_dim`` is the latent size.
    """

    def __init__(self, networks: NetworkConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.latent_dim = networks.noise_dim
        body, features = make_features(networks, shape)
        self.encoder = Encoder(body, features, self.latent_dim)
        self.decoder = make_generator(networks, shape)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean and log-variance with the latent mean + noise * exp(log_variance / 2)."""
        mean, log_variance = self.encoder.moments(x)
        if noise.shape != mean.shape:  # else it might be broadcast
            raise ValueError(f"VAE: noise must be {list(mean.shape)} for x {list(x.shape)}, got {list(noise.shape)}")
        return self.decoder(mean + noise * torch.exp(log_variance / 2)), mean, log_variance

    def reconstruct(self, x: Tensor) -> Tensor:
        """decoder(mean of q(z | x)), shaped like x."""
        return self.decoder(self.encoder(x))
