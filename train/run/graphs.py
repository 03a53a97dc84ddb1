"""A player's step as one CUDA graph: forward, backward (of a gradient penalty, twice) and optimizer in one launch.

A step of these networks is hundreds of small kernels, which Python and the driver start more slowly than a GPU computes
them. A graph holds them all and is launched as one. It reads its batch from, and leaves its loss in, tensors of its
own. Random numbers come from PyTorch's generator. What Python would hold, the learning rate, is a tensor.

Nothing here has run on a GPU yet. The tests replay by calling the step again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.games import Game, Loss

WARM_UP = 3  # steps before a graph is made, in which libraries choose their kernels and optimizers make their state
Replay = Callable[[], None]


class Device(Protocol):
    """What makes graphs: ``OnGpu``."""

    def warm(self, step: Callable[[], Loss]) -> Loss:
        """Run a step before there is a graph."""

    def capture(self, step: Callable[[], None]) -> Replay:
        """What runs ``step`` again and again; capturing need not run it."""


@dataclass(frozen=True)
class Graph:
    """What a replay reads and leaves."""

    real: Tensor
    noise: Tensor
    loss: Loss
    replay: Replay


class Graphs:
    """The steps of ``game``'s players: the first few as they are, then each player's as one graph.

    ``game.eager`` names players whose step stays as it is. device: None for the present GPU.
    """

    def __init__(
        self, game: Game, optimizers: Mapping[str, torch.optim.Optimizer], device: Device | None = None
    ) -> None:
        self._game, self._optimizers = game, optimizers
        self._device = device or OnGpu()
        self._taken = dict.fromkeys(game.players, 0)
        self._graphs: dict[str, Graph] = {}

    def step(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        """``game.step``; the loss is overwritten by the player's next step."""
        if player in self._game.eager:
            return self._game.step(player, real, noise, self._optimizers[player])
        self._taken[player] += 1
        if self._taken[player] <= WARM_UP:
            return self._device.warm(lambda: self._game.step(player, real, noise, self._optimizers[player]))
        if player not in self._graphs:
            self._graphs[player] = self._made(player, real, noise)
        graph = self._graphs[player]
        graph.real.copy_(real)
        graph.noise.copy_(noise)
        graph.replay()
        return graph.loss

    def _made(self, player: str, real: Tensor, noise: Tensor) -> Graph:
        own_real, own_noise = real.clone(), noise.clone()
        shape = self._terms(player, own_real, own_noise)  # outside the pool, where other graphs would overwrite them
        kept = Loss(torch.empty_like(shape.value), {name: torch.empty_like(term) for name, term in shape.terms.items()})

        def step() -> None:
            loss = self._game.step(player, own_real, own_noise, self._optimizers[player])
            kept.value.copy_(loss.value.detach())
            for name, term in loss.terms.items():
                kept.terms[name].copy_(term)

        return Graph(own_real, own_noise, kept, self._device.capture(step))

    def _terms(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        """A loss of the same terms, for their shapes; random states and statistics are as before after it."""
        devices = [real.device] if real.device.type == "cuda" else []
        buffers = {name: value.clone() for name, value in self._game.named_buffers()}
        with torch.random.fork_rng(devices), self._game.cast(real):
            loss = self._game.loss(player, real, noise)
        for name, value in self._game.named_buffers():
            value.copy_(buffers[name])
        return Loss(loss.value.detach(), {name: term.detach() for name, term in loss.terms.items()})


class OnGpu:
    """Graphs of the present GPU, in one pool of memory, as only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def warm(self, step: Callable[[], Loss]) -> Loss:
        """A step on the stream that graphs are captured on, as PyTorch asks for before a capture."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = step()
        current.wait_stream(self._stream)
        return loss

    def capture(self, step: Callable[[], None]) -> Replay:
        """What runs ``step`` again and again; capturing does not run it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            step()
        return graph.replay
