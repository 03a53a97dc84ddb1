"""Run r side by side with others is the run that the trainer makes with seed r."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.games.potgan import ForestConfig
from train.data.config import DataConfig
from train.recipes import profile
from train.run.build import load_data, make_trainer
from train.run.loop import side_by_side

SEEDS = (3, 8)


def config(game, **changes):
    chosen = profile(game, "ring8")
    networks = replace(chosen.game.networks, width=16, depth=1, init="he")
    return replace(
        chosen, iterations=20, batch_size=32, lr=1e-3, game=replace(chosen.game, networks=networks, **changes)
    )


def one_run(game, settings, directory, iterations):
    trainer = make_trainer(game, settings, load_data(settings), directory)
    for _ in range(iterations):
        trainer.loop.iterate()
    return trainer


@pytest.mark.parametrize("game", ["gan", "wae-gan", "3p-wgan", "wgan"])  # they draw nothing in their losses
def test_a_run_side_by_side_is_the_single_run_with_its_seed(game, tmp_path):
    # Biases before batch norm have gradient 0 but for rounding, which Adam makes a step of lr: without it here.
    settings = config(game, **({"batch_norm": "none"} if game == "3p-wgan" else {}))
    loop = side_by_side(game, settings, SEEDS)
    for _ in range(5):
        loop.iterate()
    samples = loop.samples(50)
    for r, seed in enumerate(SEEDS):
        trainer = one_run(game, replace(settings, seed=seed), tmp_path, 5)
        # float32 sums in another order, through a few steps of size lr * 16 weights: far below what a wrong seed makes
        torch.testing.assert_close(samples[r], trainer.outputs.samples(50), rtol=1e-3, atol=1e-3)
    assert (samples[0] - samples[1]).abs().mean() > 0.05


def test_learning_rate_progress_and_average_are_the_trainers(tmp_path):
    settings = replace(config("3p-wgan"), lr_decay="linear", ema=0.5, iterations=8)
    loop = side_by_side("3p-wgan", settings, SEEDS)
    trainer = one_run("3p-wgan", settings, tmp_path, 3)
    for _ in range(3):
        loop.iterate()
    weights = [float(each.game.cost_weight) for each in (loop, trainer.loop)]
    assert weights[0] == weights[1] == pytest.approx(0.1 + 99.9 * 2 / 8)
    rates = [loop.optimizers["mover"].param_groups[0]["lr"] for loop in (loop, trainer.loop)]
    assert rates[0] == rates[1] == pytest.approx(1e-3 * 6 / 8)
    assert loop.average.updates == 3


def test_a_forest_game_trains_all_runs(tmp_path):
    """One call for all forests: leaves move in every run, and each run's transport cost is its own."""
    forest = ForestConfig(trees=4, depth=2, inner_steps=2, lr=0.05)
    loop = side_by_side("potgan", config("potgan", forest=forest), (0, 1, 2))
    loop.iterate()
    before = loop.game.players["forest"].leaves.detach().clone()
    losses = {}
    loop.iterate(losses.__setitem__)
    moved = (loop.game.players["forest"].leaves - before).abs().flatten(1).amax(1)
    assert (moved > 0.01).all()
    cost = losses["forest"].value
    assert cost.shape == (3,)
    assert len(cost.unique()) == 3


def test_points_of_a_fixed_set_differ_between_runs():
    settings = replace(config("gan"), data=DataConfig("ring8", limit=32))
    loop = side_by_side("gan", settings, SEEDS)
    first, second = loop.source.draw(32)[0], loop.source.draw(32)[0]
    assert first.shape == (2, 32, 2)
    for r in range(2):
        assert not torch.equal(first[r], second[r])
        assert torch.equal(first[r].sort(0).values, second[r].sort(0).values)
    assert not torch.equal(first[0].sort(0).values, first[1].sort(0).values)
