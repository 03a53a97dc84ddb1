import pytest
import torch
from torch import nn

from models.games import GAMES, WganGp
from models.networks import NetworkConfig


class LinearCritic(nn.Module):
    """D(x) = w . x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return x @ self.weight


class Point(nn.Module):
    """G(noise) = the same point for every noise."""

    def __init__(self, point):
        super().__init__()
        self.point = nn.Parameter(torch.tensor(point))

    def forward(self, noise):
        return self.point.expand(len(noise), -1)


def linear_game(weight=(3.0, 4.0), point=(1.0, 0.0), penalty=10.0):
    config = WganGp.Config(NetworkConfig("mlp", noise_dim=2), gradient_penalty_weight=penalty)
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
    optimizer = torch.optim.SGD(game.players["critic"].parameters(), lr=0.02)
    for _ in range(500):
        game.step("critic", real, torch.zeros(1, 2), optimizer)
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


def test_noise_is_standard_normal_and_seeded():
    game = WganGp.build(WganGp.Config(NetworkConfig("mlp", width=4, noise_dim=6)), (2,))
    first, second = (game.draw_noise(2000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (2000, 6)
    assert torch.equal(first, second)
    # 12,000 values: standard errors 0.009 of the mean, 0.0065 of the deviation; five of those.
    assert abs(first.mean()) < 0.046
    assert abs(first.std() - 1) < 0.033


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)])
def test_a_step_lowers_its_own_loss_and_moves_no_one_else(name, shape):
    torch.manual_seed(0)
    kind = GAMES[name]
    config = kind.Config(networks=NetworkConfig("mlp" if len(shape) == 1 else "dcgan", width=8, noise_dim=4))
    game = kind.build(config, shape).train()
    real, noise = torch.randn(16, *shape), game.draw_noise(16)
    for player, module in game.players.items():
        if player == "forest":
            game.start_forest(game.latents(real, noise)[0])  # else the first step would also place the thresholds
        before = {key: value.detach().clone() for key, value in game.named_parameters()}

        def loss(player=player):
            torch.manual_seed(1)  # the penalty's random shares
            return game.loss(player, real, noise).value.item()

        loss_before = loss()
        torch.manual_seed(1)
        # In the leaves the forest's cost has curvature at most 2 * 18 trees, so 1e-3 < 1 / 36 descends for sure; with
        # 1e-5 it would fall by a few of its 2^-17 ulps only.
        lr = 1e-3 if player == "forest" else 1e-5
        game.step(player, real, noise, torch.optim.SGD(module.parameters(), lr=lr))
        moved = {key for key, value in game.named_parameters() if not torch.equal(value, before[key])}
        assert loss() < loss_before, player
        assert moved
        assert all(key.startswith(f"players.{player}.") for key in moved), moved
        assert all(
            value.grad is None for key, value in game.named_parameters() if not key.startswith(f"players.{player}.")
        )
        game.zero_grad()


def test_an_unknown_player_is_named():
    with pytest.raises(ValueError, match="WganGp: player must be one of critic, generator, got 'mover'"):
        linear_game().loss("mover", torch.zeros(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("critic_steps", 0, "critic_steps must be at least 1, got 0"),
        ("gradient_penalty_weight", -1.0, "gradient_penalty_weight must not be negative, got -1.0"),
    ],
)
def test_bad_settings_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        WganGp.Config(**{field: value})
