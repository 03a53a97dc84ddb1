import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from models.config import from_dict
from models.games import PotGan, VaeGame
from models.games.potgan import ForestConfig
from models.networks import NetworkConfig
from tests.models.games.players import LinearCritic, Points, play

MLP = NetworkConfig("mlp", width=16, depth=2, noise_dim=2)


def point_game(points, encoder=None, **options):
    """A generator of fixed points and a critic that scores 0: only transport is left in the generator's loss."""
    config = PotGan.Config(MLP, **{"transform": "identity", "transport_weight": 1.0, **options})
    latent_dim = len(points[0])
    return PotGan(config, Points(points), LinearCritic([0.0] * latent_dim), encoder or nn.Flatten(), latent_dim)


def forest_game(**options):
    torch.manual_seed(0)
    return PotGan.build(PotGan.Config(MLP, **options), (2,)).train()


@pytest.mark.parametrize(
    ("pairing", "total"),
    [
        ("cover", 0.25 + 0 + 1),
        ("literal", 0 + 0.25 + 81),
        ("assignment", 0.25 + 0 + 9),
        ("sinkhorn", 0.25 + 0 + 9),
    ],
)
def test_generator_loss_by_hand(pairing, total):
    game = point_game([[5.0], [0.5], [9.0]], pairing=pairing, transport_weight=0.3)
    real = torch.tensor([[0.0], [5.0], [6.0]])
    with torch.no_grad():
        game.players["critic"].bias.fill_(2.0)
    loss = game.loss("generator", real, torch.zeros(3, 2))
    # The next best permutation costs 16 + 0.25 + 1, 8 more. With a blur of 0.05 * 9 the plan gives each of its two
    # other pairs exp(-8 / (4 * 0.45^2)) = 5e-5 of a point: 4e-4 more in the total, and the solver stops at errors of
    # that size.
    tolerance = 1.5e-3 if pairing == "sinkhorn" else 1e-5
    assert loss.terms["transport"].item() == pytest.approx(total / 3, abs=tolerance / 3)
    assert loss.value.item() == pytest.approx(-2 + 0.3 * total / 3, abs=0.3 * tolerance / 3 + 1e-6)  # Eq. 13
    assert loss.terms["score"].item() == pytest.approx(2)


def test_the_gradient_reaches_the_generator_through_encoder_and_forest():
    encoder = nn.Linear(2, 1, bias=False)
    nn.init.constant_(encoder.weight, 2.0)
    game = point_game([[0.5, 0.25]], encoder, transform="forest", forest=ForestConfig(trees=1, depth=1))
    game.players["forest"] = forest = type(game.players["forest"])(1, 1, 1)
    with torch.no_grad():
        forest.leaves.copy_(torch.tensor([[[3.0], [-1.0]]]))
    real = torch.tensor([[1.0, 1.0]])  # z_r = 4
    game.loss("generator", real, torch.zeros(1, 2)).value.backward()
    p = torch.sigmoid(torch.tensor(1.5))  # z_g = 2 * (0.5 + 0.25)
    f = 3 * p - (1 - p)
    expected = 2 * (f - 4) * 4 * p * (1 - p) * torch.tensor([[2.0, 2.0]])
    torch.testing.assert_close(game.players["generator"].points.grad, expected)
    assert encoder.weight.grad is None


def test_the_encoder_stays_frozen():
    encoder = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5), nn.BatchNorm1d(1))
    game = point_game([[1.0], [2.0]], encoder)
    game.train()
    assert game.training
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert any(key.startswith("encoder.") for key in game.state_dict())
    assert not any(key.startswith("encoder") for key in game.players.state_dict())


def test_the_forest_turn_is_algorithm_1():
    """Against a plain loop: pairs, matched cost, Adam; the same state of leaves and Adam after two batches."""
    start = {"thresholds": "zeros", "leaves": "normal"}
    game = forest_game(forest=ForestConfig(trees=4, depth=2, lr=0.05, inner_steps=3, **start))
    forest = game.players["forest"]
    leaves = forest.leaves.detach().clone().requires_grad_()
    ours = torch.optim.Adam(game.players["forest"].parameters(), lr=0.05, betas=(0.5, 0.9))
    plain = torch.optim.Adam([leaves], lr=0.05, betas=(0.5, 0.9))
    for _ in range(2):
        real, noise = torch.randn(8, 2), game.draw_noise(8)
        loss = game.step("forest", real, noise, ours)
        z_g = game.sample(noise).detach()
        for _ in range(3):
            f = torch.func.functional_call(forest, {"leaves": leaves}, (z_g,))
            rho = torch.cdist(real, f).argmin(1)
            cost = (real - f[rho]).square().sum(1).mean()
            plain.zero_grad()
            cost.backward()
            plain.step()
        torch.testing.assert_close(loss.value, cost, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(forest.leaves, leaves, atol=1e-5, rtol=1e-5)


def test_the_forest_turn_is_one_call_where_it_can_be(monkeypatch):
    """And step by step, to the same leaves, where it cannot: another optimizer, another pairing."""
    calls = []
    for learn, pairing in ((False, "cover"), (False, "literal"), (True, "cover"), (False, "assignment")):
        game = forest_game(pairing=pairing, forest=ForestConfig(learn_thresholds=learn, inner_steps=2))
        forest = game.players["forest"]
        monkeypatch.setattr(forest, "fit", lambda *a, fit=forest.fit, **k: calls.append(a[-1]) or fit(*a, **k))
        before = forest.leaves.detach().clone()
        game.step("forest", torch.randn(8, 2), game.draw_noise(8), torch.optim.Adam(forest.parameters(), lr=0.1))
        assert not torch.equal(before, forest.leaves)
    assert calls == ["cover", "literal"]


def test_the_forest_moves_a_point_onto_its_target():
    """One real and one generated point: the minimum of |z_r - F(z_g)|^2 over the leaves is 0."""
    game = point_game([[0.5, -0.5]], transform="forest", forest=ForestConfig(trees=2, depth=2, inner_steps=10))
    real, target = torch.tensor([[3.0, -4.0]]), torch.tensor([[3.0, -4.0]])
    optimizer = torch.optim.SGD(game.players["forest"].parameters(), lr=1.0)
    for _ in range(20):
        game.step("forest", real, torch.zeros(1, 2), optimizer)
    torch.testing.assert_close(game.transform(torch.tensor([[0.5, -0.5]])), target, atol=1e-3, rtol=0)


def test_transport_alone_learns_a_gaussian():
    """With one-to-one pairs and no critic the generator minimises W_2^2 between N(2, 0.5^2) and N(b, s^2) over b, s:
    the minimum is b = 2, |s| = 0.5. A wrong sign diverges; a detached latent stays at b = 0, s = 1."""
    torch.manual_seed(0)
    game = PotGan(
        PotGan.Config(replace(MLP, noise_dim=1), pairing="assignment", transform="identity", transport_weight=1.0),
        nn.Linear(1, 1),
        LinearCritic([0.0]),
        nn.Flatten(),
        1,
    )
    with torch.no_grad():
        game.players["generator"].weight.fill_(1.0)
        game.players["generator"].bias.fill_(0.0)
    optimizer = torch.optim.SGD(game.players["generator"].parameters(), lr=0.1)
    for _ in range(150):
        game.step("generator", 2 + 0.5 * torch.randn(256, 1), game.draw_noise(256), optimizer)
    # A step averages about 10 batches of 256: standard error 0.5 / sqrt(2560) = 0.01 of each; finite batches shorten
    # s by about log(N) / N = 2 %. Five standard errors and the bias.
    assert game.players["generator"].bias.item() == pytest.approx(2, abs=0.05)
    assert game.players["generator"].weight.item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("transform", "pairing"),
    [(f, "cover") for f in ("forest", "identity", "affine", "mlp")]
    + [("forest", pairing) for pairing in ("literal", "assignment", "sinkhorn")],
)
def test_the_whole_game_approaches_its_target(transform, pairing):
    """Critic, F and generator, one real point: a critic of slope 1 pulls the generator in by about lr per step, here
    40 * 0.05 = 2 of the distance 2.24. The wrong sign of either player, or a detached sample, cannot approach."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    forest = ForestConfig(trees=4, depth=2, inner_steps=1)
    config = PotGan.Config(MLP, forest=forest, transform=transform, pairing=pairing)
    game = PotGan(config, Points([[0.0, 0.0]]), critic, nn.Flatten(), 2)
    target, noise = torch.tensor([[1.0, -2.0]]), torch.zeros(1, 2)
    play(game, target, noise, 40, dict.fromkeys(game.players, 0.05))
    assert (game.sample(noise) - target).norm() < 0.5 * target.norm()


def test_players_and_order():
    game = forest_game(critic_steps=2)
    assert list(game.players) == ["critic", "generator", "forest"]
    assert [(t.player, t.steps, t.fresh) for t in game.order] == [
        ("critic", 2, True),
        ("forest", 1, True),
        ("generator", 1, False),
    ]
    assert game.optimizer_options("forest") == {"lr": 2e-4}
    assert game.optimizer_options("critic") == {}
    identity = forest_game(transform="identity")
    assert list(identity.players) == ["critic", "generator"]
    assert [t.player for t in identity.order] == ["critic", "generator"]


def test_the_forest_starts_once_even_after_loading():
    options = {"forest": ForestConfig(leaves="identity")}
    game, other = forest_game(**options), forest_game(**options)
    real, noise = torch.randn(32, 2), torch.randn(32, 2)
    optimizer = torch.optim.SGD(game.players["forest"].parameters(), lr=1e-3)
    game.step("forest", real, noise, optimizer)
    saved = copy.deepcopy(game.state_dict())
    game.step("forest", real, noise, optimizer)
    for restored in (other, forest_game(**options)):
        restored.load_state_dict(saved)
        restored.step("forest", real, noise, torch.optim.SGD(restored.players["forest"].parameters(), lr=1e-3))
        assert torch.equal(restored.players["forest"].thresholds, game.players["forest"].thresholds)
        assert torch.equal(restored.players["forest"].leaves, game.players["forest"].leaves)
    fresh = forest_game(**options).state_dict()
    game.load_state_dict(fresh)  # back to the beginning: the forest starts again
    game.step("forest", real, noise, optimizer)
    assert not torch.equal(game.players["forest"].thresholds, fresh["players.forest.thresholds"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transport_weight": -1.0}, "transport_weight must not be negative, got -1.0"),
        ({"transform": "tree"}, "transform must be one of forest, identity, affine, mlp, got 'tree'"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=f"PotGanConfig: {message}"):
        PotGan.Config(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_steps": 0}, "inner_steps must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"lr": -1.0}, "lr must be positive, got -1.0"),
        ({"lr": math.nan}, "lr must be a finite number, got nan"),
        ({"scale": 0}, "scale must be positive, got 0"),
        ({"trees": 0}, "trees must be at least 1, got 0"),
        ({"depth": 17}, "depth must be at most 16, got 17"),
    ],
)
def test_bad_settings_of_the_forest_are_named_by_its_field(options, message):
    with pytest.raises(ValueError, match=f"ForestConfig: forest.{message}"):
        ForestConfig(**options)
    with pytest.raises(ValueError, match=f"PotGanConfig: forest.{message}"):
        from_dict(PotGan.Config, {"forest": options})


@pytest.mark.parametrize("learn_thresholds", [False, True])
def test_both_turns_log_how_many_generated_samples_are_used(learn_thresholds):
    """Whether Algorithm 1 is one call or many: two real clusters on four generated points take two of them."""
    game = point_game(
        [[0.0], [1.0], [50.0], [60.0]],
        transform="forest",
        forest=ForestConfig(trees=2, depth=2, learn_thresholds=learn_thresholds, inner_steps=1, lr=1e-6),
    )
    forest, real = game.players["forest"], torch.tensor([[0.0], [0.0], [50.0], [50.0]])
    game.start_forest(real)
    game._knows_started = True
    loss = game.step("forest", real, torch.zeros(4, 2), torch.optim.Adam(forest.parameters(), lr=1e-6))
    rho = torch.cdist(real, game.transform(game.sample(torch.zeros(4, 2)))).argmin(1)
    share = len(rho.unique()) / 4
    assert share < 1
    assert loss.terms["used"].item() == share
    assert game.loss("generator", real, torch.zeros(4, 2)).terms["used"].item() == share


def test_a_batch_that_is_kept_from_the_forests_turn_to_the_generators_gives_the_same_steps():
    networks = NetworkConfig("dcgan", width=2, noise_dim=4)
    games = []
    for keeps in (False, True):
        torch.manual_seed(0)
        config = PotGan.Config(networks, forest=ForestConfig(trees=4, depth=2))
        game = PotGan.build_on(config, (1, 8, 8), {"vae": VaeGame.build(VaeGame.Config(networks), (1, 8, 8))}).train()
        game.keeps_batch = keeps
        passes = []
        game.players["generator"].register_forward_hook(lambda *_, passes=passes: passes.append(1))
        optimizers = {name: game.optimizer(module.parameters(), lr=1e-2) for name, module in game.players.items()}
        real, noise = torch.rand(3, 8, 1, 8, 8) * 2 - 1, torch.randn(3, 8, 4)
        for batch in zip(real, noise, strict=True):
            for player in ("forest", "generator"):
                game.step(player, *batch, optimizers[player])
        assert len(passes) == (3 if keeps else 6)
        assert game._kept is None
        games.append(game)
    for (name, kept), other in zip(games[1].named_parameters(), games[0].parameters(), strict=True):
        assert torch.equal(kept, other), name


def test_a_batch_is_kept_for_its_own_noise_alone():
    game = forest_game()
    game.keeps_batch = True
    optimizer = torch.optim.Adam(game.players["forest"].parameters())
    first, second = torch.randn(2, 16, 2)
    game.step("forest", torch.randn(16, 2), first, optimizer)
    loss = game.loss("generator", real := torch.randn(16, 2), second)
    game.keeps_batch = False
    assert torch.equal(loss.value, game.loss("generator", real, second).value)


def test_what_a_cuda_graph_cannot_hold():
    made = {pairing: PotGan.build(PotGan.Config(MLP, pairing=pairing), (2,)) for pairing in ("cover", "assignment")}
    assert made["cover"].eager == {"forest"}
    assert made["assignment"].eager == {"forest", "generator"}
    assert PotGan.build(PotGan.Config(MLP, pairing="assignment", transform="identity"), (2,)).eager == {"generator"}
