"""Fully connected generator and critic, for points and small images."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from models.networks.init import he_init


def mlp(sizes: list[int]) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between them, He initialised (He et al. 2015)."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return he_init(nn.Sequential(*layers[:-1]))


def generator(noise_dim: int, shape: tuple[int, ...], width: int, depth: int) -> nn.Sequential:
    """Noise [N, noise_dim] -> samples [N, *shape]; ``depth`` hidden layers; tanh for images, linear for points."""
    body = mlp([noise_dim, *[width] * depth, math.prod(shape)])
    return nn.Sequential(body, nn.Unflatten(1, shape), nn.Tanh()) if len(shape) == 3 else body


def critic(shape: tuple[int, ...], width: int, depth: int) -> nn.Sequential:
    """Samples [N, *shape] -> scores [N]; ``depth`` hidden layers."""
    return nn.Sequential(nn.Flatten(), mlp([math.prod(shape), *[width] * depth, 1]), nn.Flatten(0))
