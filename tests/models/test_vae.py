from __future__ import annotations

import pytest
import torch

from models.networks import NetworkConfig
from models.vae import VAE

SHAPES = [
    ("mlp", (3,)),
    ("mlp", (1, 8, 8)),
    ("dcgan", (1, 28, 28)),
    ("dcgan", (3, 32, 32)),
    ("dcgan", (3, 64, 64)),
    ("resnet", (1, 16, 16)),
    ("resnet", (3, 32, 32)),
    ("resnet", (3, 64, 64)),
]


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_shapes(name, shape, randn):
    vae = VAE(NetworkConfig(name, width=4, noise_dim=7), shape)
    x = randn(5, *shape).tanh()
    output, mean, log_variance = vae(x, randn(5, 7))
    assert output.shape == x.shape == vae.reconstruct(x).shape
    assert mean.shape == log_variance.shape == (5, 7)
    assert vae.latent_dim == vae.encoder.latent_dim == 7
    assert torch.equal(vae.encoder(x), mean)


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_gradients_reach_both_halves(name, shape, randn):
    """The encoder by the reconstruction alone, through the sampled latent."""
    vae = VAE(NetworkConfig(name, width=16, noise_dim=7), shape)
    x = randn(8, *shape).tanh().requires_grad_()
    (vae(x, randn(8, 7))[0] - x.detach()).square().sum().backward()
    assert (x.grad != 0).float().mean() > 0.9
    weights = {name: p for name, p in vae.named_parameters() if name.endswith("weight")}
    assert [name for name, p in weights.items() if not p.grad.any()] == []


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_the_posterior_starts_near_the_prior(name, randn):
    """exp(log_variance) cannot overflow in the first steps: the head has a tenth of He's deviation.

    Features have a mean square of at most 3 * 2^3 = 24 for images of mean square 1 (resnet: test_resnet.py; dcgan's is
    less), so the head's outputs at most 0.1^2 * 2 * 24 = 0.48, a deviation of 0.7; of 4,096 normals none is beyond 5.7
    deviations (one in 50,000,000 is). A gain of 1 gives a hundred times the square.
    """
    mean, log_variance = VAE(NetworkConfig(name, width=32), (3, 32, 32)).encoder.moments(randn(32, 3, 32, 32))
    assert mean.square().mean() < 0.5
    assert log_variance.square().mean() < 0.5
    assert log_variance.abs().max() < 5.7 * 0.7


def test_noise_is_scaled_by_the_posteriors_deviation(randn):
    vae = VAE(NetworkConfig("mlp", width=8, noise_dim=2), (3,))
    vae.decoder = torch.nn.Identity()
    noise = randn(4, 2)
    z, mean, log_variance = vae(randn(4, 3), noise)
    torch.testing.assert_close(z, mean + noise * log_variance.exp().sqrt())


@pytest.mark.parametrize(("name", "shape"), [("dcgan", (1, 8, 8)), ("resnet", (1, 16, 16))])
def test_state_round_trip(name, shape, randn):
    config = NetworkConfig(name, width=4, noise_dim=3)
    vae, other = VAE(config, shape), VAE(config, shape)
    vae(randn(8, *shape), randn(8, 3))  # moves the batch norm's running statistics
    x = randn(2, *shape)
    assert not torch.equal(vae.eval().reconstruct(x), other.eval().reconstruct(x))
    other.load_state_dict(vae.state_dict())
    assert torch.equal(vae.reconstruct(x), other.reconstruct(x))


def test_resnet_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match=r"resnet: shape must be \[C, H, W\] .* got \[1, 28, 28\]"):
        VAE(NetworkConfig("resnet", width=4), (1, 28, 28))
