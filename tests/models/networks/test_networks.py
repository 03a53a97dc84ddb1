import pytest
import torch
from torch import nn

from models.networks import NetworkConfig, dcgan, make_critic, make_generator

IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]


@pytest.mark.parametrize(
    ("name", "shape"), [("mlp", (2,)), ("mlp", (1, 8, 8)), *[("dcgan", shape) for shape in IMAGES]]
)
def test_shapes_and_range(name, shape):
    config = NetworkConfig(name, width=6, depth=2, noise_dim=5)
    torch.manual_seed(0)
    fake = make_generator(config, shape)(100 * torch.randn(3, 5))
    assert fake.shape == (3, *shape)
    assert make_critic(config, shape)(fake).shape == (3,)
    assert (fake.abs().max() <= 1) == (len(shape) == 3)  # images end in tanh, points are linear


@pytest.mark.parametrize("shape", IMAGES)
def test_batch_norm_is_in_the_dcgan_generator_alone(shape):
    config = NetworkConfig("dcgan", width=4)
    norms = [
        sum(isinstance(m, nn.BatchNorm2d) for m in make(config, shape).modules())
        for make in (make_generator, make_critic)
    ]
    assert norms == [dcgan.levels(shape), 0]


def test_a_critic_scores_each_sample_alone():
    torch.manual_seed(0)
    critic, x = make_critic(NetworkConfig("dcgan", width=4), (3, 32, 32)), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(critic(x)[:2], critic(x[:2]), atol=1e-5, rtol=1e-5)


def test_every_pixel_of_an_image_depends_on_the_noise_and_reaches_the_critic():
    config = NetworkConfig("dcgan", width=4, noise_dim=3)
    torch.manual_seed(0)
    fakes = make_generator(config, (1, 28, 28))(torch.randn(64, 3))
    assert fakes.var(0).min() > 1e-4
    x = torch.randn(1, 1, 28, 28, requires_grad=True)
    (gradient,) = torch.autograd.grad(make_critic(config, (1, 28, 28))(x).sum(), x)
    assert gradient.abs().min() > 0


def test_he_initialisation_keeps_the_scale():
    """Var(output) = 2 E[relu(x)^2] = Var(x) layer by layer for the mean square of pre-activations."""
    torch.manual_seed(0)
    for layer, fan_in in [
        (make_critic(NetworkConfig("mlp", width=512), (64,))[1][2], 512),
        (make_critic(NetworkConfig("dcgan", width=32), (3, 32, 32))[0][2], 32 * 25),
        # One output pixel of a stride-2 transposed convolution sums a quarter of the kernel.
        (make_generator(NetworkConfig("dcgan", width=32), (3, 32, 32))[4], 128 * 25 / 4),
    ]:
        count = layer.weight.numel()
        # The relative error of a variance of `count` normals is sqrt(2 / count); five of those.
        assert layer.weight.var().item() == pytest.approx(2 / fan_in, rel=5 * (2 / count) ** 0.5)


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4), (1, 28, 32)])
def test_dcgan_refuses_what_it_cannot_draw(shape):
    with pytest.raises(ValueError, match=r"dcgan: shape must be \[C, H, W\] with H = W >= 8, got \["):
        make_generator(NetworkConfig("dcgan"), shape)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="NetworkConfig: width must be at least 1, got 0"):
        NetworkConfig(width=0)
