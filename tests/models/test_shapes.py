"""Inputs of another shape than a module was made for: refused, with the argument's name and both shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.forest import LatentTransformationForest
from models.games.wgan_gp import gradient_penalty
from models.networks import (
    NetworkConfig,
    make_critic,
    make_encoder,
    make_features,
    make_generator,
    make_latent_critic,
    make_mover,
    make_pair_critic,
)
from models.pairing import PAIRINGS
from models.stack import stack
from models.transforms import AffineTransform, MlpTransform
from models.vae import VAE

SHAPES = {"mlp": (4,), "dcgan": (1, 16, 16), "resnet": (1, 16, 16)}
SAMPLES = {
    "mlp": [(4,), (8, 5), (8, 1), (8, 4, 1)],
    "dcgan": [(1, 16, 16), (8, 1, 32, 32), (8, 3, 16, 16), (8, 1, 16, 15), (2, 8, 1, 16, 16), (8, 256)],
    "resnet": [(1, 16, 16), (8, 1, 32, 32), (8, 3, 16, 16), (8, 1, 20, 20), (2, 8, 1, 16, 16), (8, 256)],
}
OF_SAMPLES = {
    "critic": make_critic,
    "mover": make_mover,
    "features": lambda config, shape: make_features(config, shape)[0],
    "encoder": lambda config, shape: make_encoder(config, shape, 2),
    "vae": lambda config, shape: VAE(config, shape).encoder,
}


def config(name):
    return NetworkConfig(name, width=4, depth=1, noise_dim=3)


def brackets(shape):
    return rf"\[{', '.join(map(str, shape))}\]"


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name in SHAPES for wrong in SAMPLES[name]])
@pytest.mark.parametrize("kind", OF_SAMPLES)
def test_samples_of_another_shape_are_refused(kind, name, wrong):
    network = OF_SAMPLES[kind](config(name), SHAPES[name])
    message = rf": x must be {brackets(('N', *SHAPES[name]))}, got {brackets(wrong)}$"
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(wrong))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("wrong", [(3,), (8, 4), (8, 1), (8, 3, 1, 1)])
def test_noise_of_another_size_is_refused(name, wrong):
    generator = make_generator(config(name), SHAPES[name])
    with pytest.raises(ValueError, match=rf"generator: noise must be \[N, 3\], got {brackets(wrong)}$"):
        generator(torch.zeros(wrong))


def test_images_of_another_size_are_no_points():
    """A flattened image has the right number of values in the wrong place."""
    critic = make_critic(config("mlp"), (1, 8, 8))
    for wrong in ((5, 8, 8, 1), (5, 64), (5, 1, 4, 16)):
        with pytest.raises(ValueError, match=rf"critic: x must be \[N, 1, 8, 8\], got {brackets(wrong)}"):
            critic(torch.zeros(wrong))


def test_codes_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"critic: x must be \[N, 3\], got \[8, 4\]"):
        make_latent_critic(config("mlp"), 3)(torch.zeros(8, 4))
    for name, shape in SHAPES.items():
        critic = make_pair_critic(config(name), shape, 3)
        x = torch.zeros(8, *shape)
        for wrong in ((8, 4), (7, 3), (1, 3), (3,)):
            with pytest.raises(ValueError, match=rf"critic: z must be \[8, 3\] for x .*, got {brackets(wrong)}"):
                critic(torch.zeros(wrong), x)


@pytest.mark.parametrize("wrong", [(8, 1), (1, 3), (3,), (7, 3), (8, 4)])
def test_noise_that_would_be_broadcast_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"VAE: noise must be \[8, 3\] for x \[8, 4\], got {brackets(wrong)}"):
        VAE(config("mlp"), (4,))(torch.zeros(8, 4), torch.zeros(wrong))


def test_a_penalty_needs_pairs():
    with pytest.raises(ValueError, match=r"gradient_penalty: fake must be shaped like real \[1, 2\], got \[8, 2\]"):
        gradient_penalty(nn.Linear(2, 1), torch.zeros(1, 2), torch.zeros(8, 2))


@pytest.mark.parametrize("wrong", [(2, 3), (2, 9), (2, 1, 8, 8), (4,), (5, 0)])
def test_latents_of_another_width_are_refused(wrong):
    forest, got = LatentTransformationForest(4, out_dim=6), brackets(wrong)
    optimizer = torch.optim.Adam(forest.parameters())
    with pytest.raises(ValueError, match=rf"LatentTransformationForest: z must be \[N, 4\], got {got}"):
        forest(torch.zeros(wrong))
    with pytest.raises(ValueError, match=rf"LatentTransformationForest: z_g must be \[M, 4\], got {got}"):
        forest.fit(torch.zeros(5, 6), torch.zeros(wrong), optimizer, 1)
    with pytest.raises(ValueError, match=rf"LatentTransformationForest: z_r must be \[N, 6\], got {got}"):
        forest.fit(torch.zeros(wrong), torch.zeros(5, 4), optimizer, 1)
    for transform in (AffineTransform(4), MlpTransform(4, 8)):
        with pytest.raises(ValueError, match=rf"{type(transform).__name__}: z must be \[N, 4\], got {got}"):
            transform(torch.zeros(wrong))


def test_runs_are_counted():
    forest = stack([LatentTransformationForest(4) for _ in range(3)])
    for wrong in ((8, 4), (2, 8, 4), (3, 8, 5)):
        with pytest.raises(ValueError, match=rf"z must be \[3, N, 4\], got {brackets(wrong)}"):
            forest(torch.zeros(wrong))
    linear = stack([nn.Linear(4, 2) for _ in range(3)])
    norm = stack([nn.BatchNorm1d(4) for _ in range(3)])
    for wrong in ((8, 4), (2, 8, 4), (3, 8, 5), (1, 8, 4)):
        for layer, name in ((linear, "StackedLinear"), (norm, "StackedBatchNorm")):
            with pytest.raises(ValueError, match=rf"{name}: x must be \[3, N, 4\], got {brackets(wrong)}"):
                layer(torch.zeros(wrong))


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize(
    ("z_r", "transformed", "message"),
    [
        ((5, 2), (5, 3), r"F\(z_g\) must be \[M, 2\] with M >= 1, got \[5, 3\]"),
        ((5, 2), (5, 1), r"F\(z_g\) must be \[M, 2\] with M >= 1, got \[5, 1\]"),
        ((5, 2), (0, 2), r"F\(z_g\) must be \[M, 2\] with M >= 1, got \[0, 2\]"),
        ((5, 2), (2,), r"F\(z_g\) must be \[M, 2\] with M >= 1, got \[2\]"),
        ((3, 5, 2), (2, 5, 2), r"F\(z_g\) must be \[3, M, 2\] with M >= 1, got \[2, 5, 2\]"),
        ((3, 5, 2), (1, 5, 2), r"F\(z_g\) must be \[3, M, 2\] with M >= 1, got \[1, 5, 2\]"),
        ((3, 5, 2), (5, 2), r"F\(z_g\) must be \[3, M, 2\] with M >= 1, got \[5, 2\]"),
        ((0, 2), (5, 2), r"z_r must be \[..., N, d\] with N, d >= 1, got \[0, 2\]"),
        ((5,), (5,), r"z_r must be \[..., N, d\] with N, d >= 1, got \[5\]"),
    ],
)
def test_points_that_cannot_be_paired_are_refused(name, z_r, transformed, message):
    with pytest.raises(ValueError, match=message):
        PAIRINGS[name](torch.zeros(z_r), torch.zeros(transformed))


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (4.0,), (True,), ("4",), (-1,), (2**31,), (1, 2, 3, 4)])
def test_a_shape_of_no_samples_is_refused(shape):
    for make in (make_generator, make_critic, make_mover, make_features):
        with pytest.raises(ValueError, match=r"networks: shape must be \[D\] or \[C, H, W\]"):
            make(config("mlp"), shape)


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
@pytest.mark.parametrize("shape", [(2,), (), (0, 16, 16), (1, 16), (True, 16, 16)])
def test_convolutions_need_images(name, shape):
    for make in (make_generator, make_critic, make_features):
        with pytest.raises(ValueError, match=r"shape must be .*\[C, H, W\]"):
            make(config(name), shape)


def test_batch_norm_needs_two_samples_to_train():
    networks = [make_generator(config("mlp"), (4,), batch_norm=True) for _ in range(2)]
    with pytest.raises(
        ValueError, match=r"generator: noise must hold at least 2 samples to train with batch norm, got"
    ):
        networks[0](torch.zeros(1, 3))
    with pytest.raises(
        ValueError, match=r"generator: noise must hold at least 2 samples to train with batch norm, got"
    ):
        stack(networks)(torch.zeros(2, 1, 3))
    critic = make_critic(config("mlp"), (4,), batch_norm=True, bounded=True)
    with pytest.raises(
        ValueError, match=r"critic: x must hold at least 2 samples to train with batch norm, got \[1, 4\]"
    ):
        critic(torch.zeros(1, 4))
    norm = stack([nn.BatchNorm1d(4) for _ in range(2)])
    with pytest.raises(ValueError, match=r"StackedBatchNorm: x must hold at least 2 samples a run to train, got"):
        norm(torch.zeros(2, 1, 4))
    assert norm.eval()(torch.zeros(2, 1, 4)).shape == (2, 1, 4)
    assert networks[0].eval()(torch.zeros(1, 3)).shape == (1, 4)
