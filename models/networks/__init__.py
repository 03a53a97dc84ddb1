"""Generators and critics by name: modules without losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from models.networks import dcgan, mlp


@dataclass(frozen=True)
class NetworkConfig:
    """Which networks play."""

    name: Literal["mlp", "dcgan"] = "dcgan"
    """mlp for points, dcgan (WGAN-GP's small CNN) for images. [open]"""
    width: int = 128
    """Hidden units (mlp), or maps at the finest level, doubled per level (dcgan). 128 is WGAN-GP's. [open]"""
    depth: int = 3
    """Hidden layers of mlp; dcgan's depth follows from the image size. [open]"""
    noise_dim: int = 128
    """Dimension of the generator's noise N(0, I). 128 is WGAN-GP's. [open]"""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "noise_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"NetworkConfig: {name} must be at least 1, got {getattr(self, name)}")


def make_generator(config: NetworkConfig, shape: tuple[int, ...]) -> nn.Module:
    """Noise [N, noise_dim] -> samples [N, *shape]."""
    if config.name == "mlp":
        return mlp.generator(config.noise_dim, shape, config.width, config.depth)
    return dcgan.generator(config.noise_dim, shape, config.width)


def make_critic(config: NetworkConfig, shape: tuple[int, ...]) -> nn.Module:
    """Samples [N, *shape] -> scores [N]."""
    if config.name == "mlp":
        return mlp.critic(shape, config.width, config.depth)
    return dcgan.critic(shape, config.width)
