import pytest
import torch

from models.games import Wgan
from models.networks import NetworkConfig
from tests.models.games.players import LinearCritic, Point, Shift, mlp, normal_grid, play, turns


def linear_game(weight=(3.0, 4.0), point=(1.0, 0.0), **options):
    return Wgan(Wgan.Config(mlp(2), **options), Point(list(point)), LinearCritic(list(weight), 0.5))


def test_losses_by_hand():
    game, real, noise = linear_game(), torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.zeros(2, 2)
    # D(x_g) = 3 + 0.5; D(x_r) = 4 + 0.5 and 10 + 0.5.
    critic = game.loss("critic", real, noise)
    assert critic.value.item() == pytest.approx(3.5 - 7.5)
    assert critic.terms["wasserstein"].item() == pytest.approx(4)
    generator = game.loss("generator", real, noise)
    assert generator.value.item() == pytest.approx(-3.5)
    assert generator.terms["score"].item() == pytest.approx(3.5)


def test_a_critic_step_is_the_optimizers_and_then_the_clip():
    """grad w = x_g - x_r = (-3, 1); SGD with lr 0.1 takes (0.1, 0.05) to (0.4, -0.05); c = 0.2 clips the first."""
    game = linear_game((0.1, 0.05), (1.0, 2.0), clip=0.2)
    critic = game.players["critic"]
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    game.step("critic", torch.tensor([[4.0, 1.0]]), torch.zeros(1, 2), optimizer)
    torch.testing.assert_close(critic.weight.detach(), torch.tensor([0.2, -0.05]))
    assert critic.bias.item() == pytest.approx(0.2)  # 0.5 has no gradient, and is clipped too


def test_the_generator_is_not_clipped():
    game = linear_game((0.1, 0.0), (5.0, -5.0))
    optimizer = torch.optim.SGD(game.players["generator"].parameters(), lr=1.0)
    game.step("generator", torch.zeros(1, 2), torch.zeros(1, 2), optimizer)
    torch.testing.assert_close(game.players["generator"].point.detach(), torch.tensor([5.1, -5.0]))
    torch.testing.assert_close(game.players["critic"].weight.detach(), torch.tensor([0.1, 0.0]))


@pytest.mark.parametrize("networks", [mlp(2), NetworkConfig("dcgan", width=8, noise_dim=2)])
def test_weights_stay_within_the_clip(networks):
    shape = (2,) if networks.name == "mlp" else (1, 8, 8)
    game = Wgan.build(Wgan.Config(networks), shape)
    assert game.config.clip == 0.01
    critic = game.players["critic"]
    optimizer = game.optimizer(critic.parameters(), lr=5e-3)
    for _ in range(3):
        game.step("critic", torch.randn(8, *shape), game.draw_noise(8), optimizer)
        assert all(parameter.abs().max() <= 0.01 for parameter in critic.parameters())
    # He's weights are larger at first; the last bias alone has no gradient.
    assert all(parameter.abs().max() == torch.tensor(0.01) for parameter in critic.parameters() if parameter.dim() > 1)


@pytest.mark.parametrize("target", [(4.0, -4.0), (-1.0, 3.0)])
def test_the_best_clipped_critic(target):
    """Among |w_k| <= c the maximum of w.(x_r - x_g) is c |x_r - x_g|_1, at w = c sign(x_r - x_g)."""
    game, real, noise = linear_game((0.0, 0.0), (1.0, 0.5), clip=0.05), torch.tensor([target]), torch.zeros(1, 2)
    difference = real[0] - torch.tensor([1.0, 0.5])
    optimizer = torch.optim.RMSprop(game.players["critic"].parameters(), lr=0.01)
    for _ in range(20):  # RMSprop moves by about lr a step: 5 to the bound
        game.step("critic", real, noise, optimizer)
    torch.testing.assert_close(game.players["critic"].weight.detach(), 0.05 * difference.sign())
    wasserstein = game.loss("critic", real, noise).terms["wasserstein"].item()
    assert wasserstein == pytest.approx(0.05 * difference.abs().sum().item())


def test_the_game_moves_a_mean_onto_its_target():
    """N(2, 0.5^2) from N(0, 0.5^2) by RMSprop, whose steps are about lr = 0.02, the first few up to ten times that:
    100 rounds suffice for the distance of 2. There the critic turns round within one round (five steps of 0.01 against
    2 c = 0.02), so that the generator overshoots by a few steps only. The wrong sign of one player moves away."""
    game = Wgan(Wgan.Config(mlp()), Shift([0.0]), LinearCritic([0.0]))
    assert game.optimizer is torch.optim.RMSprop
    lr = {"critic": 0.01, "generator": 0.02}
    play(game, normal_grid(64, 2.0, 0.5), normal_grid(64, 0.0, 0.5), 150, lr, game.optimizer)
    assert game.players["generator"].shift.item() == pytest.approx(2, abs=5 * 0.02)


def test_players_and_order():
    game = Wgan.build(Wgan.Config(mlp()), (2,))
    assert list(game.players) == ["critic", "generator"]
    assert turns(game) == [("critic", 5, True), ("generator", 1, True)]
    assert turns(linear_game(critic_steps=2))[0] == ("critic", 2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "WganConfig: clip must be positive, got 0.0"),
        ({"clip": -0.1}, "WganConfig: clip must be positive, got -0.1"),
        ({"critic_steps": 0}, "WganConfig: critic_steps must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Wgan.Config(**options)
