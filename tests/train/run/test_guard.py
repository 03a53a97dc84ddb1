"""Losses that are not finite, as a GPU run sees them: noted at once, told at the next check."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.errors import TrainingError
from train.run.guard import FiniteGuard, check_parameters


@pytest.fixture
def deferred():
    guard = FiniteGuard(["critic", "generator"], torch.device("cpu"))
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
    guard = FiniteGuard(["critic"], torch.device("cpu"))
    guard.watch("critic", torch.tensor(1.0, requires_grad=True), 1)
    with pytest.raises(TrainingError, match="loss of player 'critic' is not finite at step 2"):
        guard.watch("critic", torch.tensor(float("nan")), 2)


def test_a_buffer_that_is_not_finite_is_found_too():
    players = nn.ModuleDict({"plain": nn.Linear(1, 1), "normed": nn.BatchNorm1d(2)})
    check_parameters(players, 3)
    players["normed"].running_var[1] = float("nan")
    with pytest.raises(TrainingError, match="player 'normed' are not finite after step 3"):
        check_parameters(players, 3)
