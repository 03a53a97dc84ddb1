"""Weights as the two initialisations state them, layer by layer, for every network by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.networks import (
    NetworkConfig,
    make_critic,
    make_encoder,
    make_generator,
    make_latent_critic,
    make_mover,
    make_pair_critic,
)
from models.networks.init import he_init, normal_init
from models.networks.resnet import Block

WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NAMES = pytest.mark.parametrize(
    ("name", "shape"), [("mlp", (1, 8, 8)), ("dcgan", (3, 32, 32)), ("resnet", (3, 32, 32))]
)


def networks(init, name, shape):
    config = NetworkConfig(name, width=16, noise_dim=20, init=init)
    return [
        make_generator(config, shape, batch_norm=True),
        make_critic(config, shape, batch_norm=True, bounded=True),
        make_encoder(config, shape, 7),
        make_pair_critic(config, shape, 7),
        make_latent_critic(config, 7),
        make_mover(config, shape),
    ]


def assert_normal(weight, std):
    """Five standard errors: std / sqrt(K) of a mean, std / sqrt(2 K) of a deviation (for K normals, here K >= 16)."""
    count = weight.numel()
    assert abs(weight.mean().item()) < 5 * std / count**0.5
    assert weight.square().mean().item() ** 0.5 == pytest.approx(std, rel=5 / (2 * count) ** 0.5)


@NAMES
def test_normal_is_dcgans(name, shape):
    """Radford et al. 2016, section 3, and 3P-WGAN: N(0, 0.02^2), zero bias; batch norm is left at scale 1, shift 0."""
    for network in networks("normal", name, shape):
        layers = [m for m in network.modules() if isinstance(m, WEIGHTED)]
        assert layers
        for layer in layers:
            assert_normal(layer.weight, 0.02)
            assert layer.bias is None or not layer.bias.any()
        for norm in (m for m in network.modules() if isinstance(m, NORMS)):
            assert (norm.weight == 1).all()
            assert not norm.bias.any()


def test_normal_leaves_batch_norm_alone():
    norm = nn.BatchNorm1d(3)
    nn.init.constant_(norm.weight, 2.0)
    nn.init.constant_(norm.bias, 3.0)
    normal_init(nn.Sequential(nn.Linear(2, 3), norm))
    assert norm.weight.tolist() == [2, 2, 2]
    assert norm.bias.tolist() == [3, 3, 3]


@NAMES
def test_he_is_two_over_the_fan_in(name, shape):
    """He et al. 2015, eq. 10, but 1 / fan_in for the shortcuts of residual blocks, which no relu follows."""
    for network in networks("he", name, shape):
        shortcuts = {m for block in network.modules() if isinstance(block, Block) for m in block.shortcut.modules()}
        for layer in (m for m in network.modules() if isinstance(m, WEIGHTED)):
            size = layer.weight.shape  # of a transposed convolution: [in, out, 5, 5], a quarter of it per pixel
            fan_in = size[0] * 25 / 4 if isinstance(layer, nn.ConvTranspose2d) else size[1:].numel()
            assert_normal(layer.weight, ((1 if layer in shortcuts else 2) / fan_in) ** 0.5)
            assert layer.bias is None or not layer.bias.any()


def test_gain_and_std_scale_the_weights():
    layer = nn.Linear(50, 400)
    assert he_init(layer, gain=3.0) is layer
    assert_normal(layer.weight, 3 * (2 / 50) ** 0.5)
    assert normal_init(layer, std=0.5) is layer
    assert_normal(layer.weight, 0.5)


def test_layers_without_a_bias_are_initialised():
    layer = nn.Linear(50, 400, bias=False)
    for init in (he_init, normal_init):
        torch.nn.init.zeros_(layer.weight)
        assert init(layer).weight.any()
        assert layer.bias is None
