"""Fully connected networks under a leading dimension of runs (models.stack counts on it)."""

from __future__ import annotations

import pytest
import torch

from models.networks import (
    NetworkConfig,
    make_critic,
    make_encoder,
    make_generator,
    make_latent_critic,
    make_mover,
    mlp,
)
from models.networks.mlp import features

RUNS, N, WIDTH = 3, 4, 6
CONFIG = NetworkConfig("mlp", width=WIDTH, depth=2, noise_dim=5)
# Products of at most 64 terms of size one, summed in either order, through four layers: 4 * 64 * 2^-24 = 1.5e-5.
ROUNDING = {"atol": 2e-5, "rtol": 2e-5}


def samples(shape, randn):
    return randn(RUNS, N, *shape)


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)])
@pytest.mark.parametrize(
    ("make", "takes", "gives"),
    [
        (lambda shape: make_generator(CONFIG, shape), (5,), None),
        (lambda shape: make_critic(CONFIG, shape), None, ()),
        (lambda shape: make_critic(CONFIG, shape, bounded=True), None, ()),
        (lambda shape: make_mover(CONFIG, shape), None, None),
        (lambda shape: make_encoder(CONFIG, shape, 7), None, (7,)),
        (lambda shape: features(shape, WIDTH, 2), None, (WIDTH,)),
        (lambda shape: make_latent_critic(CONFIG, 5), (5,), ()),
    ],
    ids=["generator", "critic", "bounded critic", "mover", "encoder", "features", "latent critic"],
)
def test_runs_pass_side_by_side(make, takes, gives, shape, randn):
    network = make(shape)
    x = samples(shape if takes is None else takes, randn)
    together = network(x)
    assert together.shape == (RUNS, N, *(shape if gives is None else gives))
    for run in range(RUNS):
        torch.testing.assert_close(together[run], network(x[run]), **ROUNDING)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_hidden_layers(depth):
    network = mlp.mlp([3, *[4] * depth, 2])
    linear = [m for m in network if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(3, 4), *[(4, 4)] * (depth - 1), (4, 2)]
    assert isinstance(network[-1], torch.nn.Linear)
    assert sum(isinstance(m, torch.nn.ReLU) for m in network) == depth


@pytest.mark.parametrize("depth", [1, 3])
def test_batch_norm_stands_between_a_hidden_layer_and_its_relu(depth):
    kinds = [type(m).__name__ for m in mlp.mlp([3, *[4] * depth, 2], batch_norm=True)]
    assert kinds == depth * ["Linear", "BatchNorm1d", "ReLU"] + ["Linear"]
