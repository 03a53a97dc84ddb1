"""Stacked modules and games: entry r is what module r alone would do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from models.forest import LatentTransformationForest
from models.games import GAMES
from models.games.potgan import ForestConfig
from models.networks import NetworkConfig
from models.stack import stack

RUNS, N = 3, 16
MLP = NetworkConfig("mlp", width=8, depth=2, noise_dim=2)
FOREST = ForestConfig(trees=4, depth=2, inner_steps=2, lr=0.01)
CASES = {
    **{name: (name, {}) for name in ("gan", "dcgan", "wgan", "wgan-gp", "veegan", "wae-gan", "3p-wgan")},
    **{
        f"potgan {change}": ("potgan", {"forest": FOREST, "transport_weight": 1.0, key: change})
        for key, changes in {
            "pairing": ("cover", "literal", "assignment", "sinkhorn"),
            "transform": ("identity", "affine", "mlp"),
        }.items()
        for change in changes
    },
    "3p-wgan eq. 9": ("3p-wgan", {"equation": 9, "cost": "lp", "cost_scale": "mean"}),
}


def build(case, seed=0):
    name, changes = CASES[case]
    torch.manual_seed(seed)
    return GAMES[name].build(GAMES[name].Config(networks=MLP, **changes), (2,)).double().train()


@pytest.fixture
def same_draws(monkeypatch):
    """Losses that draw numbers draw the same for one run and for many; a forest starts where a function of z says."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.full(shape, 0.3, **options))
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, 0.3))
    monkeypatch.setattr(LatentTransformationForest, "set_thresholds", lambda self, z: self.thresholds.copy_(
        z.mean(-2)[..., :1, None].expand_as(self.thresholds)))  # fmt: skip
    monkeypatch.setattr(LatentTransformationForest, "set_identity", lambda self, z: self.set_leaves(z, z))


def draw(runs=RUNS):
    shape = (runs, N, 2)
    return 2 + torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)


def play(game, batches, lr=0.01):
    """Two rounds of the game on given batches; the last losses."""
    optimizers = {name: game.optimizer(module.parameters(), lr=lr) for name, module in game.players.items()}
    losses = {}
    for real, noise in batches:
        for turn in game.order:
            losses[turn.player] = game.step(turn.player, real, noise, optimizers[turn.player])
    return losses


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("same_draws")
def test_runs_side_by_side_train_as_each_alone(case):
    games, stacked = [build(case, seed) for seed in range(RUNS)], stack([build(case, seed) for seed in range(RUNS)])
    batches = [draw() for _ in range(2)]
    losses = play(stacked, batches)
    samples = stacked.eval().sample(batches[0][1])
    for r, game in enumerate(games):
        alone = play(game, [(real[r], noise[r]) for real, noise in batches])
        assert losses.keys() == alone.keys()
        for player, loss in alone.items():
            # float64; only the order of sums differs, and Adam divides by gradients that are not near 0 here
            torch.testing.assert_close(losses[player].value[r], loss.value, rtol=1e-9, atol=1e-9)
            for term, value in loss.terms.items():
                torch.testing.assert_close(losses[player].terms[term][r], value, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(samples[r], game.eval().sample(batches[0][1][r]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", ["wgan-gp", "dcgan", "potgan cover", "potgan assignment", "potgan sinkhorn"])
@pytest.mark.usefixtures("same_draws")
def test_a_run_of_nan_leaves_the_others_alone(case):
    batches = [draw() for _ in range(2)]
    good = stack([build(case, seed) for seed in range(RUNS)])
    play(good, batches)
    bad = stack([build(case, seed) for seed in range(RUNS)])
    broken = [(real.clone(), noise) for real, noise in batches]
    broken[0][0][1, 3] = torch.nan
    play(bad, broken)
    for (name, expected), value in zip(good.named_parameters(), bad.parameters(), strict=True):
        assert torch.equal(value[[0, 2]], expected[[0, 2]]), name
    assert bad.players[bad.order[0].player].get_parameter(next(iter(dict(
        bad.players[bad.order[0].player].named_parameters())))).isnan()[1].any()  # fmt: skip


def test_a_forest_per_run_starts_near_the_identity_of_its_own_latents():
    forests = [LatentTransformationForest(2, trees=16, depth=3) for _ in range(2)]
    forest = stack(forests)
    z = torch.randn(2, 64, 2) * torch.tensor([1.0, 0.1])[:, None, None] + torch.tensor([0.0, 5.0])[:, None, None]
    forest.set_thresholds(z)
    low, high = z.amin(1), z.amax(1)  # [2, 2]
    feature = torch.arange(16 * 7) % 2
    drawn = forest.thresholds.flatten(1)
    for r in range(2):
        assert torch.isin(drawn[r, feature == 0], z[r, :, 0]).all()
        assert torch.isin(drawn[r, feature == 1], z[r, :, 1]).all()
        assert (drawn[r] >= low[r].min()).all()
        assert (drawn[r] <= high[r].max()).all()
    forest.set_identity(z)
    error = (forest(z) - z).square().mean((1, 2)) / z.var((1, 2))
    assert (error < 0.1).all()
    alone = LatentTransformationForest(2, trees=16, depth=3)
    alone.thresholds.copy_(forest.thresholds[1])
    alone.leaves.data.copy_(forest.leaves[1])
    torch.testing.assert_close(alone(z[1]), forest(z)[1], rtol=1e-5, atol=1e-5)


def test_a_forest_per_run_wants_latents_per_run():
    forest = stack([LatentTransformationForest(2) for _ in range(3)])
    with pytest.raises(ValueError, match=r"latents must be \[3, N, 2\] with N >= 1, got \[8, 2\]"):
        forest.set_thresholds(torch.zeros(8, 2))


def test_learned_thresholds_stay_parameters():
    forest = stack([LatentTransformationForest(2, learn_thresholds=True) for _ in range(2)])
    assert {name for name, _ in forest.named_parameters()} == {"leaves", "thresholds"}
    assert forest.thresholds.shape == (2, 18, 7)


def test_what_is_frozen_stays_frozen():
    game = stack([build("potgan cover"), build("potgan cover")])
    assert all(parameter.requires_grad for parameter in game.parameters())
    frozen = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in stack([frozen, frozen]).parameters())


def test_weights_are_copied():
    layers = [nn.Linear(2, 3) for _ in range(2)]
    stacked = stack([nn.Sequential(layer, nn.ReLU()) for layer in layers])
    with torch.no_grad():
        stacked[0].weight.zero_()
    assert all(layer.weight.abs().sum() > 0 for layer in layers)


def test_a_layer_that_cannot_be_stacked_is_named():
    for layer, message in (
        (nn.Conv2d(3, 4, 3), r"a layer must be one of Linear, .* to train runs side by side, got Conv2d$"),
        (spectral_norm(nn.Linear(2, 2)), "got ParametrizedLinear$"),
        (nn.BatchNorm2d(2, affine=False), "got BatchNorm2d$"),  # buffers alone
        (nn.BatchNorm1d(2, affine=False), "BatchNorm1d must be affine"),
        (nn.Linear(2, 2, bias=False), "Linear must have a bias"),
    ):
        with pytest.raises(ValueError, match=message):
            stack([nn.Sequential(layer), nn.Sequential(layer)])
    with pytest.raises(ValueError, match="modules must hold at least one module"):
        stack([])
