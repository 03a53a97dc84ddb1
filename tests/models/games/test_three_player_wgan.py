import pytest
import torch
from torch import nn

from models.games import ThreePlayerWgan
from models.networks import NetworkConfig
from tests.models.games.players import Affine, LinearCritic, Point, Shift, half_squares, mlp, turns

HALF_SQUARES = "tests.models.games.players:half_squares"


def tiny(function=None, network=None, **options):
    """f(x) = x1 - 2 x2 + 1/2, y = (2, 1), h(x) = x + (3, -4), lambda = 2."""
    config = ThreePlayerWgan.Config(mlp(2), **{"lambda_start": 2.0, **options})
    network = network or Shift([3.0, -4.0])
    return ThreePlayerWgan(config, Point([2.0, 1.0]), LinearCritic([1.0, -2.0], 0.5), network, function)


REAL, NOISE = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.zeros(2, 2)


def test_losses_of_equation_10_by_hand():
    game = tiny()
    # f(h(x)) = 3 + 8 + 0.5 and 4 + 6 + 0.5; c = 2 * 5; f(y) = 0.5.
    loss = game.loss("mover", REAL, NOISE)
    assert loss.terms["score"].item() == pytest.approx(11)
    assert loss.terms["cost"].item() == pytest.approx(10)
    assert loss.value.item() == pytest.approx(-11 + 10)
    loss = game.loss("critic", REAL, NOISE)
    assert loss.value.item() == pytest.approx(-0.5 + 11)
    assert loss.terms["gap"].item() == pytest.approx(0.5 - 11)
    assert game.loss("generator", REAL, NOISE).value.item() == pytest.approx(0.5)


def test_losses_of_equation_9_by_hand():
    game = tiny(equation=9)
    # h(y) = (5, -3), f = 11.5, c = 2 * 5; f(x) = 0.5 and -0.5.
    assert game.loss("mover", REAL, NOISE).value.item() == pytest.approx(-11.5 + 10)
    assert game.loss("critic", REAL, NOISE).value.item() == pytest.approx(-0 + 11.5)
    loss = game.loss("generator", REAL, NOISE)
    assert loss.value.item() == pytest.approx(-11.5 + 10)
    assert loss.terms["score"].item() == pytest.approx(11.5)
    assert loss.terms["cost"].item() == pytest.approx(10)


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({"cost": "l2"}, 5),  # sqrt(3^2 + 4^2)
        ({"cost": "l2", "cost_scale": "mean"}, 12.5**0.5),  # the mean under the root: sqrt(2) times less
        ({"cost": "lp"}, 25),
        ({"cost": "lp", "cost_scale": "mean"}, 12.5),
        ({"cost": "lp", "p": 1.0}, 7),
        ({"cost": "lp", "p": 3.0}, 27 + 64),
        ({"cost": "lp", "p": 3.0, "cost_scale": "mean"}, 91 / 2),
        ({"cost": HALF_SQUARES}, 12.5),
        ({"cost": HALF_SQUARES, "cost_scale": "mean"}, 12.5),  # the user's function is taken as it is
    ],
)
def test_costs_by_hand(options, cost):
    """c(h(x), x) / lambda for h(x) - x = (3, -4); lambda = 2."""
    assert tiny(**options).loss("mover", REAL, NOISE).terms["cost"].item() == pytest.approx(2 * cost)
    assert tiny(half_squares, **options).loss("mover", REAL, NOISE).terms["cost"].item() == pytest.approx(2 * 12.5)


def test_the_cost_of_an_image_counts_all_its_pixels():
    class Brighten(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return x + self.shift

    networks = NetworkConfig("dcgan", width=4, noise_dim=3)
    for scale, cost in (("sum", (3 * 16 * 16 * 0.25) ** 0.5), ("mean", 0.5)):
        game = ThreePlayerWgan.build(ThreePlayerWgan.Config(networks, lambda_start=1.0, cost_scale=scale), (3, 16, 16))
        game.players["mover"] = Brighten()
        loss = game.loss("mover", torch.randn(4, 3, 16, 16), game.draw_noise(4))
        assert loss.terms["cost"].item() == pytest.approx(cost, rel=1e-5)


def test_lambda_rises_linearly():
    game = tiny(lambda_start=0.1, lambda_end=100.0)
    for done, weight in ((None, 0.1), (0.0, 0.1), (0.25, 0.1 + 99.9 / 4), (1.0, 100.0)):
        if done is not None:
            game.set_progress(done)
        assert game.loss("mover", REAL, NOISE).terms["cost"].item() == pytest.approx(5 * weight)
    assert ThreePlayerWgan.Config().lambda_start == 0.1
    assert ThreePlayerWgan.Config().lambda_end == 100.0


@pytest.mark.parametrize(
    ("kind", "weight", "std"),
    [
        ("learned", 3.0, 0.0),
        ("identity", 1.0, 0.0),
        ("noisy-identity", 1.0, 0.5),
        ("input-noise", 3.0, 3 * 0.5),
        ("output-noise", 3.0, 0.5),
    ],
)
def test_movers_of_section_3_5(kind, weight, std):
    """h(x) = weight x + N(0, std^2), where the network is 3 x and mover_noise 0.5."""
    network = Affine([[3.0, 0.0], [0.0, 3.0]], [0.0, 0.0])
    game = tiny(half_squares, network, mover=kind, mover_noise=0.5, lambda_start=1.0)
    x = torch.randn(20_000, 2)
    rest = (game.move(x) - weight * x).detach()
    # 40,000 values: standard errors std / 200 of the mean and std / 283 of the deviation; five of each, and rounding.
    assert rest.mean().abs() <= 5 * std / 200 + 1e-6
    assert abs(rest.std() - std) <= 5 * std / 283 + 1e-6
    # The cost is from x itself, without noise: E |h(x) - x|^2 / 2 = (weight - 1)^2 + std^2 in two dimensions, the mean
    # of 20,000 exponential variables, whose relative standard error is 0.7 %.
    assert game.moving(x)[1].item() == pytest.approx((weight - 1) ** 2 + std**2, rel=0.035, abs=1e-6)


@pytest.mark.parametrize("kind", ["learned", "identity", "noisy-identity", "input-noise", "output-noise"])
@pytest.mark.parametrize("equation", [10, 9])
def test_players_and_order(kind, equation):
    """Algorithm 1: five steps of the mover and one of each other player, all on one batch."""
    game = ThreePlayerWgan.build(ThreePlayerWgan.Config(mlp(3), mover=kind, equation=equation), (2,))
    learned = kind not in ("identity", "noisy-identity")
    assert list(game.players) == ["critic", "generator", *["mover"] * learned]
    assert turns(game) == [("mover", 5, False)] * learned + [("critic", 1, False), ("generator", 1, False)]
    assert turns(tiny(mover_steps=2))[0] == ("mover", 2, False)
    if not learned:
        with pytest.raises(ValueError, match="ThreePlayerWgan: player must be one of critic, generator, got 'mover'"):
            game.loss("mover", torch.zeros(4, 2), torch.zeros(4, 3))


def test_noise_is_uniform_and_seeded():
    game = ThreePlayerWgan.build(ThreePlayerWgan.Config(mlp(6)), (2,))
    first, second = (game.draw_noise(2000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (2000, 6)
    assert torch.equal(first, second)
    # Uniform on [-1, 1]: mean 0, E x^2 = 1/3. Of 12,000 values the standard errors are 1 / sqrt(3 * 12,000) = 0.0053
    # and sqrt((1/5 - 1/9) / 12,000) = 0.0027; five of those. The extremes lie within 12 / 12,000 of the ends but for
    # exp(-6).
    assert -1 <= first.min() < -0.999
    assert 0.999 < first.max() <= 1
    assert first.mean().abs() < 0.027
    assert abs(first.square().mean() - 1 / 3) < 0.014
    normal = ThreePlayerWgan.build(ThreePlayerWgan.Config(mlp(6), noise="normal"), (2,))
    assert normal.draw_noise(2000).abs().max() > 1


@pytest.mark.parametrize(
    ("networks", "shape", "norm"),
    [
        (mlp(4), (2,), nn.BatchNorm1d),
        (NetworkConfig("dcgan", width=8, noise_dim=4), (3, 16, 16), nn.BatchNorm2d),
        (NetworkConfig("resnet", width=8, noise_dim=4), (3, 16, 16), nn.BatchNorm2d),
    ],
)
def test_the_critic_is_bounded_and_has_batch_norm(networks, shape, norm):
    game = ThreePlayerWgan.build(ThreePlayerWgan.Config(networks), shape)
    for player in ("critic", "generator"):
        assert any(isinstance(layer, norm) for layer in game.players[player].modules())
    with torch.no_grad():
        for parameter in game.players["critic"].parameters():
            parameter.mul_(100)
    fake = game.sample(game.draw_noise(16))
    scores = game.players["critic"](fake)
    assert scores.shape == (16,)
    assert scores.abs().max() <= 1
    assert game.move(fake).shape == fake.shape
    assert ThreePlayerWgan.Config().networks.init == "normal"


@pytest.mark.parametrize(
    ("where", "players"), [("both", {"generator", "critic"}), ("generator", {"generator"}), ("none", set())]
)
def test_batch_norm_is_where_it_was_asked_for(where, players):
    game = ThreePlayerWgan.build(ThreePlayerWgan.Config(mlp(4), batch_norm=where), (2,))
    found = {name for name, player in game.players.items() for m in player.modules() if isinstance(m, nn.BatchNorm1d)}
    assert found == players


def test_the_critic_of_images_has_batch_norm_only_if_both_have():
    networks = NetworkConfig("dcgan", width=8, noise_dim=4)
    for where in ("both", "generator", "none"):
        game = ThreePlayerWgan.build(ThreePlayerWgan.Config(networks, batch_norm=where), (3, 16, 16))
        assert any(isinstance(m, nn.BatchNorm2d) for m in game.players["critic"].modules()) == (where == "both")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mover_steps": 0}, "mover_steps must be at least 1, got 0"),
        ({"mover_noise": -0.1}, "mover_noise must not be negative, got -0.1"),
        ({"lambda_start": -1.0}, "lambda_start must not be negative, got -1.0"),
        ({"lambda_end": -1.0}, "lambda_end must not be negative, got -1.0"),
        ({"p": 0.5}, "p must be at least 1, got 0.5"),
        ({"mover_noise": float("nan")}, "mover_noise must be a finite number, got nan"),
        ({"equation": 8}, "equation must be one of 10, 9, got 8"),
        ({"batch_norm": "critic"}, "batch_norm must be one of both, generator, none, got 'critic'"),
        ({"mover": "still"}, "mover must be one of learned, .*, got 'still'"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=f"ThreePlayerWganConfig: {message}"):
        ThreePlayerWgan.Config(**options)


@pytest.mark.parametrize("cost", ["", "l3", "math", "math:nothing", "no_such_module:cost", ":cost", ".x:y", "math:pi"])
def test_an_unknown_cost_is_named(cost):
    with pytest.raises(ValueError, match=f"ThreePlayerWgan: cost must be l2, lp or MODULE:FUNCTION, got '{cost}'"):
        _ = tiny(cost=cost).cost


def test_a_cost_of_ones_own_is_needed_to_train_not_to_sample():
    config = ThreePlayerWgan.Config(NetworkConfig("mlp", width=4, noise_dim=2), cost="no_such_module:cost")
    with pytest.raises(ValueError, match="cost must be l2, lp or MODULE:FUNCTION, got 'no_such_module:cost'"):
        ThreePlayerWgan.build(config, (2,))
    game = ThreePlayerWgan.rebuild(config, (2,), {})
    assert game.sample(game.draw_noise(3)).shape == (3, 2)


@pytest.mark.parametrize(("equation", "still"), [(10, REAL), (9, torch.tensor([[2.0, 1.0], [2.0, 1.0]]))])
def test_pictures_show_what_is_moved_and_where_to(equation, still):
    """h adds (3, -4): to real samples in Eq. 10, to generated ones in Eq. 9."""
    pairs = tiny(equation=equation).pictures(REAL, NOISE)
    assert list(pairs) == ["moved"]
    assert torch.equal(pairs["moved"][0], still)
    assert torch.equal(pairs["moved"][1], still + torch.tensor([3.0, -4.0]))
