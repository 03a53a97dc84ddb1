"""Fully connected networks, for points and small images.

Dimensions are counted from the last, so that a leading dimension of runs passes through (``models.stack``).
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from models.networks.init import he_init


def mlp(sizes: list[int], batch_norm: bool = False) -> nn.Sequential:
    """Linear layers of the given sizes with (batch norm and) ReLU between them, He initialised (He et al. 2015)."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), *([nn.BatchNorm1d(fan_out)] if batch_norm else []), nn.ReLU()]
    return he_init(nn.Sequential(*layers[: -2 if batch_norm else -1]))


def generator(
    noise_dim: int, shape: tuple[int, ...], width: int, depth: int, batch_norm: bool = False
) -> nn.Sequential:
    """Noise [N, noise_dim] -> samples [N, *shape]; ``depth`` hidden layers; tanh for images, linear for points."""
    body = mlp([noise_dim, *[width] * depth, math.prod(shape)], batch_norm)
    return nn.Sequential(body, nn.Unflatten(-1, shape), nn.Tanh()) if len(shape) == 3 else body


def critic(shape: tuple[int, ...], width: int, depth: int, batch_norm: bool = False) -> nn.Sequential:
    """Samples [N, *shape] -> scores [N]; ``depth`` hidden layers."""
    body = mlp([math.prod(shape), *[width] * depth, 1], batch_norm)
    return nn.Sequential(nn.Flatten(-len(shape)), body, nn.Flatten(-2))


def features(size: int, dims: int, width: int, depth: int) -> nn.Sequential:
    """Samples whose last ``dims`` dimensions hold ``size`` numbers -> features [N, width] after ``depth`` layers."""
    return nn.Sequential(nn.Flatten(-dims), mlp([size, *[width] * depth]), nn.ReLU())


def mover(shape: tuple[int, ...], width: int, depth: int) -> nn.Sequential:
    """Samples [N, *shape] -> samples [N, *shape]; ``depth`` hidden layers; tanh for images, linear for points."""
    return nn.Sequential(nn.Flatten(-len(shape)), generator(math.prod(shape), shape, width, depth))
