import functools
import math

import pytest
import torch
from torch import nn

from models.games import WaeGan
from models.networks import NetworkConfig
from tests.models.games.players import (
    Affine,
    LinearCritic,
    QuadraticCritic,
    Shift,
    minimise,
    mlp,
    normal_grid,
    play,
    turns,
)


def softplus(x):
    return math.log1p(math.exp(x))


def test_losses_by_hand():
    config = WaeGan.Config(mlp(), adversary_weight=3.0)
    game = WaeGan(config, Affine([[1.0], [2.0]], [0.0]), Affine([[1.0, -1.0]], [1.0, 0.0]), LinearCritic([2.0], -1.0))
    real, noise = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0], [2.0]])
    # Q(x) = x1 + 2 x2 = 1 and 2, logits 2 Q - 1 = 1 and 3; logits of the prior's -1 and 3.
    loss = game.loss("discriminator", real, noise)
    on_prior, on_code = (softplus(1) + softplus(-3)) / 2, (softplus(1) + softplus(3)) / 2
    assert loss.terms["prior"].item() == pytest.approx(on_prior)
    assert loss.terms["code"].item() == pytest.approx(on_code)
    assert loss.value.item() == pytest.approx(on_prior + on_code)
    # G(Q(x)) = (2, -1) and (3, -2): squared errors 1 + 1 and 9 + 9.
    loss = game.loss("autoencoder", real, noise)
    adversary = (softplus(-1) + softplus(-3)) / 2
    assert loss.terms["squared_error"].item() == pytest.approx(10)
    assert loss.terms["adversary"].item() == pytest.approx(adversary)
    assert loss.value.item() == pytest.approx(10 + 3 * adversary)
    torch.testing.assert_close(game.sample(noise).detach(), torch.tensor([[1.0, 0.0], [3.0, -2.0]]))
    torch.testing.assert_close(game.reconstruct(real).detach(), torch.tensor([[2.0, -1.0], [3.0, -2.0]]))


def test_the_squared_error_is_summed_over_an_image():
    config = WaeGan.Config(NetworkConfig("dcgan", width=4, noise_dim=3), adversary_weight=0.0)
    game = WaeGan.build(config, (2, 8, 8)).eval()
    real = torch.rand(5, 2, 8, 8)
    loss = game.loss("autoencoder", real, torch.zeros(5, 3)).value.item()
    output = game.sample(game.autoencoder["encoder"](real))
    assert loss == pytest.approx((real - output).square().sum().item() / 5, rel=1e-5)


def test_the_best_discriminator_is_the_log_density_ratio_of_codes():
    """Of the prior N(0, 1) to codes N(1, 2^2): log 2 - z^2 / 2 + (z - 1)^2 / 8."""
    game = WaeGan(WaeGan.Config(mlp()), Affine([[2.0]], [1.0]), Shift([0.0]), QuadraticCritic([0.0, 0.0]))
    minimise(game, "discriminator", normal_grid(2048), normal_grid(2048))
    # A grid's last cells weigh 1 / 2048 each, and z^2 varies by a few units inside: errors of a few 1e-3 in the
    # moments.
    weight, bias = game.players["discriminator"].parameters()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.25, -0.375]), atol=0.01, rtol=0)
    assert bias.item() == pytest.approx(math.log(2) + 1 / 8, abs=0.01)


def test_reconstruction_alone_inverts_the_encoder():
    """Without an adversary a linear auto-encoder of full width reconstructs every point."""
    config = WaeGan.Config(mlp(2), adversary_weight=0.0)
    encoder, decoder = Affine([[1.0, 0.5], [0.0, 1.0]], [1.0, 0.0]), Affine([[0.5, 0.0], [0.0, 0.5]], [0.0, 0.0])
    game = WaeGan(config, encoder, decoder, LinearCritic([5.0, 5.0]))
    real = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    minimise(game, "autoencoder", real, torch.zeros(4, 2))
    torch.testing.assert_close(
        decoder(encoder(real)), real, atol=1e-4, rtol=0
    )  # gradients of 1e-6, curvature above 0.1


def test_the_game_reconstructs_and_its_codes_become_the_prior():
    """N(1, 0.5^2), linear encoder and decoder, quadratic discriminator: codes N(0, 1) are Q(x) = 2 x - 2 (from Q(x) =
    x, and not its mirror image), and the exact decoder is G(z) = z / 2 + 1. Adam settles within 300 rounds; 600 are
    played. A wrong sign in D or of the adversary drives the codes from the prior, one of the error the decoder from the
    data."""
    config = WaeGan.Config(mlp(), adversary_weight=1.0)
    game = WaeGan(config, Affine([[1.0]], [0.0]), Affine([[1.0]], [0.0]), QuadraticCritic([0.0, 0.0]))
    adam = functools.partial(torch.optim.Adam, betas=(0.5, 0.999))
    play(game, normal_grid(256, 1.0, 0.5), normal_grid(256), 600, {"discriminator": 0.1, "autoencoder": 0.01}, adam)
    # Adam's steps are of size lr near the end, too: 0.01 each, and twice that for the code, in which a + b x both move.
    encoder, decoder = game.autoencoder["encoder"], game.autoencoder["generator"]
    assert encoder.weight.item() == pytest.approx(2, abs=0.02)
    assert encoder.bias.item() == pytest.approx(-2, abs=0.02)
    assert decoder.weight.item() == pytest.approx(0.5, abs=0.02)
    assert decoder.bias.item() == pytest.approx(1, abs=0.02)


def test_players_and_order():
    often = WaeGan.build(WaeGan.Config(mlp(4), discriminator_steps=3), (2,))
    assert turns(often) == [("discriminator", 3, True), ("autoencoder", 1, False)]
    game = WaeGan.build(WaeGan.Config(mlp(4)), (2,))
    assert list(game.players) == ["discriminator", "autoencoder"]
    assert list(game.autoencoder) == ["encoder", "generator"]
    assert turns(game) == [("discriminator", 1, True), ("autoencoder", 1, False)]
    assert game.draw_noise(5).shape == game.autoencoder["encoder"](torch.zeros(5, 2)).shape == (5, 4)
    assert game.sample(game.draw_noise(5)).shape == (5, 2)
    assert isinstance(game.autoencoder, nn.ModuleDict)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"WaeGanConfig: adversary_weight must not be negative, got -1.0"):
        WaeGan.Config(adversary_weight=-1.0)
    with pytest.raises(ValueError, match=r"WaeGanConfig: discriminator_steps must be at least 1, got 0"):
        WaeGan.Config(discriminator_steps=0)
