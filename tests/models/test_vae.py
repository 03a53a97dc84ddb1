import pytest
import torch

from models.networks import NetworkConfig
from models.vae import VAE


@pytest.mark.parametrize(
    ("name", "shape"), [("mlp", (3,)), ("dcgan", (1, 28, 28)), ("dcgan", (3, 32, 32)), ("dcgan", (3, 64, 64))]
)
def test_shapes(name, shape):
    torch.manual_seed(0)
    vae = VAE(NetworkConfig(name, width=4, noise_dim=7), shape)
    x = torch.rand(5, *shape) * 2 - 1
    output, mean, log_variance = vae(x, torch.randn(5, 7))
    assert output.shape == x.shape == vae.reconstruct(x).shape
    assert mean.shape == log_variance.shape == (5, 7)
    assert vae.latent_dim == vae.encoder.latent_dim == 7
    assert torch.equal(vae.encoder(x), mean)


def test_noise_is_scaled_by_the_posteriors_deviation():
    torch.manual_seed(0)
    vae = VAE(NetworkConfig("mlp", width=8, noise_dim=2), (3,))
    vae.decoder = torch.nn.Identity()
    noise = torch.randn(4, 2)
    z, mean, log_variance = vae(torch.randn(4, 3), noise)
    torch.testing.assert_close(z, mean + noise * log_variance.exp().sqrt())


def test_state_round_trip():
    config = NetworkConfig("dcgan", width=4, noise_dim=3)
    torch.manual_seed(0)
    vae, other = VAE(config, (1, 8, 8)), VAE(config, (1, 8, 8))
    vae(torch.randn(8, 1, 8, 8), torch.randn(8, 3))  # moves the batch norm's running statistics
    other.load_state_dict(vae.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(vae.eval().reconstruct(x), other.eval().reconstruct(x))
