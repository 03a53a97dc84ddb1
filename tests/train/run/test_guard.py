"""Losses that are not finite, as a GPU run sees them: noted at once, told at the next check."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from models.games import GAMES
from train.errors import TrainingError
from train.recipes import profile
from train.run.build import load_data, make_trainer
from train.run.guard import FiniteGuard, check_parameters

PLAYERS = nn.ModuleDict({"critic": nn.Linear(1, 1), "generator": nn.Linear(1, 1)})


@pytest.fixture
def deferred():
    guard = FiniteGuard(PLAYERS, torch.device("cpu"))
    guard._immediate = False  # the way of a GPU, on the CPU
    return guard


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_bad_step_is_named_by_a_later_check(deferred, bad):
    deferred.watch("generator", torch.tensor(1e30), 1)
    deferred.check()
    deferred.watch("generator", torch.tensor(bad), 5)
    deferred.watch("critic", torch.tensor(bad), 6)
    deferred.watch("generator", torch.tensor(bad), 7)
    deferred.watch("generator", torch.tensor(1.0), 8)
    with pytest.raises(TrainingError, match="loss of player 'generator' is not finite at step 5"):
        deferred.check()


def test_on_the_cpu_it_is_told_at_once():
    guard = FiniteGuard(PLAYERS, torch.device("cpu"))
    guard.watch("critic", torch.tensor(1.0, requires_grad=True), 1)
    with pytest.raises(TrainingError, match="loss of player 'critic' is not finite at step 2"):
        guard.watch("critic", torch.tensor(float("nan")), 2)


def test_a_buffer_that_is_not_finite_is_found_too():
    players = nn.ModuleDict({"plain": nn.Linear(1, 1), "normed": nn.BatchNorm1d(2)})
    check_parameters(players, 3)
    players["normed"].running_var[1] = float("nan")
    with pytest.raises(TrainingError, match="player 'normed' are not finite after step 3"):
        check_parameters(players, 3)


def spoil(module):
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = float("nan")


def play(trainer, iterations):
    for _ in range(iterations):
        trainer.loop.iterate(trainer._watch)


@pytest.mark.parametrize("game", list(GAMES))
@pytest.mark.parametrize("before", [True, False], ids=["before its step", "by its step"])
def test_nan_in_any_player_of_any_game_is_named(tmp_path, game, before):
    """Also where the step that made it had a finite loss, and the loss of another player is the first that shows it."""
    config = profile(game, "ring8")
    config = replace(config, batch_size=8, game=replace(config.game, networks=replace(config.game.networks, width=4)))
    data = load_data(config)
    for spoilt in GAMES[game].build(config.game, data.shape).players:
        trainer = make_trainer(game, config, data, tmp_path)
        play(trainer, 1)
        step = trainer.loop.game.step

        def spoiling(player, *rest, step=step, module=trainer.loop.game.players[spoilt], spoilt=spoilt):
            if before and player == spoilt:
                spoil(module)
            loss = step(player, *rest)
            if player == spoilt:
                spoil(module)
            return loss

        trainer.loop.game.step = spoiling
        with pytest.raises(TrainingError, match=rf"player '{spoilt}'.*") as caught:
            play(trainer, 3)
        first = str(caught.value).partition(",")[0]
        if before:
            assert first == f"train: the loss of player '{spoilt}' is not finite at step 2"
        else:
            assert first.startswith("train: the loss of player '")
        assert str(caught.value).isprintable()
