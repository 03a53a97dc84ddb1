"""What holds of every game: whom a loss reaches, whom a step moves, and that it goes downhill."""

from dataclasses import fields, replace

import pytest
import torch

from models.games import GAMES
from models.games.potgan import ForestConfig
from models.networks import NetworkConfig
from tests.models.games.players import settle
from train.run.config import TrainConfig

NETWORKS = {
    "mlp": (NetworkConfig("mlp", width=8, noise_dim=4), (2,)),
    "dcgan": (NetworkConfig("dcgan", width=8, noise_dim=4), (1, 8, 8)),
    "resnet": (NetworkConfig("resnet", width=8, noise_dim=4), (1, 16, 16)),
}
# WGAN's clip is wider than any weight: a clipped step is no gradient step (test_wgan.py has the clip). The other
# weights are large enough for a mistake in the part of the loss that they weigh to be seen.
WEIGHTS = {"wgan": {"clip": 100.0}, "potgan": {"transport_weight": 1.0}, "3p-wgan": {"lambda_start": 1.0}}
PLAIN = [(name, {}) for name in GAMES]
POTGANS = [("potgan", {"transform": f}) for f in ("identity", "affine", "mlp")] + [
    ("potgan", {"pairing": pairing}) for pairing in ("literal", "assignment", "sinkhorn")
]
MOVERS = [("3p-wgan", {"mover": mover}) for mover in ("identity", "noisy-identity", "input-noise", "output-noise")]
THREE_PLAYERS = [("3p-wgan", {"equation": 9}), ("3p-wgan", {"cost": "lp", "p": 3.0, "cost_scale": "mean"}), *MOVERS]
CASES = (
    [(name, options, "mlp") for name, options in PLAIN + POTGANS + THREE_PLAYERS]
    + [(name, options, "dcgan") for name, options in PLAIN]
    + [(name, options, "resnet") for name, options in PLAIN]
)
every_case = pytest.mark.parametrize(
    ("name", "options", "networks"), CASES, ids=[f"{n}-{k}-{'-'.join(map(str, o.values()))}" for n, o, k in CASES]
)

# The players whose parameters a player's loss depends on, itself among them; its own alone if nothing is said.
REACHES = {
    "generator": {"generator", "critic", "discriminator", "reconstructor", "forest", "affine", "mlp"},
    "autoencoder": {"autoencoder", "discriminator"},
    "mover": {"mover", "critic"},
}
# What a forward pass in training mode keeps, whoever's turn it is: batch norm's averages, which no loss reads, and the
# vectors of a power iteration.
KEPT_BY_FORWARD = ("running_mean", "running_var", "num_batches_tracked", "._u", "._v")


def build(name, options, networks):
    """The game in float64 and training mode, one batch, and the rest of what a first step would do already done."""
    kind, (config, shape) = GAMES[name], NETWORKS[networks]
    if name == "3p-wgan" and networks == "dcgan":
        shape = (1, 16, 16)  # the mover's least size
    options = {**WEIGHTS.get(name, {}), **options}
    if name == "potgan":
        options["forest"] = ForestConfig(inner_steps=1)
    game = kind.build(kind.Config(networks=replace(config, init="he"), **options), shape).double().train()
    real, noise = torch.randn(16, *shape, dtype=torch.float64), game.draw_noise(16).double()
    with torch.no_grad():
        for parameter in game.parameters():  # off the zeros of a start, where ReLUs have their kinks
            parameter.add_(0.05 * torch.randn_like(parameter))
    if "forest" in game.players:
        game.start_forest(game.latents(real, noise)[0])
    settle(game)  # at the end of its iteration a spectral norm is a smooth function of the weights
    return game, real, noise


def buffers(game):
    return {key: value.clone() for key, value in game.named_buffers()}


def evaluate(game, player, real, noise, kept):
    """The loss's value, from the buffers ``kept`` and the same random numbers every time."""
    for key, value in game.named_buffers():
        value.copy_(kept[key])
    torch.manual_seed(1)
    return game.loss(player, real, noise).value


@every_case
def test_a_loss_reaches_whom_it_should(name, options, networks):
    """A sample or code of another player's is detached in an opponent's loss, and not in its own."""
    game, real, noise = build(name, options, networks)
    for player in game.players:
        value = game.loss(player, real, noise).value
        assert value.shape == ()
        reached = set()
        for other, module in game.players.items():
            gradients = torch.autograd.grad(value, list(module.parameters()), retain_graph=True, allow_unused=True)
            if any(gradient is not None for gradient in gradients):
                reached.add(other)
            if other == player:
                assert all(gradient is not None for gradient in gradients)
        expected = REACHES.get(player, {player}) & set(game.players)
        if options.get("equation") == 9 and player == "generator":
            expected = expected | {"mover"}
        if name == "potgan" and options.get("pairing", "cover") in ("cover", "literal") and player == "generator":
            expected = expected - {"forest"}  # transport_cost holds F fixed
        assert reached == expected, player


@every_case
def test_a_step_goes_downhill_and_moves_no_one_else(name, options, networks):
    """Gradient descent lowers the loss by lr |gradient|^2, to first order in lr; a wrong or missing part of the
    gradient changes that. Nothing of another player changes but what a forward pass keeps."""
    game, real, noise = build(name, options, networks)
    for player, module in game.players.items():
        kept = buffers(game)
        before = {key: value.detach().clone() for key, value in game.named_parameters()}
        value_before = evaluate(game, player, real, noise, kept)
        gradients = torch.autograd.grad(value_before, list(module.parameters()))
        slope = sum(gradient.square().sum().item() for gradient in gradients)
        # A step of length 1e-8: it crosses a ReLU's kink (where the penalty of WGAN-GP jumps) next to never, its second
        # order is 1e-8 * curvature / 2, and a fall of 1e-8 |gradient| is 1e5 times float64's rounding of the loss or
        # more.
        lr = 1e-8 / slope**0.5
        evaluate(game, player, real, noise, kept)
        torch.manual_seed(1)
        game.step(player, real, noise, torch.optim.SGD(module.parameters(), lr=lr))
        changed = {key for key, value in game.named_buffers() if not torch.equal(value, kept[key])}
        moved = {key for key, value in game.named_parameters() if not torch.equal(value, before[key])}
        fall = value_before.item() - evaluate(game, player, real, noise, kept).item()
        if options.get("pairing") == "sinkhorn":  # its plan is held in the gradient, and moves
            assert fall > 0
        else:
            assert fall == pytest.approx(lr * slope, rel=1e-3), player
        assert moved
        assert all(key.startswith(f"players.{player}.") for key in moved), moved
        assert all(key.endswith(KEPT_BY_FORWARD) for key in changed), changed
        assert all(
            value.grad is None for key, value in game.named_parameters() if not key.startswith(f"players.{player}.")
        )
        game.zero_grad()


@pytest.mark.parametrize("name", GAMES)
def test_every_turn_is_a_players_and_every_player_has_one(name):
    game, _, _ = build(name, {}, "mlp")
    assert sorted(turn.player for turn in game.order) == sorted(game.players)
    assert all(turn.steps >= 1 for turn in game.order)


@pytest.mark.parametrize("name", GAMES)
def test_an_unknown_player_is_named(name):
    game, real, noise = build(name, {}, "mlp")
    message = f"{type(game).__name__}: player must be one of {', '.join(game.players)}, got 'referee'"
    with pytest.raises(ValueError, match=message):
        game.loss("referee", real, noise)


@pytest.mark.parametrize("name", GAMES)
def test_noise_has_the_networks_dimension_and_makes_samples(name):
    game, _, noise = build(name, {}, "resnet")
    assert noise.shape == (16, 4)
    assert game.sample(noise).shape == (16, 1, 16, 16)
    again = (game.draw_noise(3, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(*again)
    if name != "3p-wgan":
        # 10,000 values of N(0, 1): standard errors 0.01 of the mean, 0.007 of the deviation; five of those.
        many = game.draw_noise(2500)
        assert many.mean().abs() < 0.05
        assert abs(many.std() - 1) < 0.036


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("vae", {}),
        ("gan", {}),
        ("dcgan", {"betas": (0.5, 0.999)}),
        ("wgan", {"lr": 5e-5}),
        ("wgan-gp", {}),
        ("sngan", {"betas": (0.0, 0.9)}),
        ("veegan", {}),
        ("wae-gan", {"betas": (0.5, 0.999)}),
        ("potgan", {}),
        ("3p-wgan", {"betas": (0.0, 0.9), "lr_decay": "linear"}),
    ],
)
def test_what_the_papers_state(name, defaults):
    """Settings of a run that differ from the trainer's, each of them one that the trainer has."""
    assert GAMES[name].defaults == defaults
    assert set(defaults) <= {field.name for field in fields(TrainConfig)}
    assert GAMES[name].optimizer is (torch.optim.RMSprop if name == "wgan" else torch.optim.Adam)


@pytest.mark.parametrize("name", [name for name, kind in GAMES.items() if not kind.phases])
def test_a_game_without_phases_takes_no_earlier_game(name):
    """Else a phase would be trained, and nothing made of it."""
    config = GAMES[name].Config(networks=NETWORKS["mlp"][0])
    vae = GAMES["vae"].build(GAMES["vae"].Config(networks=NETWORKS["mlp"][0]), (2,))
    with pytest.raises(NotImplementedError, match=r"defines no build_on, and was given vae$"):
        GAMES[name].build_on(config, (2,), {"vae": vae})


@pytest.mark.parametrize("name", GAMES)
def test_notes_are_about_terms_that_are_logged(name):
    """Under any of the game's settings; reports show them beside the curves."""
    logged = {"loss"}
    for options in [{}, *(options for game, options in POTGANS + THREE_PLAYERS if game == name)]:
        game, real, noise = build(name, options, "mlp")
        for player in game.players:
            logged |= set(game.loss(player, real, noise).terms)
    assert set(GAMES[name].notes) <= logged
