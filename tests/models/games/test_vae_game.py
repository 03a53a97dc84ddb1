import math

import pytest
import torch
from torch import nn

from models.games import VaeGame
from models.networks import NetworkConfig


def tiny(noise_scale=0.5):
    torch.manual_seed(0)
    return VaeGame.build(VaeGame.Config(NetworkConfig("mlp", width=4, depth=1, noise_dim=2), noise_scale), (3,))


def test_loss_by_hand():
    game = tiny()
    encoder, decoder = game.vae.encoder, game.vae.decoder
    for module in (encoder.head, decoder[-1]):
        nn.init.zeros_(module.weight)
    with torch.no_grad():
        encoder.head.bias.copy_(torch.tensor([1.0, -2.0, 0.0, math.log(4)]))  # mean, log-variance
        decoder[-1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    loss = game.loss("vae", torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]), torch.zeros(2, 2))
    # squared errors 2 and 4; KL = (1 + 1 - 1 - 0) / 2 + (4 + 4 - 1 - log 4) / 2
    kl = 0.5 + (7 - math.log(4)) / 2
    # and -log of three normal densities N(0, 0.25), with squared errors of 3 in the mean
    reconstruction = 3 / (2 * 0.25) + 1.5 * math.log(2 * math.pi * 0.25)
    assert loss.terms["reconstruction"].item() == pytest.approx(reconstruction)
    assert loss.terms["kl"].item() == pytest.approx(kl)
    assert loss.value.item() == pytest.approx(reconstruction + kl)


def test_a_linear_vae_learns_the_principal_axis():
    """Tipping & Bishop's probabilistic PCA: for data N(0, diag(4, 0.01)) and decoder noise 0.5, a linear VAE's decoder
    has |W|^2 = 4 - 0.25 along the first axis and none along the second, whose variance is below the noise."""
    torch.manual_seed(0)
    game = VaeGame.build(VaeGame.Config(NetworkConfig("mlp", width=1, noise_dim=1)), (2,))
    game.vae.encoder.body, game.vae.encoder.head = nn.Identity(), nn.Linear(2, 2)
    game.vae.decoder = nn.Linear(1, 2)
    optimizer = torch.optim.Adam(game.parameters(), lr=0.02)
    for step in range(1500):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 1500)
        real = torch.randn(128, 2) * torch.tensor([2.0, 0.1])
        game.step("vae", real, game.draw_noise(128), optimizer)
    weight = game.vae.decoder.weight.detach()[:, 0]
    # 128 samples a step estimate a variance to 12 %; Adam's falling rate averages some hundred steps: below 5 %.
    assert weight[0].abs().item() == pytest.approx(math.sqrt(3.75), rel=0.05)
    assert weight[1].abs().item() < 0.05


def test_sample_and_reconstruct_have_the_samples_shape():
    game = tiny()
    assert game.sample(game.draw_noise(5)).shape == game.reconstruct(torch.randn(5, 3)).shape == (5, 3)
    assert game.draw_noise(5).shape == (5, 2)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="VaeConfig: noise_scale must be positive, got 0"):
        tiny(0.0)
    with pytest.raises(ValueError, match="VaeGame: player must be one of vae, got 'critic'"):
        tiny().loss("critic", torch.zeros(1, 3), torch.zeros(1, 2))
