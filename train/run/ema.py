"""Exponential moving average of the players that make samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave; ValueError, and nothing changed, if names, shapes or types differ."""
        updates, average = state.get("updates"), state.get("average")
        if type(updates) is not int or updates < 0:
            raise ValueError(f"ema: updates must be an integer >= 0, got {type(updates).__name__}")
        if not isinstance(average, Mapping):
            raise ValueError(f"ema: average must be a mapping, got {type(average).__name__}")
        for what, names in (("lacks", self._average.keys() - average), ("knows no", average.keys() - self._average)):
            if names:
                raise ValueError(f"ema: the average {what} {', '.join(sorted(map(str, names)))}")
        for name, own in self._average.items():
            value = average[name]
            if not isinstance(value, Tensor):
                raise ValueError(f"ema: {name} must be a tensor, got {type(value).__name__}")
            if value.shape != own.shape or value.dtype != own.dtype:
                wanted, got = f"{own.dtype} {list(own.shape)}", f"{value.dtype} {list(value.shape)}"
                raise ValueError(f"ema: {name} must be {wanted}, got {got}")
        for name, own in self._average.items():
            own.copy_(average[name])
        self.updates = updates
