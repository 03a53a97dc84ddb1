import math

import pytest
import torch
from torch import nn

from models.games import Veegan
from tests.models.games.players import (
    Affine,
    PairCritic,
    Point,
    Shift,
    minimise,
    mlp,
    normal_grid,
    play,
    train,
    turns,
)


def softplus(x):
    return math.log1p(math.exp(x))


def veegan(noise_dim=1, std=0.5**0.5):
    """Settings whose reconstruction error, of weight 1 / (2 std^2), has weight 1 unless std is given."""
    return Veegan.Config(mlp(noise_dim), reconstructor_std=std)


class Half(PairCritic):
    """D(z, x) that sees z or x alone."""

    def __init__(self, weight, seen):
        super().__init__(weight)
        self.seen = seen

    def forward(self, z, x):
        return super().forward(z, 0 * x) if self.seen == "z" else super().forward(0 * z, x)


class Square(nn.Module):
    """D(z, x) = z^2."""

    def forward(self, z, x):
        return z.square().squeeze(-1)


def test_losses_by_hand(monkeypatch):
    draws = torch.tensor([[1.0], [-2.0]])
    monkeypatch.setattr(torch, "randn_like", lambda mean: draws)
    game = Veegan(veegan(std=0.5), Affine([[2.0]], [1.0]), PairCritic([3.0, -1.0]), Affine([[0.5]], [0.25]))
    real, noise = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [-1.0]])
    # G(z) = 2 z + 1 = 3 and -1; D(z, G(z)) = 3 z - G(z) = 0 and -2.
    # F(x) = x / 2 + 1/4 = 0.25 and 1.25; codes F(x) + draw / 2 = 0.75 and 0.25; D(code, x) = 3 code - x = 2.25 and
    # -1.25.
    loss = game.loss("discriminator", real, noise)
    on_fake, on_real = (softplus(0) + softplus(2)) / 2, (softplus(2.25) + softplus(-1.25)) / 2
    assert loss.terms["fake"].item() == pytest.approx(on_fake)
    assert loss.terms["real"].item() == pytest.approx(on_real)
    assert loss.value.item() == pytest.approx(on_fake + on_real)
    # z - F(G(z)) = 1 - 1.75 and -1 - (-0.25): squares 0.5625 both, over 2 * 0.5^2.
    assert game.loss("reconstructor", real, noise).value.item() == pytest.approx(1.125)
    loss = game.loss("generator", real, noise)
    assert loss.terms["ratio"].item() == pytest.approx(-1)
    assert loss.terms["reconstruction"].item() == pytest.approx(1.125)
    assert loss.value.item() == pytest.approx(0.125)


def test_a_reconstruction_is_summed_over_the_noise():
    game = Veegan(veegan(2), Point([0.0]), PairCritic([0.0, 0.0, 0.0]), Affine([[0.0, 0.0]], [1.0, 2.0]))
    loss = game.loss("reconstructor", torch.zeros(1, 1), torch.zeros(1, 2))
    assert loss.value.item() == pytest.approx(1 + 4)


def test_the_best_discriminator_is_the_log_ratio_of_the_pairs():
    """log p(z, G(z)) / p(F(x), x), with a discriminator that sees one half of a pair. In z: N(0, 1) to N(m, 1), the law
    of F(x) with next to no spread, which is -m z + m^2 / 2; in x: N(b, 1), the law of G(z), to N(1, 1), which is
    (b - 1) x + (1 - b^2) / 2."""

    m, b = -0.5, 2.0
    real, noise = normal_grid(2048, 1.0), normal_grid(2048)
    for seen, expected, bias in (("z", [-m, 0.0], m**2 / 2), ("x", [0.0, b - 1], (1 - b**2) / 2)):
        game = Veegan(veegan(std=1e-4), Shift([b]), Half([0.0, 0.0], seen), Shift([m - 1]))
        minimise(game, "discriminator", real, noise)
        # A grid's last cells weigh 1 / 2048 each, and x varies by one unit inside: errors of 1e-3 in the moments.
        weight = game.players["discriminator"].weight.detach()
        torch.testing.assert_close(weight, torch.tensor(expected), atol=0.01, rtol=0)
        assert game.players["discriminator"].bias.item() == pytest.approx(bias, abs=0.01)


def test_the_reconstructor_inverts_a_linear_generator():
    """G(z) = z A + b has the inverse F(x) = (x - b) A^-1; the loss is quadratic and F finds it, whatever the data."""
    weight, bias = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([1.0, -1.0])
    game = Veegan(veegan(2), Affine(weight, bias), nn.Identity(), Affine(torch.zeros(2, 2), [0.0, 0.0]))
    noise = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    minimise(game, "reconstructor", torch.full((4, 2), 100.0), noise)
    inverse = torch.linalg.inv(weight)
    # minimise stops at gradients of 1e-6; the Hessian 2 E[(x, 1)(x, 1)^T] has eigenvalues above 0.2.
    torch.testing.assert_close(game.players["reconstructor"].weight.detach(), inverse, atol=1e-4, rtol=0)
    torch.testing.assert_close(game.players["reconstructor"].bias.detach(), -bias @ inverse, atol=1e-4, rtol=0)


def test_the_generator_follows_the_reconstruction():
    """With D = 0, G(z) = z + b and F(x) = x - 3 the generator's loss is (b - 3)^2."""
    game = Veegan(veegan(), Shift([0.0]), PairCritic([0.0, 0.0]), Shift([-3.0]))
    train(game, "generator", torch.zeros(8, 1), normal_grid(8), 40, 0.1)
    assert game.players["generator"].shift.item() == pytest.approx(3, abs=1e-3)  # 3 * 0.8^40 = 4e-4


def test_the_game_finds_a_mean():
    """N(1, 1), G(z) = z + b from b = -1, F(x) = x + r and a linear D of x: the fixed point is b = 1, r = -1, D = 0.

    To first order there a round is x -> x - lr g in turn with D's gradient (b - 1, 0) (-1/2) + (w, c) [[2, 1], [1, 1]]
    / 2, F's 2 (b + r) and G's w + 2 (b + r): its spectral radius is 0.928, and 150 rounds leave 1e-5. A wrong sign of
    D's loss or G's ratio moves b away from 1; one of F's loss moves b and -r apart."""
    game = Veegan(veegan(), Shift([-1.0]), Half([0.0, 0.0], "x"), Shift([0.0]))
    lr = {"discriminator": 0.5, "generator": 0.2, "reconstructor": 0.3}
    play(game, normal_grid(128, 1.0), normal_grid(128), 150, lr)
    assert game.players["generator"].shift.item() == pytest.approx(1, abs=1e-3)
    assert game.players["reconstructor"].shift.item() == pytest.approx(-1, abs=1e-3)


def test_players_and_order():
    """One batch a round, one step each (Srivastava et al.'s Algorithm 1)."""
    game = Veegan.build(Veegan.Config(mlp(4)), (2,))
    assert list(game.players) == ["discriminator", "generator", "reconstructor"]
    assert turns(game) == [("discriminator", 1, True), ("reconstructor", 1, False), ("generator", 1, False)]
    code = game.players["reconstructor"](torch.zeros(3, 2))
    assert code.shape == (3, 4)
    assert game.players["discriminator"](code, torch.zeros(3, 2)).shape == (3,)


def test_codes_spread_around_the_reconstruction(randn):
    """With F = 0, codes are N(0, s^2) whatever the data."""
    game = Veegan(veegan(std=2.0), Shift([0.0]), Square(), Affine([[0.0]], [0.0]))
    loss = game.loss("discriminator", randn(100_000, 1), torch.zeros(100_000, 1))
    # E softplus(z^2) of N(0, 2^2), by a grid of its quantiles. z^2 has a deviation of 4 sqrt(2), so that the mean of
    # 100,000 draws has one of 0.02.
    expected = torch.nn.functional.softplus((2 * normal_grid(2**16)).square()).mean().item()
    assert loss.terms["real"].item() == pytest.approx(expected, abs=0.1)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"VeeganConfig: reconstructor_std must be positive, got 0"):
        Veegan.Config(reconstructor_std=0.0)
