"""Networks by name: modules without losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal

from torch import nn

from models.config import check_fields, check_range
from models.networks import dcgan, mlp, resnet
from models.networks.heads import PairCritic, bounded_scores
from models.networks.init import he_init, normal_init
from models.networks.network import check_shape


@dataclass(frozen=True)
class NetworkConfig:
    """Which networks play."""

    at_start: ClassVar[frozenset[str]] = frozenset({"name", "width", "depth", "noise_dim", "init"})

    name: Literal["mlp", "dcgan", "resnet"] = "dcgan"
    """mlp for points; for images dcgan (WGAN-GP's small CNN) or resnet (its residual networks, 32 or 64 px). [open]"""
    width: int = 128
    """Hidden units (mlp), maps at the finest level, doubled per level (dcgan), or maps (resnet). 128 is WGAN-GP's and
    3P-WGAN's. [open]"""
    depth: int = 3
    """Hidden layers of mlp, at most 1000; the others' depth follows from the image size. [open]"""
    noise_dim: int = 128
    """Dimension of the generator's noise. 128 is WGAN-GP's and 3P-WGAN's. [open]"""
    init: Literal["he", "normal"] = "he"
    """Weights start by He et al. 2015 (POT-GAN) or as N(0, 0.02^2) (DCGAN, 3P-WGAN). [stated]"""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("width", "depth", "noise_dim"):
            check_range(self, name, least=1)
        check_range(self, "depth", most=1000)


def make_generator(config: NetworkConfig, shape: tuple[int, ...], *, batch_norm: bool = False) -> nn.Module:
    """Noise [N, noise_dim] -> samples [N, *shape]. batch_norm: of mlp; dcgan and resnet always have it."""
    if config.name == "mlp":
        network: nn.Module = mlp.generator(config.noise_dim, shape, config.width, config.depth, batch_norm)
    else:
        network = _convolutional(config).generator(config.noise_dim, shape, config.width)
    return _started(config, network)


def make_critic(
    config: NetworkConfig, shape: tuple[int, ...], *, batch_norm: bool = False, bounded: bool = False
) -> nn.Module:
    """Samples [N, *shape] -> scores [N], in (-1, 1) by a final tanh if ``bounded``."""
    if config.name == "mlp":
        network: nn.Module = mlp.critic(shape, config.width, config.depth, batch_norm)
    else:
        network = _convolutional(config).critic(shape, config.width, batch_norm)
    network = _started(config, network)
    return bounded_scores(network) if bounded else network


def make_encoder(config: NetworkConfig, shape: tuple[int, ...], out_dim: int) -> nn.Module:
    """Samples [N, *shape] -> vectors [N, out_dim], by the critic's layers up to the last."""
    body, size = make_features(config, shape)
    return _started(config, nn.Sequential(body, he_init(nn.Linear(size, out_dim))))


def make_features(config: NetworkConfig, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """(module, K): samples [N, *shape] -> features [N, K], what the critic sees before its last layer."""
    if config.name == "mlp":
        return _started(config, mlp.features(shape, config.width, config.depth)), config.width
    body, size = _convolutional(config).features(shape, config.width)
    return _started(config, body), size


def make_pair_critic(config: NetworkConfig, shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    """Pairs (z [N, latent_dim], x [N, *shape]) -> scores [N]: x's features and z through hidden layers.

    For points, both go through mlp's layers together; for images, features of x meet z in one hidden layer.
    """
    if config.name == "mlp":
        check_shape(shape)
        flat = math.prod(shape) + latent_dim
        body: nn.Module = nn.Flatten(-len(shape))
        head: nn.Module = mlp.critic((flat,), config.width, config.depth)
    else:
        body, size = make_features(config, shape)
        head = mlp.critic((size + latent_dim,), 4 * config.width, 1)
    return _started(config, PairCritic(body, head, latent_dim))


def make_latent_critic(config: NetworkConfig, latent_dim: int) -> nn.Module:
    """Latents [N, latent_dim] -> scores [N], fully connected; for images three hidden layers four times as wide."""
    width, depth = (config.width, config.depth) if config.name == "mlp" else (4 * config.width, 3)
    return _started(config, mlp.critic((latent_dim,), width, depth))


def make_mover(config: NetworkConfig, shape: tuple[int, ...]) -> nn.Module:
    """Samples [N, *shape] -> samples [N, *shape]: fully connected (mlp), or 3P-WGAN's residual mover for images."""
    if config.name == "mlp":
        return _started(config, mlp.mover(shape, config.width, config.depth))
    return _started(config, resnet.mover(shape, config.width))


def _convolutional(config: NetworkConfig) -> ModuleType:
    return dcgan if config.name == "dcgan" else resnet


def _started(config: NetworkConfig, network: nn.Module) -> nn.Module:
    """``network``, made with He's weights, with those that ``config.init`` asks for."""
    return normal_init(network) if config.init == "normal" else network


__all__ = [
    "NetworkConfig",
    "make_critic",
    "make_encoder",
    "make_features",
    "make_generator",
    "make_latent_critic",
    "make_mover",
    "make_pair_critic",
]
