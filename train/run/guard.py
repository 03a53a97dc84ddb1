"""Watches losses for NaN and Inf without making a GPU wait."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.processes import here
from train.errors import TrainingError
from train.run.launch import greatest


class FiniteGuard:
    """Remembers, per player, the first step whose loss was not finite.

    On the CPU ``watch`` raises at once. On a GPU it only writes to device memory, and ``check`` (called at each log
    line and before each checkpoint) reads it: one synchronisation per interval. The step named is exact all the same.
    Another player whose parameters are no longer finite is where it came from; on the CPU it is named, too. Over
    several processes all hear in ``check`` what one has seen.
    """

    def __init__(self, players: nn.ModuleDict, device: torch.device) -> None:
        self._players = players
        self._immediate = device.type == "cpu" and here().size == 1
        self._first = {player: torch.full((), -1, dtype=torch.int64, device=device) for player in players}

    def watch(self, player: str, loss: Tensor, step: int) -> None:
        """Note a scalar ``loss`` of ``player`` at ``step``."""
        loss = loss.detach()
        if self._immediate:
            if not loss.isfinite():
                raise _not_finite(player, step, [name for name in _broken(self._players) if name != player])
            return
        first = self._first[player]
        first.masked_fill_((first < 0) & ~loss.isfinite(), step)

    def check(self) -> None:
        """Raise TrainingError if any loss seen so far was not finite; names the earliest."""
        if self._immediate:
            return
        steps = [-math.inf if step < 0 else -float(step) for step in self._first.values()]
        first = dict(zip(self._first, greatest(steps), strict=True))
        bad = {player: int(-step) for player, step in first.items() if step > -math.inf}
        if bad:
            player = min(bad, key=lambda name: bad[name])
            raise _not_finite(player, bad[player])


def check_parameters(players: nn.ModuleDict, step: int) -> None:
    """Raise TrainingError if a parameter or buffer of a player is NaN or infinite: such a state is never saved."""
    for player in _broken(players):
        raise TrainingError(f"train: the parameters of player '{player}' are not finite after step {step}")


def _broken(players: nn.ModuleDict) -> Iterator[str]:
    """The players with a parameter or buffer that is NaN or infinite."""
    for player, module in players.items():
        tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
        if tensors and not torch.stack([t.detach().isfinite().all() for t in tensors]).all():
            yield player


def check_alike(players: nn.ModuleDict, step: int) -> None:
    """Raise TrainingError if a player's parameters are not the same in all processes, by their sums."""
    if here().size == 1:
        return
    sums = [sum((float(p.detach().double().sum()) for p in module.parameters()), 0.0) for module in players.values()]
    most, least = greatest(sums), [-value for value in greatest([-value for value in sums])]
    for player, high, low in zip(players, most, least, strict=True):
        if high != low:
            raise TrainingError(
                f"train: the processes' parameters of player '{player}' are no longer the same after step {step}"
            )


def _not_finite(player: str, step: int, others: Sequence[str] = ()) -> TrainingError:
    cause = "".join(f", nor are the parameters of player '{other}'" for other in others)
    return TrainingError(f"train: the loss of player '{player}' is not finite at step {step}{cause}")
