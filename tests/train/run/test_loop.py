"""The order of play: turns, batches, rates, and samples of the average."""

from __future__ import annotations

import torch

from models.games import Turn
from train.data.datasets import stream_seed
from train.run.source import NOISE_STREAM


def test_turns_are_played_in_order_on_fresh_batches_or_the_last_one(make_trainer):
    trainer = make_trainer()
    trainer.loop.iterate()
    trainer.loop.iterate()
    calls = trainer.loop.game.calls
    assert [player for player, _, _ in calls] == ["critic", "critic", "generator"] * 2
    batches = [(real.data_ptr(), noise.data_ptr()) for _, real, noise in calls]
    assert batches[1] == batches[2]  # fresh=False plays on the batch before
    assert batches[4] == batches[5]
    reals = [calls[i][1] for i in (0, 1, 3, 4)]
    noises = [calls[i][2] for i in (0, 1, 3, 4)]
    for drawn in (reals, noises):
        assert all(not torch.equal(drawn[i], drawn[j]) for i in range(4) for j in range(i))


def test_an_iteration_that_begins_with_an_old_batch_draws_one(make_trainer):
    trainer = make_trainer()
    trainer.loop.game.order = (Turn("generator", 2, fresh=False),)
    trainer.loop.iterate()
    trainer.loop.iterate()
    reals = [real for _, real, _ in trainer.loop.game.calls]
    assert torch.equal(reals[0], reals[1])
    assert not torch.equal(reals[1], reals[2])


def test_learning_rates_fall_linearly_from_each_players_own(make_trainer):
    trainer = make_trainer(lr_decay="linear", iterations=4)
    seen = []
    for _ in range(4):
        trainer.loop.iterate()
        seen.append([trainer.loop.optimizers[player].param_groups[0]["lr"] for player in ("critic", "generator")])
    assert seen == [[0.5 * f, 0.01 * f] for f in (1.0, 0.75, 0.5, 0.25)]


def test_noise_weights_and_data_have_streams_of_their_own(make_trainer):
    trainer = make_trainer(seed=3)
    shared = torch.Generator().manual_seed(3)  # the global random state draws the weights and the game's own numbers
    noise = torch.randn(8, generator=trainer.source.noise)
    assert not torch.equal(noise, torch.randn(8, generator=shared))
    streams = [stream_seed(3, stream) for stream in (*range(1000), NOISE_STREAM)]
    assert len(set(streams)) == 1001


def test_sampling_uses_the_average_and_leaves_the_game_alone(make_trainer):
    trainer = make_trainer()
    for _ in range(5):
        trainer.loop.iterate()
    before = {name: value.clone() for name, value in trainer.loop.game.state_dict().items()}
    with trainer.loop.sampling() as game:
        assert not game.training
        weight = game.players["generator"][0].weight
        assert torch.equal(weight, trainer.loop.average.state_dict()["average"]["0.weight"])
        assert not torch.equal(weight, before["players.generator.0.weight"])
    assert trainer.loop.game.training
    after = trainer.loop.game.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
