"""Fully connected networks, for points and small images.

Dimensions are counted from the last, so that a leading dimension of runs passes through (``models.stack``).
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from models.networks.init import he_init
from models.networks.network import Network, check_shape


def mlp(sizes: list[int], batch_norm: bool = False) -> nn.Sequential:
    """Linear layers of the given sizes with (batch norm and) ReLU between them, He initialised (He et al. 2015)."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), *([nn.BatchNorm1d(fan_out)] if batch_norm else []), nn.ReLU()]
    return he_init(nn.Sequential(*layers[: -2 if batch_norm else -1]))


def generator(noise_dim: int, shape: tuple[int, ...], width: int, depth: int, batch_norm: bool = False) -> Network:
    """Noise [N, noise_dim] -> samples [N, *shape]; ``depth`` hidden layers; tanh for images, linear for points."""
    check_shape(shape)
    body = mlp([noise_dim, *[width] * depth, math.prod(shape)], batch_norm)
    layers = [body, nn.Unflatten(-1, shape), nn.Tanh()] if len(shape) == 3 else body
    return Network(*layers, name="generator", takes=(noise_dim,), argument="noise", runs=True, batch_norm=batch_norm)


def critic(shape: tuple[int, ...], width: int, depth: int, batch_norm: bool = False) -> Network:
    """Samples [N, *shape] -> scores [N]; ``depth`` hidden layers."""
    check_shape(shape)
    body = mlp([math.prod(shape), *[width] * depth, 1], batch_norm)
    layers = nn.Flatten(-len(shape)), body, nn.Flatten(-2)
    return Network(*layers, name="critic", takes=shape, runs=True, batch_norm=batch_norm)


def features(shape: tuple[int, ...], width: int, depth: int) -> Network:
    """Samples [N, *shape] -> features [N, width] after ``depth`` layers."""
    check_shape(shape)
    body = mlp([math.prod(shape), *[width] * depth])
    return Network(nn.Flatten(-len(shape)), body, nn.ReLU(), name="features", takes=shape, runs=True)


def mover(shape: tuple[int, ...], width: int, depth: int) -> Network:
    """Samples [N, *shape] -> samples [N, *shape]; ``depth`` hidden layers; tanh for images, linear for points."""
    check_shape(shape)
    body = generator(math.prod(shape), shape, width, depth)
    return Network(nn.Flatten(-len(shape)), body, name="mover", takes=shape, runs=True)
