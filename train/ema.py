"""Exponential moving average of the players that make samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """average <- d * average + (1 - d) * value, with d = min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ...

    The small d of the first updates forgets the random start. Floating-point buffers (batch norm's statistics) are
    averaged like parameters, so that they belong to the averaged weights; integer buffers are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._module = module
        self._average = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """One step of the average; no host synchronisation."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        values = self._module.state_dict()
        floating = [name for name, value in values.items() if value.is_floating_point()]
        averages = [self._average[name] for name in floating]
        torch._foreach_lerp_(averages, [values[name] for name in floating], 1.0 - decay)
        for name, value in values.items():
            if not value.is_floating_point():
                self._average[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module holds the averages; after it, its own values again."""
        own = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
        self._module.load_state_dict(self._average)
        try:
            yield
        finally:
            self._module.load_state_dict(own)

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """The averages and the number of updates."""
        return {"updates": self.updates, "average": self._average}

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` gave; ValueError, and nothing restored, if names or shapes are others."""
        average = state["average"]
        for name in [*self._average, *(name for name in average if name not in self._average)]:
            ours, theirs = self._average.get(name), average.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape:
                raise ValueError(f"resume: the checkpoint's average does not fit this configuration in {name}")
        self.updates = state["updates"]
        for name, value in average.items():
            self._average[name].copy_(value)
