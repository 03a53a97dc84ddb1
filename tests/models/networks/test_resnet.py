"""The residual networks: structure against a plain computation, sizes by hand, scales, gradients, independence."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.networks import resnet
from models.networks.resnet import Block

SIZES = [16, 32, 64]
REFUSED = [(1, 28, 28), (3, 8, 8), (1, 4, 4), (3, 48, 48), (3, 32, 64), (32, 32), (2,), (1, 3, 32, 32)]


def count(module):
    return sum(p.numel() for p in module.parameters())


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def blocks(module):
    return [m for m in module.modules() if isinstance(m, Block)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_range(size, channels, randn):
    shape = (channels, size, size)
    fake = resnet.generator(5, shape, 4)(100 * randn(3, 5))
    assert fake.shape == (3, *shape)
    assert 0.5 < fake.abs().max() <= 1
    for batch_norm in (False, True):
        assert resnet.critic(shape, 4, batch_norm)(fake).shape == (3,)
        body, features = resnet.features(shape, 4, batch_norm)
        assert body(fake).shape == (3, features) == (3, 4)
        assert body(fake).min() >= 0  # means of rectified maps
    moved = resnet.mover(shape, 4)(100 * randn(3, *shape))
    assert moved.shape == (3, *shape)
    assert 0.5 < moved.abs().max() <= 1


@pytest.mark.parametrize("shape", [(2,), (32, 32), (1, 3, 32, 32), (1, 30, 28), (1, 28, 30)])
def test_the_mover_needs_two_halvings(shape):
    with pytest.raises(ValueError, match=r"mover: shape must be \[C, H, W\] with H and W multiples of 4, got \["):
        resnet.mover(shape, 4)


@pytest.mark.parametrize("shape", REFUSED)
@pytest.mark.parametrize(
    "make",
    [
        lambda shape: resnet.generator(5, shape, 4),
        lambda shape: resnet.critic(shape, 4),
        lambda shape: resnet.features(shape, 4),
    ],
    ids=["generator", "critic", "features"],
)
def test_other_shapes_are_refused(make, shape):
    message = (
        rf"resnet: shape must be \[C, H, W\] with H = W a power of two from 16, got \[{', '.join(map(str, shape))}\]"
    )
    with pytest.raises(ValueError, match=message):
        make(shape)


def test_parameters_of_wgan_gps_cifar10_networks():
    """128 maps, 128 noise units, 3x32x32; a 3x3 convolution of 128 maps has 128 * 128 * 9 + 128 = 147,584 parameters.

    critic     block 3 -> 128 down   3 * 128 * 9 + 128 = 3,584; 147,584; shortcut 3 * 128 + 128 = 512     151,680
               block 128 down        2 * 147,584; shortcut 128 * 128 + 128 = 16,512                      311,680
               two blocks 128        2 * 147,584 each, shortcuts without weights                         590,336
               linear 128 -> 1       128 + 1                                                                 129
    generator  linear 128 -> 2,048   128 * 2,048 + 2,048                                                 264,192
               three blocks up       311,680 and two batch norms of 2 * 128 each: 312,192                936,576
               batch norm, 128 -> 3  256; 128 * 3 * 9 + 3 = 3,459                                          3,715
    mover      as the critic's first two blocks with one and two batch norms: 151,936 + 312,192          464,128
               two blocks up 312,192 each; batch norm, 128 -> 3: 3,715                                   628,099
    """
    shape = (3, 32, 32)
    assert count(resnet.critic(shape, 128)) == 151_680 + 311_680 + 590_336 + 129 == 1_053_825
    # Batch norm in each layer but the first: 1 + 2 + 2 + 2 in the blocks and one after them.
    assert count(resnet.critic(shape, 128, batch_norm=True)) == 1_053_825 + 8 * 256
    assert count(resnet.generator(128, shape, 128)) == 264_192 + 936_576 + 3_715 == 1_204_483
    assert count(resnet.mover(shape, 128)) == 464_128 + 628_099 == 1_092_227


@pytest.mark.parametrize("size", SIZES)
def test_batch_norm_is_where_it_was_asked_for(size):
    shape, doublings = (3, size, size), {16: 2, 32: 3, 64: 4}[size]
    assert len(norms(resnet.generator(5, shape, 4))) == 2 * doublings + 1
    assert len(norms(resnet.critic(shape, 4))) == 0
    # Halvings to 8x8 and two more blocks, two each but for the first convolution's; one after the blocks.
    assert len(norms(resnet.critic(shape, 4, batch_norm=True))) == 2 * (doublings - 1 + 2) - 1 + 1
    assert len(norms(resnet.mover(shape, 4))) == 2 * 4 - 1 + 1


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_8x8_before_the_critics_mean(size, randn):
    body, _ = resnet.features((3, size, size), 4)
    outputs = []
    for block in blocks(body):
        block.register_forward_hook(lambda module, args, output: outputs.append(tuple(output.shape[1:])))
    body(randn(2, 3, size, size))
    halvings = {16: 1, 32: 2, 64: 3}[size]
    assert outputs == [(4, size >> k, size >> k) for k in range(1, halvings + 1)] + 2 * [(4, 8, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_the_mover_goes_down_twice_and_up_twice(size, randn):
    mover = resnet.mover((1, size, size), 4)
    outputs = []
    for block in blocks(mover):
        block.register_forward_hook(lambda module, args, output: outputs.append(tuple(output.shape[1:])))
    mover(randn(2, 1, size, size))
    assert outputs == [(4, size // k, size // k) for k in (2, 4, 2, 1)]
    assert isinstance(mover[-1], nn.Tanh)
    assert isinstance(mover[-3], nn.ReLU)
    assert mover[-2].kernel_size == (3, 3)


def plain_block(block, x, resample, batch_norm, first):
    """WGAN-GP's order: upsample before the convolutions, also the shortcut's; pool after them, also the shortcut's."""
    convolutions = [m for m in block.main if isinstance(m, nn.Conv2d)]

    def norm(h):  # batch norm at its first step: scales 1, shifts 0
        return F.batch_norm(h, None, None, training=True) if batch_norm else h

    def up(h):
        return h.repeat_interleave(2, -1).repeat_interleave(2, -2) if resample == "up" else h

    def down(h):
        return h.unfold(-2, 2, 2).unfold(-2, 2, 2).mean((-2, -1)) if resample == "down" else h

    h = x if first else norm(x).relu()
    for k, convolution in enumerate(convolutions):
        h = norm(h).relu() if k == 1 else up(h)
        h = F.conv2d(h, convolution.weight, convolution.bias, padding=1)
    if isinstance(block.shortcut, nn.Identity):
        return down(h) + x
    (one,) = (m for m in block.shortcut if isinstance(m, nn.Conv2d))
    assert one.weight.shape[2:] == (1, 1)
    return down(h) + down(F.conv2d(up(x), one.weight, one.bias))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("channels", "out"), [(3, 5), (4, 4)])
@pytest.mark.parametrize("resample", ["up", "down", "same"])
def test_a_block_is_wgan_gps(resample, channels, out, first, batch_norm, randn):
    """The shortcut's 1x1 convolution and its bias commute with both resamplings: equal to rounding.

    In float64 each output sums some 100 numbers of size one: 100 * 100 * 2^-53 = 1e-12.
    """
    block = Block(channels, out, resample, batch_norm=batch_norm, first=first).double()
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias)  # He's biases are 0, which would hide one
    x = randn(2, channels, 8, 8, dtype=torch.float64)
    y = block(x)
    side = {"up": 16, "down": 4, "same": 8}[resample]
    assert y.shape == (2, out, side, side)
    torch.testing.assert_close(y, plain_block(block, x, resample, batch_norm, first), atol=1e-12, rtol=0)


def test_the_first_block_alone_takes_the_image_as_it_is():
    shape = (3, 32, 32)
    for network in (resnet.critic(shape, 4, batch_norm=True), resnet.mover(shape, 4)):
        first, *others = blocks(network)
        assert isinstance(first.main[0], nn.Conv2d)
        assert all(isinstance(b.main[0], nn.BatchNorm2d) and isinstance(b.main[1], nn.ReLU) for b in others)
    for block in blocks(resnet.generator(5, shape, 4)):  # its input is no image
        assert isinstance(block.main[0], nn.BatchNorm2d)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_reach_the_input_and_every_parameter_of_a_critic(size, batch_norm, randn):
    x = randn(4, 3, size, size).requires_grad_()
    critic = resnet.critic((3, size, size), 16, batch_norm)
    critic(x).square().sum().backward()
    assert (x.grad != 0).float().mean() > 0.99  # a pixel may by chance see dead maps alone
    # A bias before batch norm is subtracted again, and rounding alone gives it a gradient: weights tell.
    assert all(
        (p.grad != 0).any() for name, p in critic.named_parameters() if name.endswith("weight") or not batch_norm
    )


@pytest.mark.parametrize("size", SIZES)
def test_gradients_reach_the_noise_and_the_moved_image(size, randn):
    shape = (3, size, size)
    for network, x in [
        (resnet.generator(6, shape, 16), randn(4, 6)),
        (resnet.mover(shape, 16), randn(4, *shape)),
    ]:
        x.requires_grad_()
        (randn(4, *shape) * network(x)).sum().backward()
        assert (x.grad != 0).float().mean() > 0.99  # a pixel may by chance see dead maps alone
        assert all((p.grad != 0).any() for name, p in network.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_critic_sees_samples_alone_unless_it_has_batch_norm(batch_norm, randn):
    x = randn(4, 3, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(resnet.critic((3, 16, 16), 16, batch_norm)(x)[0], x)
    assert (gradient[0] != 0).all()
    assert (gradient[1:] != 0).any().item() == batch_norm


def test_he_initialisation_keeps_a_blocks_scale(randn):
    """For x ~ N(0, 1) both branches have mean square 1, away from the zero padding.

    main      relu halves the mean square, He's 2 / fan_in doubles it, twice.
    shortcut  no relu before it: gain^2 * 2 / fan_in = 1 / fan_in.
    One draw of the weights scatters about that. An output channel is w' S w for normal w, so its relative variance is
    2 tr(S^2) / tr(S)^2 with S the inputs' second moments. After relu the mean, 2 / pi of the mean square, is one
    eigenvalue: 2 (2 / pi)^2 = 0.81, over 64 channels and two layers sqrt(2 * 0.81 / 64) = 0.16; without it 2 / 64 per
    channel, sqrt(2 / 64 / 64) = 0.022. Five of those.
    """
    for resample in ("up", "same"):
        block, x = Block(64, 65, resample), randn(4, 64, 16, 16)
        assert block.main(x)[..., 4:-4, 4:-4].square().mean().item() == pytest.approx(1, abs=5 * 0.16)
        assert block.shortcut(x).square().mean().item() == pytest.approx(1, abs=5 * 0.022)


@pytest.mark.parametrize("size", SIZES)
def test_he_initialisation_keeps_a_networks_scale(size, randn):
    """Expected mean squares, for images of mean square 1: a block adds the mean squares of its branches.

    Each branch keeps its input's (see above), but the first block's main branch doubles it: no relu before its first
    convolution. Averages of four pixels, uncorrelated or equal, keep a quarter to all of it. So the first block gives
    0.75 to 3, a later halving 0.5 to 2 times its input, a block at 8x8 twice its input, and relu and the mean over
    pixels at most their input. The scatter of up to five blocks of 32 maps, sqrt(5 * 2 * 0.81 / 32) = 0.5: twice and
    half that.
    """
    body, _ = resnet.features((3, size, size), 32)
    outputs = []
    for block in blocks(body):
        block.register_forward_hook(lambda module, args, output: outputs.append(output.square().mean().item()))
    features = body(randn(8, 3, size, size))
    low, high = 0.75, 3.0
    for k, mean_square in enumerate(outputs):
        if k > 0:
            low, high = low * (2 if k >= len(outputs) - 2 else 0.5), 2 * high
        assert low / 2 < mean_square < 2 * high
    assert features.square().mean().item() < 2 * high


@pytest.mark.parametrize("size", SIZES)
def test_a_generators_blocks_add_one_to_the_mean_square(size, randn):
    """Batch norm feeds every main branch mean square 1, which it keeps (see above); noise ~ N(0, 1) starts at 2.

    Zero padding takes up to a tenth of it at 8x8, a block's scatter is 0.16 of what it adds, and five of that; the
    linear layer's scatter is sqrt(2 / 128) = 0.125 of 2 (128 noise units, 64 * 16 outputs share them).
    """
    generator = resnet.generator(128, (3, size, size), 64)
    outputs = []
    for block in blocks(generator):
        block.register_forward_hook(lambda module, args, output: outputs.append(output.square().mean().item()))
    generator(randn(16, 128))
    for k, mean_square in enumerate(outputs, 1):
        assert mean_square == pytest.approx(2 + k, abs=5 * (0.25**2 + k * 0.16**2) ** 0.5)
