import pytest
import torch
from torch import nn

from models.games import Sngan
from models.games.sngan import normalised
from models.networks import NetworkConfig
from tests.models.games.players import LinearCritic, Point, mlp, play, settle, train, turns

DCGAN = NetworkConfig("dcgan", width=8, noise_dim=4)
RESNET = NetworkConfig("resnet", width=8, noise_dim=4)


class Direction(nn.Module):
    """D(x) = w . x / |w| + b, the spectral norm of a linear critic being the length of w."""

    def __init__(self, weight):
        super().__init__()
        self.linear = nn.Linear(len(weight), 1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([weight]))
            self.linear.bias.zero_()
        normalised(self)

    def forward(self, x):
        return self.linear(x).squeeze(-1)


def test_losses_by_hand():
    game = Sngan(Sngan.Config(mlp()), Point([0.25]), LinearCritic([2.0]))
    real, noise = torch.tensor([[0.0], [0.25], [3.0]]), torch.zeros(3, 1)
    # D(x_r) = 0, 0.5 and 6, hinges 1, 0.5 and 0; D(x_g) = 0.5, hinge 1.5.
    loss = game.loss("discriminator", real, noise)
    assert loss.terms["real"].item() == pytest.approx(0.5)
    assert loss.terms["fake"].item() == pytest.approx(1.5)
    assert loss.value.item() == pytest.approx(2.0)
    assert game.loss("generator", real, noise).value.item() == pytest.approx(-0.5)
    with torch.no_grad():
        game.players["generator"].point.fill_(-0.75)  # D(x_g) = -1.5, hinge 0
    assert game.loss("discriminator", real, noise).value.item() == pytest.approx(0.5)
    assert game.loss("generator", real, noise).value.item() == pytest.approx(1.5)


@pytest.mark.parametrize(("networks", "shape"), [(mlp(4), (3,)), (DCGAN, (1, 8, 8)), (RESNET, (1, 16, 16))])
def test_the_discriminators_layers_have_spectral_norm_1(networks, shape):
    """Of a convolution's weight as a matrix [out, in * area], as Miyato et al. have it (section 2.1 and footnote).

    A power iteration comes from below, so a normalised layer's norm from above. After k steps on a matrix of rank r the
    norm is off by 0.44 ln(r) / (k - 1) on average over the starts, whatever the gap (Kuczynski & Wozniakowski 1992):
    0.5 % for k = 300 and r = 32, and twice that is allowed."""
    game = Sngan.build(Sngan.Config(networks), shape).train()
    discriminator = game.players["discriminator"]
    settle(discriminator)
    layers = [layer for layer in discriminator.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert layers
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()
        assert 1 - 1e-5 < norm < 1.01
    assert not any("parametrizations" in name for name in game.players["generator"].state_dict())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_discriminator_is_1_lipschitz(scale, randn):
    """A product of layers of norm at most 1.01 (the test above) and ReLUs: four layers, 1.01^4; and float32's rounding
    of scores of size |x| + 1, 1e-5 of it. Ten times larger weights change nothing."""
    game = Sngan.build(Sngan.Config(mlp(4)), (3,)).train()
    discriminator = game.players["discriminator"]
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(10)
    settle(discriminator)
    x = randn(4096, 3)
    y = x + scale * randn(4096, 3)
    distance = torch.linalg.vector_norm(x - y, dim=1)
    rise = (discriminator(x) - discriminator(y)).abs()
    rounding = 1e-5 * (torch.linalg.vector_norm(x, dim=1) + torch.linalg.vector_norm(y, dim=1) + 1)
    assert (rise <= 1.01**4 * distance + rounding).all()
    assert (rise / distance).max() > 1e-3  # and it is no constant


def test_the_best_direction_of_a_discriminator():
    """A real point at distance 1 from a fake at 0: max(0, 1 - cos - b) + max(0, 1 + b) is 2 - cos for -1 <= b <= 1 -
    cos, least where w points at the real one, and then 1."""
    game = Sngan(Sngan.Config(mlp(2)), Point([0.0, 0.0]), Direction([1.0, -1.0])).train()
    real, noise = torch.tensor([[0.6, 0.8]]), torch.zeros(1, 2)
    train(game, "discriminator", real, noise, 200, 0.1)
    # The angle falls by lr sin(angle) / |w| a step, and |w| grows from 1.4 to 2 at most: by a factor of e in 20 steps.
    weight = game.players["discriminator"].linear.weight.detach()[0]
    torch.testing.assert_close(weight, real[0], atol=1e-3, rtol=0)
    assert game.loss("discriminator", real, noise).value.item() == pytest.approx(1, abs=1e-3)


def test_the_game_approaches_its_target():
    """A discriminator of slope 1 pulls the generator in by lr = 0.05 a round: 40 rounds cover 2 of the distance 2.24
    but for the start, when it points elsewhere. The wrong sign of one player, or a generator out of reach, cannot
    approach."""
    game = Sngan(Sngan.Config(mlp(2)), Point([0.0, 0.0]), Direction([-1.0, 0.5])).train()
    target = torch.tensor([[1.0, -2.0]])
    play(game, target, torch.zeros(1, 2), 40, {"discriminator": 0.2, "generator": 0.05})
    assert (game.players["generator"].point - target).norm() < 0.5 * target.norm()


def test_players_and_order():
    game = Sngan.build(Sngan.Config(mlp(4)), (3,))
    assert list(game.players) == ["discriminator", "generator"]
    assert turns(game) == [("discriminator", 5, True), ("generator", 1, True)]
    assert turns(Sngan.build(Sngan.Config(mlp(4), discriminator_steps=1), (3,)))[0] == ("discriminator", 1, True)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="SnganConfig: discriminator_steps must be at least 1, got 0"):
        Sngan.Config(discriminator_steps=0)
