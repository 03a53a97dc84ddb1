import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from models.games import Dcgan, Gan
from models.networks import NetworkConfig
from tests.models.games.players import (
    LinearCritic,
    Point,
    QuadraticCritic,
    Shift,
    minimise,
    mlp,
    normal_grid,
    play,
    turns,
)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize("kind", [Gan, Dcgan])
def test_losses_by_hand(kind):
    game = kind(kind.Config(mlp()), Point([1.0]), LinearCritic([2.0], -1.0))
    real, noise = torch.tensor([[0.0], [3.0]]), torch.zeros(2, 1)
    # Logits 2 x - 1: of the real points -1 and 5, of the generated one 1.
    loss = game.loss("discriminator", real, noise)
    on_real = -(log_sigmoid(-1) + log_sigmoid(5)) / 2
    on_fake = -math.log(1 - 1 / (1 + math.exp(-1)))
    assert loss.value.item() == pytest.approx(on_real + on_fake)
    assert loss.terms["real"].item() == pytest.approx(on_real)
    assert loss.terms["fake"].item() == pytest.approx(on_fake)
    assert game.loss("generator", real, noise).value.item() == pytest.approx(-log_sigmoid(1))


def test_the_generator_loss_does_not_saturate():
    """Where D is sure of a fake, logit -40, the gradient in the logit is -sigmoid(40) = -1 and not 0; and the loss of a
    logit of +-200 is finite."""
    game = Gan(Gan.Config(mlp()), Point([-40.0]), LinearCritic([1.0]))
    game.loss("generator", torch.zeros(1, 1), torch.zeros(1, 1)).value.backward()
    assert game.players["generator"].point.grad.item() == pytest.approx(-1)
    for logit in (-200.0, 200.0):
        game = Gan(Gan.Config(mlp()), Point([logit]), LinearCritic([1.0]))
        for player in game.players:
            assert game.loss(player, torch.tensor([[-logit]]), torch.zeros(1, 1)).value.isfinite()


def test_the_best_discriminator_is_the_log_density_ratio():
    """Goodfellow et al.'s Proposition 1: its logit is log p_real / p_fake. For N(1, 1) against N(0, 2^2) that is
    log 2 - (x - 1)^2 / 2 + x^2 / 8 = x - (3/8) x^2 + log 2 - 1/2."""
    game = Gan(Gan.Config(mlp()), nn.Linear(1, 1, bias=False), QuadraticCritic([0.0, 0.0]))
    nn.init.constant_(game.players["generator"].weight, 2.0)
    real, noise = normal_grid(2048, 1.0), normal_grid(2048)
    minimise(game, "discriminator", real, noise)
    # A grid's last cells weigh 1 / 2048 each, and x^2 varies by a few units inside: errors of a few 1e-3 in the
    # moments.
    discriminator = game.players["discriminator"]
    torch.testing.assert_close(discriminator.weight.detach(), torch.tensor([1.0, -0.375]), atol=0.01, rtol=0)
    assert discriminator.bias.item() == pytest.approx(math.log(2) - 0.5, abs=0.01)


def test_the_game_finds_a_mean():
    """N(1, 1), a generator N(b, 1) from b = -1 and a linear discriminator w x + c. To first order at b = 1, D = 0 a
    round is five steps of D against the gradient (b - 1, 0) / 2 + (w, c) [[2, 1], [1, 1]] / 2 and one of G against -w /
    2: its spectral radius is 0.895, and 100 rounds leave 2e-5. A wrong sign of either player moves away; a generator
    that its loss does not reach stays at -1."""
    game = Gan(Gan.Config(mlp(), discriminator_steps=5), Shift([-1.0]), LinearCritic([0.0]))
    play(game, normal_grid(256, 1.0), normal_grid(256), 100, {"discriminator": 1.0, "generator": 0.2})
    assert game.players["generator"].shift.item() == pytest.approx(1, abs=1e-3)
    assert game.players["discriminator"].weight.item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", [Gan, Dcgan])
def test_players_and_order(kind):
    game = kind.build(kind.Config(mlp(), discriminator_steps=3), (2,))
    assert list(game.players) == ["discriminator", "generator"]
    assert turns(game) == [("discriminator", 3, True), ("generator", 1, True)]
    assert kind.Config().discriminator_steps == 1


@pytest.mark.parametrize(("networks", "shape", "norm"), [
    (replace(mlp(8), width=64), (2,), nn.BatchNorm1d),
    (NetworkConfig("dcgan", width=16, noise_dim=8), (3, 32, 32), nn.BatchNorm2d),
])  # fmt: skip
def test_dcgan_has_batch_norm_in_both_networks_and_small_normal_weights(networks, shape, norm):
    """Radford et al. 2016, section 3: batch norm in both networks, weights N(0, 0.02^2)."""
    assert Dcgan.Config().networks.init == "normal"
    game = Dcgan.build(Dcgan.Config(replace(networks, init="normal")), shape)
    plain = Gan.build(Gan.Config(networks), shape)
    assert any(isinstance(layer, norm) for layer in game.players["generator"].modules())
    assert any(isinstance(layer, norm) for layer in game.players["discriminator"].modules())
    assert not any(isinstance(layer, norm) for layer in plain.players["discriminator"].modules())
    for network in game.players.values():
        weights = torch.cat([
            layer.weight.flatten() for layer in network.modules()
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        ])  # fmt: skip
        # n weights: standard errors 0.02 / sqrt(n) of the mean and 0.02 / sqrt(2 n) of the deviation; five of each.
        assert weights.mean().abs() < 5 * 0.02 / len(weights) ** 0.5
        assert abs(weights.std() - 0.02) < 5 * 0.02 / (2 * len(weights)) ** 0.5


@pytest.mark.parametrize("kind", [Gan, Dcgan])
def test_bad_settings_are_named(kind):
    message = f"{kind.__name__}Config: discriminator_steps must be at least 1, got 0"
    with pytest.raises(ValueError, match=message):
        kind.Config(discriminator_steps=0)
