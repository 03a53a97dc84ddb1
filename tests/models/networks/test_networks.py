"""The networks by name: shapes, ranges, batch norm where asked, what depends on what."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.networks import (
    NetworkConfig,
    dcgan,
    make_critic,
    make_encoder,
    make_features,
    make_generator,
    make_latent_critic,
    make_mover,
    make_pair_critic,
)

IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]
SMALL = [("mlp", (2,)), ("mlp", (1, 8, 8)), ("dcgan", (1, 28, 28)), ("dcgan", (3, 32, 32)), ("resnet", (3, 32, 32))]
EVERY = [*SMALL, ("dcgan", (1, 8, 8)), ("dcgan", (3, 64, 64)), ("resnet", (1, 16, 16)), ("resnet", (3, 64, 64))]

small = pytest.mark.parametrize(("name", "shape"), SMALL)
every = pytest.mark.parametrize(("name", "shape"), EVERY)


def config_of(name, **sizes):
    return NetworkConfig(name, **{"width": 6, "depth": 2, "noise_dim": 5, **sizes})


def encoder_of_two(config, shape):
    return make_encoder(config, shape, 2)


def pair_critic_of_two(config, shape):
    return make_pair_critic(config, shape, 2)


def norms(module):
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in module.modules())


@every
def test_shapes_and_range(name, shape, randn):
    config = config_of(name)
    fake = make_generator(config, shape)(100 * randn(3, 5))
    assert fake.shape == (3, *shape)
    assert make_critic(config, shape)(fake).shape == (3,)
    assert (fake.abs().max() <= 1) == (len(shape) == 3)  # images end in tanh, points are linear
    assert make_encoder(config, shape, 7)(fake).shape == (3, 7)
    body, size = make_features(config, shape)
    assert body(fake).shape == (3, size)


@small
def test_a_bounded_critic_is_the_tanh_of_the_critic(name, shape, randn):
    config, x = config_of(name), 10 * randn(4, *shape)
    torch.manual_seed(0)
    plain = make_critic(config, shape)
    torch.manual_seed(0)
    bounded = make_critic(config, shape, bounded=True)
    assert bounded(x).shape == (4,)
    assert torch.equal(bounded(x), plain(x).tanh())


@every
def test_batch_norm_is_in_a_critic_only_if_asked_for(name, shape):
    config = config_of(name)
    assert norms(make_critic(config, shape)) == 0
    expected = {
        "mlp": config.depth,
        "dcgan": dcgan.levels(shape) - 1 if name == "dcgan" else 0,  # all but the first
        "resnet": 2 * ({16: 1, 32: 2, 64: 3}.get(shape[-1], 0) + 2),  # all but the first, one at the end
    }
    assert norms(make_critic(config, shape, batch_norm=True)) == expected[name]
    assert norms(make_critic(config, shape, batch_norm=True, bounded=True)) == expected[name]
    assert norms(make_encoder(config, shape, 7)) == norms(make_pair_critic(config, shape, 7)) == 0


@every
def test_batch_norm_is_in_every_convolutional_generator(name, shape):
    config = config_of(name)
    plain, asked = (norms(make_generator(config, shape, batch_norm=b)) for b in (False, True))
    if name == "mlp":
        assert (plain, asked) == (0, config.depth)
    else:
        levels = dcgan.levels(shape)  # doublings from 4x4; two norms in each block of resnet and one more
        assert plain == asked == (levels if name == "dcgan" else 2 * levels + 1)


@small
def test_a_critic_scores_each_sample_alone_unless_it_has_batch_norm(name, shape, randn):
    """What a gradient penalty needs: no derivative of one score by another sample, to the last bit."""
    x = randn(4, *shape).requires_grad_()
    for batch_norm in (False, True):
        score = make_critic(config_of(name, width=16), shape, batch_norm=batch_norm)(x)[1]
        (gradient,) = torch.autograd.grad(score, x)
        assert gradient[1].any()
        assert gradient[[0, 2, 3]].any().item() == batch_norm


@small
def test_a_pair_critic_depends_on_both(name, shape, randn):
    critic = make_pair_critic(config_of(name, width=16), shape, 7)
    z, x = randn(4, 7).requires_grad_(), randn(4, *shape).requires_grad_()
    scores = critic(z, x)
    assert scores.shape == (4,)
    grad_z, grad_x = torch.autograd.grad(scores[1], (z, x))
    assert grad_z[1].all()
    assert (grad_x[1] != 0).float().mean() > 0.9  # stride 2 on 28 pixels may leave out a border
    assert not grad_z[[0, 2, 3]].any()
    assert not grad_x[[0, 2, 3]].any()


def test_a_pair_critic_of_points_takes_both_through_all_layers(randn):
    critic = make_pair_critic(config_of("mlp", width=6, depth=3), (2,), 7)
    sizes = [(m.in_features, m.out_features) for m in critic.modules() if isinstance(m, nn.Linear)]
    assert sizes == [(9, 6), (6, 6), (6, 6), (6, 1)]


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_a_pair_critic_of_images_joins_them_in_one_hidden_layer(name):
    config, shape = config_of(name), (3, 32, 32)
    _, size = make_features(config, shape)
    sizes = [
        (m.in_features, m.out_features) for m in make_pair_critic(config, shape, 7).head[1] if hasattr(m, "weight")
    ]
    assert sizes == [(size + 7, 24), (24, 1)]


@pytest.mark.parametrize(("name", "hidden"), [("mlp", [16] * 2), ("dcgan", [64] * 3), ("resnet", [64] * 3)])
def test_a_latent_critic_is_fully_connected(name, hidden, randn):
    critic = make_latent_critic(config_of(name, width=16), 7)
    assert [m.out_features for m in critic.modules() if isinstance(m, nn.Linear)] == [*hidden, 1]
    z = randn(4, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(z)[1], z)
    assert critic(z).shape == (4,)
    assert gradient[1].all()
    assert not gradient[[0, 2, 3]].any()


@pytest.mark.parametrize(("name", "shape"), [s for s in EVERY if s[1][-1] not in (8, 28) or s[0] == "mlp"])
def test_a_mover_keeps_the_shape(name, shape, randn):
    mover, x = make_mover(config_of(name, width=16), shape), randn(4, *shape).requires_grad_()
    moved = mover(100 * x)
    assert moved.shape == x.shape
    assert (moved.abs().max() <= 1) == (len(shape) == 3)
    assert norms(mover) == (0 if name == "mlp" else 8)
    (gradient,) = torch.autograd.grad(mover(x).square().sum(), x)  # near 0 tanh is not saturated
    assert (gradient != 0).all()


@small
@pytest.mark.parametrize("make", [make_critic, encoder_of_two])
def test_gradients_reach_the_first_layer(make, name, shape, randn):
    network = make(config_of(name, width=16), shape)
    network(randn(8, *shape)).square().sum().backward()
    first = next(m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    assert first.weight.grad.abs().sum(tuple(range(1, first.weight.dim()))).count_nonzero() >= 8  # of 16 units


@pytest.mark.parametrize(("name", "shape"), [("dcgan", (1, 28, 28)), ("resnet", (1, 32, 32))])
def test_every_pixel_of_an_image_depends_on_the_noise_and_reaches_the_critic(name, shape, randn):
    config = config_of(name, width=16, noise_dim=3)
    fakes = make_generator(config, shape)(randn(64, 3))
    assert fakes.var(0).min() > 1e-4
    x = randn(1, *shape).requires_grad_()
    (gradient,) = torch.autograd.grad(make_critic(config, shape)(x).sum(), x)
    assert gradient.abs().min() > 0


def test_he_initialisation_keeps_the_scale_of_dcgan_critics(randn):
    """He's variance for ReLU, under LeakyReLU(0.2): mean squares grow by 1 + 0.2^2 per layer and lose by zero padding.

    So pre-activations of the L layers are below 2 * 1.04^L (the first sees no relu) and above 2 * 0.5^L, half of the
    25 products at a corner being padding at 4x4; a draw of 32 maps scatters by sqrt(2 * 0.81 / 32) = 0.22 a layer
    (test_resnet.py): twice and half of that.
    """
    body = make_critic(NetworkConfig("dcgan", width=32), (3, 32, 32))[0]
    outputs = []
    for layer in body:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, args, output: outputs.append(output.square().mean().item()))
    body(randn(16, 3, 32, 32))
    for k, mean_square in enumerate(outputs):
        assert 0.5 * 2 * 0.5**k < mean_square < 2 * 2 * 1.04**k


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4), (1, 28, 32), (28, 28)])
def test_dcgan_refuses_what_it_cannot_draw(shape):
    with pytest.raises(ValueError, match=r"dcgan: shape must be \[C, H, W\] with H = W >= 8, got \["):
        make_generator(NetworkConfig("dcgan"), shape)


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8), (1, 28, 28), (3, 32, 64)])
@pytest.mark.parametrize("make", [make_generator, make_critic, make_features, encoder_of_two, pair_critic_of_two])
def test_resnet_refuses_what_it_cannot_draw(make, shape):
    with pytest.raises(
        ValueError, match=r"resnet: shape must be \[C, H, W\] with H = W a power of two from 16, got \["
    ):
        make(NetworkConfig("resnet", width=4), shape)


@pytest.mark.parametrize("name", ["width", "depth", "noise_dim"])
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match=f"NetworkConfig: {name} must be at least 1, got 0"):
        NetworkConfig(**{name: 0})
