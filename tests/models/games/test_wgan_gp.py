import pytest
import torch

from models.games import WganGp
from tests.models.games.players import LinearCritic, Point, mlp, play, train, turns


def linear_game(weight=(3.0, 4.0), point=(1.0, 0.0), penalty=10.0):
    config = WganGp.Config(mlp(2), gradient_penalty_weight=penalty)
    return WganGp(config, Point(list(point)), LinearCritic(list(weight)))


def test_losses_by_hand():
    game, real, noise = linear_game(), torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.zeros(2, 2)
    critic = game.loss("critic", real, noise)
    # D(x_g) = 3; D(x_r) = 4 and 10; |grad D| = 5 everywhere, so the penalty is 16.
    assert critic.value.item() == pytest.approx(3 - 7 + 10 * 16)
    assert critic.terms["wasserstein"].item() == pytest.approx(4)
    assert critic.terms["penalty"].item() == pytest.approx(16)
    assert game.loss("generator", real, noise).value.item() == pytest.approx(-3)


def test_the_penalty_is_two_sided():
    assert linear_game(weight=(0.0, 0.0)).loss("critic", torch.ones(1, 2), torch.zeros(1, 2)).value.item() == 10


def test_the_critic_finds_the_closed_form_of_two_points():
    """min_w w.(x_g - x_r) + lambda (|w| - 1)^2 has w = (1 + |x_r - x_g| / (2 lambda)) (x_r - x_g) / |x_r - x_g|."""
    game, real = linear_game(weight=(0.5, -0.5), point=(1.0, 0.0)), torch.tensor([[4.0, 4.0]])
    train(game, "critic", real, torch.zeros(1, 2), 500, 0.02)
    # Contraction per step along w is at least 1 - lr * |x_r - x_g| / (1 + |x_r - x_g| / (2 lambda)) ~ 0.92.
    expected = (1 + 5 / 20) * torch.tensor([0.6, 0.8])
    torch.testing.assert_close(game.players["critic"].weight.detach(), expected, atol=1e-5, rtol=0)


def test_the_penalty_is_taken_between_real_and_fake():
    seen = []

    class Recorder(LinearCritic):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    torch.manual_seed(0)
    game = WganGp(WganGp.Config(), Point([0.0, 0.0]), Recorder([1.0, 0.0]))
    game.loss("critic", torch.tensor([[1.0, 2.0]] * 500), torch.zeros(500, 2))
    share = seen[-1][:, 0]
    torch.testing.assert_close(seen[-1][:, 1], 2 * share)  # on the segment, one share per sample
    assert 0 <= share.min() < 0.05
    assert 0.95 < share.max() <= 1
    assert len(share.unique()) > 400


def test_the_game_approaches_its_target():
    """One real and one generated point: a linear critic has slope 1 or a little more (the closed form above) and pulls
    the generator in by lr = 0.05 a round, 2 of the distance 2.24 in 40 rounds, but for the first ones when it points
    elsewhere. With the wrong sign of one player, or a generator that its loss does not reach, it cannot come closer."""
    game, target = linear_game(weight=(-1.0, 0.5), point=(0.0, 0.0)), torch.tensor([[1.0, -2.0]])
    play(game, target, torch.zeros(1, 2), 40, {"critic": 0.05, "generator": 0.05})
    assert (game.players["generator"].point - target).norm() < 0.5 * target.norm()


def test_players_and_order():
    game = WganGp.build(WganGp.Config(mlp()), (2,))
    assert list(game.players) == ["critic", "generator"]
    assert turns(game) == [("critic", 5, True), ("generator", 1, True)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic_steps": 0}, "WganGpConfig: critic_steps must be at least 1, got 0"),
        ({"gradient_penalty_weight": -1.0}, "WganGpConfig: gradient_penalty_weight must not be negative, got -1.0"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        WganGp.Config(**options)
