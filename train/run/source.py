"""Where a loop's batches come from: real samples of a data set, and noise from a random stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from train.data.datasets import ALL, Dataset, stream_seed

NOISE_STREAM = 2**32  # past the epochs that number the streams of an image set
DrawNoise = Callable[[int, torch.Generator], Tensor]


class Batches(Protocol):
    """What a loop draws from."""

    def draw(self, n: int, own: slice = ALL) -> tuple[Tensor, Tensor]:
        """A fresh batch: n real samples [n, ...] and the noise for n generated ones [n, noise_dim].

        own: the rows of both that this process has.
        """

    def fixed_noise(self, n: int) -> Tensor:
        """Noise [n, noise_dim] for pictures and figures: the same at each call, and no stream moves."""


class Source:
    """The batches of one run: ``data``, and noise that ``draw_noise`` takes from the stream of ``seed``."""

    def __init__(self, data: Dataset, draw_noise: DrawNoise, seed: int, device: torch.device) -> None:
        self.data = data
        self.noise = torch.Generator(device).manual_seed(stream_seed(seed, NOISE_STREAM))
        self._draw_noise, self._seed = draw_noise, seed

    def draw(self, n: int, own: slice = ALL) -> tuple[Tensor, Tensor]:
        """See Batches."""
        return self.data.batch(n, own), self._draw_noise(n, self.noise)[own]

    def fixed_noise(self, n: int) -> Tensor:
        """See Batches."""
        generator = torch.Generator(self.noise.device).manual_seed((self._seed + 1) % 2**64)
        return self._draw_noise(n, generator)

    def state_dict(self) -> dict[str, Any]:
        """The positions of both streams: "data" and "noise"."""
        return {"data": self.data.state_dict(), "noise": self.noise.get_state()}

    def load_state_dict(self, state: Mapping[str, Any], *, other_data: bool = False) -> None:
        """Restore what ``state_dict`` gave; ValueError if it belongs to other data, unless ``other_data`` allows it."""
        self.data.load_state_dict(state["data"], allow_other=other_data)
        self.noise.set_state(state["noise"])


class StackedSource:
    """The batches of R runs side by side: those of ``sources``, with a leading dimension of runs."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)

    def draw(self, n: int, own: slice = ALL) -> tuple[Tensor, Tensor]:
        """Real samples [R, n, ...] and noise [R, n, noise_dim], or the rows ``own`` of each run's."""
        real, noise = zip(*(source.draw(n, own) for source in self._sources), strict=True)
        return torch.stack(real), torch.stack(noise)

    def fixed_noise(self, n: int) -> Tensor:
        """Noise [R, n, noise_dim], the same at each call."""
        return torch.stack([source.fixed_noise(n) for source in self._sources])
