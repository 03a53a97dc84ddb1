"""A loss of inputs with a leading dimension of runs is the losses of the runs."""

import pytest
import torch
from torch import nn

from models.games import GAMES
from tests.models.games.players import Affine, LinearCritic, PairCritic, mlp

RUNS, N, D, K = 3, 6, 2, 2
CASES = [
    ("gan", {}),
    ("dcgan", {}),
    ("wgan", {}),
    ("wgan-gp", {}),
    ("sngan", {}),
    ("veegan", {}),
    ("wae-gan", {}),
    *[("potgan", {"transform": f}) for f in ("identity", "affine")],
    *[("potgan", {"transform": "identity", "pairing": pairing}) for pairing in ("literal", "assignment", "sinkhorn")],
    *[("3p-wgan", {"equation": equation}) for equation in (10, 9)],
    *[("3p-wgan", {"cost": cost, "cost_scale": "mean"}) for cost in ("l2", "lp")],
    ("3p-wgan", {"cost": "tests.models.games.players:half_squares"}),
]


def parts(draw):
    """Affine maps and critics for RUNS runs, each a kind and its weights [RUNS, ...]."""
    return {
        "generator": (Affine, draw(RUNS, K, D), draw(RUNS, D)),
        "back": (Affine, draw(RUNS, D, K), draw(RUNS, K)),  # an encoder, a reconstructor
        "move": (Affine, draw(RUNS, D, D), draw(RUNS, D)),  # a mover, an F
        "critic": (LinearCritic, draw(RUNS, D), draw(RUNS)),
        "pairs": (PairCritic, draw(RUNS, K + D), draw(RUNS)),
        "latents": (LinearCritic, draw(RUNS, K), draw(RUNS)),
    }


def made(name, options, parts, run):
    """The game of one run, or of all of them for ``run`` = slice(None)."""
    m = {part: kind(weight[run].clone(), bias[run].clone()) for part, (kind, weight, bias) in parts.items()}
    kind = GAMES[name]
    config = kind.Config(mlp(K), **options)
    if name == "veegan":
        return kind(config, m["generator"], m["pairs"], m["back"])
    if name == "wae-gan":
        return kind(config, m["back"], m["generator"], m["latents"])
    if name == "3p-wgan":
        return kind(config, m["generator"], m["critic"], m["move"])
    if name != "potgan":
        return kind(config, m["generator"], m["critic"])
    game = kind(config, m["generator"], m["critic"], nn.Identity(), D)
    if "affine" in game.players:
        game.players["affine"] = m["move"]
    return game


@pytest.fixture(autouse=True)
def same_draws(monkeypatch):
    """What a loss draws from N(0, 1) is the same for one run and for many."""
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, 0.3))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_loss_of_runs_is_the_losses_of_the_runs(name, options, randn):
    weights = parts(randn)
    real, noise = randn(RUNS, N, D), randn(RUNS, N, K)
    game = made(name, options, weights, slice(None))
    for player in game.players:
        together = game.loss(player, real, noise)
        assert together.value.shape == (RUNS,)
        for run in range(RUNS):
            alone = made(name, options, weights, run).loss(player, real[run], noise[run])
            # The same float32 sums of a few dozen terms below 100 each, perhaps in another order; the penalty's shares
            # differ, but a linear critic's gradient is the same everywhere.
            torch.testing.assert_close(together.value[run], alone.value, rtol=1e-4, atol=1e-4)
            assert together.terms.keys() == alone.terms.keys()
            for term in alone.terms:
                torch.testing.assert_close(together.terms[term][run], alone.terms[term], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_step_of_runs_is_the_steps_of_the_runs(name, options, randn):
    weights = parts(randn)
    real, noise = randn(RUNS, N, D), randn(RUNS, N, K)
    game = made(name, options, weights, slice(None))
    alone = [made(name, options, weights, run) for run in range(RUNS)]
    for player in game.players:
        for one, x, z in ((game, real, noise), *zip(alone, real, noise, strict=True)):
            one.step(player, x, z, torch.optim.SGD(one.players[player].parameters(), lr=1e-2))
    for run in range(RUNS):
        for together, single in zip(game.players.parameters(), alone[run].players.parameters(), strict=True):
            torch.testing.assert_close(together[run], single, rtol=1e-4, atol=1e-4)
