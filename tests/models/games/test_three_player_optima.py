"""Closed forms of 3P-WGAN's players, alone and together, for a linear or quadratic critic."""

import pytest
import torch

from models.games import ThreePlayerWgan
from tests.models.games.players import (
    Affine,
    LinearCritic,
    QuadraticCritic,
    Shift,
    minimise,
    mlp,
    normal_grid,
    play,
    train,
)

HALF_SQUARES = "tests.models.games.players:half_squares"


def linear_game(shift=(0.0, 0.0), **options):
    """f(x) = x1 - 2 x2 and h(x) = x + v."""
    config = ThreePlayerWgan.Config(mlp(2), **options)
    return ThreePlayerWgan(config, Shift([0.0, 0.0]), LinearCritic([1.0, -2.0]), Shift(list(shift)))


@pytest.mark.parametrize("equation", [10, 9])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # min_v -w.v + lambda |v|^2: v = w / (2 lambda), the step x + grad f / (2 lambda)
        ({"cost": "lp", "lambda_start": 0.25}, [2.0, -4.0]),
        ({"cost": "lp", "lambda_start": 1.0}, [0.5, -1.0]),
        ({"cost": "lp", "lambda_start": 0.5, "cost_scale": "mean"}, [2.0, -4.0]),  # lambda / 2
        # p lambda |v|^(p - 1) = |w| in each coordinate
        ({"cost": "lp", "p": 3.0, "lambda_start": 1 / 3}, [1.0, -(2.0**0.5)]),
        ({"cost": "lp", "p": 1.5, "lambda_start": 2 / 3}, [1.0, -4.0]),
        ({"cost": HALF_SQUARES, "lambda_start": 0.5}, [2.0, -4.0]),  # v = w / lambda
    ],
)
def test_the_best_mover_against_a_linear_critic(options, expected, equation):
    game = linear_game((0.1, -0.1), equation=equation, **options)
    minimise(game, "mover", torch.randn(8, 2), torch.randn(8, 2))
    # minimise stops near gradients of 1e-6, but float32's rounding of the loss, 1e-6 of it, leaves 1e-3 in v.
    torch.testing.assert_close(game.players["mover"].shift.detach(), torch.tensor(expected), atol=5e-3, rtol=0)


def test_the_best_mover_against_a_quadratic_critic():
    """f(x) = -k x^2 / 2, c = lambda |h - x|^2: h(x) = 2 lambda x / (k + 2 lambda), here with k = 2 and lambda = 3."""
    config = ThreePlayerWgan.Config(mlp(), cost="lp", lambda_start=3.0)
    game = ThreePlayerWgan(config, Shift([0.0]), QuadraticCritic([0.0, -1.0]), Affine([[1.0]], [0.5]))
    minimise(game, "mover", normal_grid(64, 1.0), torch.zeros(64, 1))
    assert game.players["mover"].weight.item() == pytest.approx(0.75, abs=5e-3)  # as above
    assert game.players["mover"].bias.item() == pytest.approx(0, abs=5e-3)


def test_a_mover_of_cost_l2_stays_where_the_critic_is_flat():
    """-w.v + lambda |v| is least at v = 0 if lambda > |w| = 2.24, and falls without end along w if lambda < |w|: with
    the experiments' cost the mover becomes the identity as lambda rises, and every critic of slope below lambda is as
    good as Lipschitz."""
    steps, lr = 300, 0.01
    game = linear_game((1.0, 0.5), lambda_start=3.0)
    train(game, "mover", torch.zeros(1, 2), torch.zeros(1, 2), steps, lr)
    # A step is at most lr (lambda + |w|): the mover rattles about 0 within it. It fell by lr (lambda - |w|) a step or
    # more: 300 * 0.0076 = 2.3 of 1.1.
    assert game.players["mover"].shift.norm().item() <= lr * (3 + 5**0.5)
    game = linear_game((1.0, 0.5), lambda_start=1.0)
    train(game, "mover", torch.zeros(1, 2), torch.zeros(1, 2), steps, lr)
    along = game.players["mover"].shift.detach() @ torch.tensor([1.0, -2.0]) / 5**0.5
    assert along >= steps * lr * (5**0.5 - 1)  # from v.w = 0, by at least |w| - lambda times lr a step


def real_and_game(equation):
    """N(2, 1) and y = z + b from b = 0, f(x) = w x from w = 0, h(x) = x + v, c = |h(x) - x|^2 / 2."""
    config = ThreePlayerWgan.Config(mlp(), equation=equation, cost="lp", lambda_start=0.5)
    game = ThreePlayerWgan(config, Shift([0.0]), LinearCritic([0.0]), Shift([0.0]))
    return normal_grid(64, 2.0), normal_grid(64), game


@pytest.mark.parametrize("equation", [10, 9])
def test_critic_and_mover_find_the_transport(equation):
    """With the generator held, max_w min_v of Eq. 10 is max_w w d - w^2 / (4 lambda) for d = b - mean(x) = -2: w = 2
    lambda d, v = d, value lambda d^2, the cost of transport. The mover carries real points onto generated ones; in Eq.
    9 generated onto real, d with the other sign."""
    real, noise, game = real_and_game(equation)
    play(game, real, noise, 60, {"mover": 0.3, "critic": 0.5, "generator": 0.0})
    d = -2.0 if equation == 10 else 2.0
    # Five steps take v to 0.168 v + 0.832 w, one takes w to w + (d - v) / 2: spectral radius 0.41.
    assert game.players["mover"].shift.item() == pytest.approx(d, abs=1e-3)
    assert game.players["critic"].weight.item() == pytest.approx(d, abs=1e-3)
    cost = game.loss("mover", real, noise).terms["cost"].item()
    gap = game.loss("critic", real, noise).terms["gap"].item()
    assert gap + cost == pytest.approx(0.5 * d**2, abs=1e-2)


@pytest.mark.parametrize("equation", [10, 9])
def test_the_game_finds_a_mean(equation):
    """The only fixed point is b = 2 with w = v = 0. A round is linear: five steps of 0.3 against v - w, one of 0.5
    against v - (b - 2) and one of 0.2 against w (in Eq. 9 the same in -v and -w), of spectral radius 0.73. With the
    wrong sign of one player the round is unstable, or has no such fixed point."""
    real, noise, game = real_and_game(equation)
    play(game, real, noise, 60, {"mover": 0.3, "critic": 0.5, "generator": 0.2})
    assert game.players["generator"].shift.item() == pytest.approx(2, abs=1e-3)
    assert game.players["mover"].shift.item() == pytest.approx(0, abs=1e-3)
    assert game.players["critic"].weight.item() == pytest.approx(0, abs=1e-3)


def test_without_a_mover_nothing_holds_the_critic():
    """Section 3.5: with the identity for a mover a linear critic grows by lr |d| a round, for ever."""
    config = ThreePlayerWgan.Config(mlp(), mover="identity")
    game = ThreePlayerWgan(config, Shift([0.0]), LinearCritic([0.0]), Shift([0.0]))
    play(game, normal_grid(64, 2.0), normal_grid(64), 60, {"critic": 0.5, "generator": 0.0})
    assert game.players["critic"].weight.item() == pytest.approx(-60 * 0.5 * 2, rel=1e-4)
