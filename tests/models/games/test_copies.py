"""Every game survives pickle, copy.deepcopy and torch.save; and plays under autocast, its losses in float32."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from models.games import GAMES
from models.games.potgan import ForestConfig
from models.games.wgan_gp import gradient_penalty
from models.networks import NetworkConfig
from models.stack import stack

NETWORKS = {
    "mlp": (NetworkConfig("mlp", width=8, noise_dim=4), (2,)),
    "dcgan": (NetworkConfig("dcgan", width=4, noise_dim=4), (1, 16, 16)),
}
OPTIONS = [
    *[(name, {}) for name in GAMES],
    *[("potgan", {"transform": f}) for f in ("identity", "affine", "mlp")],
    *[("potgan", {"pairing": p}) for p in ("literal", "assignment", "sinkhorn")],
    ("3p-wgan", {"cost": "lp", "p": 3.0, "cost_scale": "mean"}),
    ("3p-wgan", {"cost": "tests.models.games.players:half_squares", "equation": 9}),
]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in OPTIONS]
every_game = pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)


def build(name, options, networks="mlp"):
    torch.manual_seed(0)
    config, shape = NETWORKS[networks]
    if name == "potgan":
        options = {"forest": ForestConfig(inner_steps=2), **options}
    return GAMES[name].build(GAMES[name].Config(networks=config, **options), shape).train()


def saved_and_loaded(game):
    file = io.BytesIO()
    torch.save(game, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_game
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "torch.save"])
def test_a_copy_plays_as_its_original(name, options, way):
    copies = {
        "pickle": lambda game: pickle.loads(pickle.dumps(game)),
        "deepcopy": copy.deepcopy,
        "torch.save": saved_and_loaded,
    }
    game = build(name, options)
    played = []
    for one in (copies[way](game), game):
        torch.manual_seed(1)
        real, noise = torch.randn(8, 2), one.draw_noise(8)
        for player, module in one.players.items():
            one.step(player, real, noise, torch.optim.Adam(module.parameters(), lr=0.01))
        played.append(one.state_dict())
    assert all(torch.equal(value, played[1][key]) for key, value in played[0].items())


@every_game
@pytest.mark.parametrize("networks", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_player_steps_under_autocast(name, options, networks, dtype):
    game = build(name, options, networks)
    real, noise = torch.randn(8, *NETWORKS[networks][1]), game.draw_noise(8)
    for player, module in game.players.items():
        with torch.autocast("cpu", dtype):
            loss = game.step(player, real, noise, torch.optim.Adam(module.parameters(), lr=1e-3))
        assert {value.dtype for value in (loss.value, *loss.terms.values())} == {torch.float32}, player
        assert loss.value.isfinite()


@pytest.mark.parametrize(("name", "options"), [o for o in OPTIONS if o[0] != "sngan"])
def test_runs_side_by_side_step_under_autocast(name, options):
    game = stack([build(name, options) for _ in range(3)])
    real, noise = torch.randn(3, 8, 2), torch.randn(3, 8, 4)
    for player, module in game.players.items():
        with torch.autocast("cpu", torch.bfloat16):
            loss = game.step(player, real, noise, torch.optim.Adam(module.parameters(), lr=1e-3))
        assert loss.value.shape == (3,)
        assert loss.value.dtype == torch.float32


def test_the_penalty_under_autocast_is_that_without(randn):
    """On the same points: the critic runs in float32 inside."""
    critic = build("wgan-gp", {}).players["critic"]
    real, fake = randn(8, 2), randn(8, 2)
    torch.manual_seed(0)
    exact = gradient_penalty(critic, real, fake)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient_penalty(critic, real, fake), exact)


def test_half_precision_without_autocast_stays_what_it_is():
    game = build("wgan-gp", {}).bfloat16()
    loss = game.loss("critic", torch.randn(8, 2).bfloat16(), torch.randn(8, 4).bfloat16())
    assert loss.value.dtype == torch.bfloat16


def test_sinkhorn_s_error_is_logged(randn):
    game = build("potgan", {"pairing": "sinkhorn"})
    for player in ("generator", "forest"):
        terms = game.loss(player, randn(16, 2), randn(16, 4)).terms
        assert 0 <= terms["marginal_error"] <= 1e-3 + 32 * 2.0**-24
    assert "marginal_error" not in build("potgan", {}).loss("generator", randn(16, 2), randn(16, 4)).terms
