"""Steps of small networks without the cost of building a graph for each: their operations, recorded once.

The loss and its gradient are a fixed list of operations on the batch, on parameters and on buffers. PyTorch finds it
anew at each step, through its modules and its autograd, which for the networks of points takes longer than the sums
themselves. Here the list is recorded during a step (make_fx) and played for the next ones, with the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from models.games import Game, Loss
from train.run.operations import simplify, straight

Play = Callable[[str, Tensor, Tensor], Loss]


def is_fixed(game: Game) -> bool:
    """Whether the game's class says of itself that losses are the same operations at each step."""
    return game.fixed and "fixed" in type(game).__dict__


def recorded(game: Game, compiled: bool = False) -> dict[str, Recorded]:
    """``game.recorded`` for the players whose losses are known to be the same operations at each step.

    compiled: the recorded operations are compiled; ValueError for a game of which nothing is known.
    """
    if not is_fixed(game):
        if compiled:
            raise ValueError(f"train: compile needs a game whose losses are fixed, which {type(game).__name__} is not")
        return {}
    return {player: Recorded(game, player, compiled) for player in game.players}


class Recorded:
    """``game.backward`` for one player by its recorded operations, on batches of one shape.

    The first call records them. The second plays them and ``game.backward``, too: where the two differ, as they do if
    what a loss computes depends on numbers that Python decides by, every later step is the game's own. So is each
    step if the operations cannot be recorded.
    """

    def __init__(self, game: Game, player: str, compiled: bool = False) -> None:
        self._compiled = compiled
        self._game, self._parameters = game, list(game.players[player].parameters())
        self._graph: Callable[..., Any]
        self._play: Play = self._record
        self._early = 0
        self._begun: tuple[Tensor, Iterator[list[Tensor]]] | None = None

    def __call__(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        """The loss, whose gradient it leaves in the player's parameters."""
        return self._play(player, real, noise)

    @torch.no_grad()
    def begin(self, real: Tensor, noise: Tensor) -> list[Tensor] | None:
        """The loss's early values; the next call with this ``noise`` plays the rest. None where nothing is replayed."""
        if self._play != self._replay or not self._early:
            return None
        run = self._graph(real, noise)
        self._begun = noise, run
        early: list[Tensor] = next(run)
        return early

    def _record(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        found: list[Any] = []

        def step(real: Tensor, noise: Tensor) -> list[Tensor]:
            with self._game.cast(real):
                loss = self._game.loss(player, real, noise)
            gradients = torch.autograd.grad(loss.value.sum(), self._parameters)
            like = [g if g.stride() == p.stride() else torch.empty_like(p).copy_(g) for g, p in self._pairs(gradients)]
            found[:] = loss, like
            return [loss.value.detach(), *loss.terms.values(), *like, *loss.early]

        random = torch.get_rng_state()
        state = copy.deepcopy(self._game.state_dict())
        try:
            graph = make_fx(step)(real, noise)
        except Exception:  # whatever a loss does that cannot be recorded
            torch.set_rng_state(random)
            self._game.load_state_dict(state)
            self._play = self._game.backward
            return self._play(player, real, noise)
        simplify(graph)
        loss, gradients = found
        self._operations, self._names = graph, tuple(loss.terms)
        self._early = 0 if self._compiled else len(loss.early)
        self._graph = straight(graph, self._early)
        self._leave(gradients)
        self._play = self._check
        return loss

    def _check(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        random = torch.get_rng_state()
        state = copy.deepcopy(self._game.state_dict())
        played = self._outcome(self._replay(player, real, noise))
        for parameter in self._parameters:
            parameter.grad = None
        torch.set_rng_state(random)
        self._game.load_state_dict(state)
        loss = self._game.backward(player, real, noise)
        same = all(map(torch.equal, played, self._outcome(loss)))
        self._play = self._replay if same else self._game.backward
        if same and self._compiled:
            # The compiler would draw from a generator of its own: another run, and not one rounded in another way.
            self._graph = torch.compile(self._operations, fullgraph=True, options={"fallback_random": True})
        return loss

    def _outcome(self, loss: Loss) -> list[Tensor]:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        return [value.detach().nan_to_num() for value in (loss.value, *loss.terms.values(), *gradients)]

    def _replay(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        begun, self._begun = self._begun, None
        with torch.no_grad():
            if not self._early:
                value, *rest = self._graph(real, noise)
            elif begun is not None and begun[0] is noise:
                value, *rest = next(begun[1])
            else:
                _, (value, *rest) = self._graph(real, noise)
        count = len(self._names)
        self._leave(rest[count : count + len(self._parameters)])
        return Loss(value, dict(zip(self._names, rest[:count], strict=True)))

    def _pairs(self, gradients: Sequence[Tensor]) -> Any:
        return zip(gradients, self._parameters, strict=True)

    def _leave(self, gradients: Sequence[Tensor]) -> None:
        for gradient, parameter in self._pairs(gradients):
            parameter.grad = gradient
