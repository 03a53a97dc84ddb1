"""The protocol that the trainer plays: named players, an order of play, one loss per player."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from models.config import from_dict
from models.processes import ALONE, Processes


@dataclass(frozen=True)
class Turn:
    """``player`` takes ``steps`` optimisation steps.

    fresh: draw a new batch and new noise for each step; False plays on the batch of the step before, as
    Algorithm 2 of POT-GAN does for the forest and the generator.
    """

    player: str
    steps: int = 1
    fresh: bool = True


@dataclass(frozen=True)
class Loss:
    """What a player minimises: a scalar (one per run, [R], where runs play side by side), and detached terms to log.

    early: what the loss knows before it asks for any other player, and a turn before this one on the same batch wants,
    too: where steps are recorded it is computed once, in that turn.
    """

    value: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    early: tuple[Tensor, ...] = ()


def full(x: Tensor) -> Tensor:
    """``x`` in float32 if autocast made it a half precision: losses are computed in full."""
    halves = (torch.float16, torch.bfloat16)
    return x.float() if x.dtype in halves and torch.is_autocast_enabled(x.device.type) else x


@dataclass(frozen=True)
class Phase:
    """A game that is trained before another one, on the same data, and then handed to it (``Game.build_on``).

    game: the class of the earlier game.
    defaults: settings of its training that differ from the trainer's, such as {"iterations": 20_000}.
    needed: whether the later game needs it, from its own config and the shape of a sample.
    """

    game: type[Game]
    defaults: Mapping[str, Any]
    needed: Callable[[Any, tuple[int, ...]], bool]


class Recording(Protocol):
    """What stands for ``Game.backward`` of one player."""

    def __call__(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        """The loss, whose gradient it leaves in the player's parameters."""

    def begin(self, real: Tensor, noise: Tensor) -> Sequence[Tensor] | None:
        """The loss's ``early`` values, if this is to compute them now; the next call with this ``noise`` goes on."""


class Game(nn.Module):
    """Players and the order in which they move. A game's docstring begins with its line in ``python -m train list``.

    Config: the class of its settings, a frozen dataclass whose fields all have defaults.
    build: the game for samples of a shape.
    phases: by name, the games that are trained before it and handed to it.
    players: one module per player; an optimizer is made for each.
    order: the turns of one iteration, played front to back.
    frozen modules (an encoder, say) are plain attributes outside ``players``: saved, moved, never trained.
    optimizer: the class of every player's optimizer.
    defaults: settings of a run in which we follow the game's paper, where they differ from the trainer's.
    notes: what terms that losses log mean, by the term's name; reports say it beside the curve.
    fixed: whether losses are the same operations at each step, whatever the numbers, so that they may be recorded, or
    be a CUDA graph. A class says so for itself alone, and not for those derived from it.
    autocast: the half precision in which networks compute while they train; None for float32.
    eager: players whose step asks Python for numbers, so that it cannot be one CUDA graph, and whose learning rate is a
    number, where that of others may be a tensor.
    keeps_batch: what one turn has computed of a batch may be kept, with its graph, for a next turn on the same batch;
    not where steps are recorded or CUDA graphs, which begin with the batch.
    recorded: by player, what stands for ``backward`` in a step, such as its operations as they were recorded once.
    processes: those that train the game together, each with its rows of a batch; what is drawn in training is drawn by
    them, and what one loss makes of all rows at once is made of those that they gather.

    A loss reduces over the last dimension of scores, the batch, alone: with a leading dimension of runs on every
    tensor (``models.stack``) the same lines give one loss per run. Under autocast networks run in half precision, and
    what they return is made float32 before it enters a loss.
    """

    Config: ClassVar[Any]
    phases: ClassVar[Mapping[str, Phase]] = {}
    config: Any
    players: nn.ModuleDict
    order: tuple[Turn, ...]
    optimizer: ClassVar[type[torch.optim.Optimizer]] = torch.optim.Adam
    defaults: ClassVar[Mapping[str, Any]] = {}
    notes: ClassVar[Mapping[str, str]] = {}
    fixed: bool = False
    autocast: torch.dtype | None = None
    eager: frozenset[str] = frozenset()
    keeps_batch: bool = False
    processes: Processes = ALONE
    recorded: Mapping[str, Recording] = {}

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...]) -> Game:
        """The game for samples of ``shape``: (D,) for points or (C, H, W) for images in [-1, 1]."""
        raise NotImplementedError(f"{cls.__name__} defines no build")

    @classmethod
    def build_on(cls, config: Any, shape: tuple[int, ...], earlier: Mapping[str, Game]) -> Game:
        """The game on top of those of its ``phases`` that were played, by the phase's name.

        A game with phases has its own.
        """
        if earlier:
            raise NotImplementedError(f"{cls.__name__} defines no build_on, and was given {', '.join(earlier)}")
        return cls.build(config, shape)

    def loss(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        """The loss of ``player`` on one batch, real [N, ...] and noise [N, noise_dim]: its method ``PLAYER_loss``."""
        if player not in self.players:
            raise ValueError(f"{type(self).__name__}: player must be one of {', '.join(self.players)}, got {player!r}")
        loss: Loss = getattr(self, f"{player}_loss")(real, noise)
        return loss

    def sample(self, noise: Tensor) -> Tensor:
        """Generated samples [N, ...] for noise [N, noise_dim]."""
        raise NotImplementedError(f"{type(self).__name__} defines no sample")

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise N(0, I) [n, config.networks.noise_dim] on the game's device, drawn on that of ``generator``."""
        device = next(self.players.parameters()).device
        where = device if generator is None else generator.device
        return torch.randn(n, self.config.networks.noise_dim, generator=generator, device=where).to(device)

    def between(self, start: Tensor, end: Tensor, share: float) -> Tensor:
        """The noise at ``share``, 0..1, of the way from ``start`` to ``end`` [N, noise_dim]: a great circle.

        cos(a) start + sin(a) end with a = share pi / 2. If both ends are independent draws of ``draw_noise``, N(0, I),
        so is each point between them, as cos^2 + sin^2 = 1: the generator meets no noise that it was not trained on. On
        the straight line the variance falls to a half. Spherical interpolation by the angle between the two
        (White 2016, "Sampling generative networks") comes to the same in many dimensions, where that angle is near to
        pi / 2; in few it changes the law, and between opposite vectors it is undefined.
        """
        angle = share * math.pi / 2
        return math.cos(angle) * start + math.sin(angle) * end

    @property
    def batches(self) -> int:
        """Batches that an iteration draws: one at its first step, and one for each other step on a fresh batch."""
        fresh = sum(turn.steps for turn in self.order if turn.fresh)
        return fresh if self.order[0].fresh else fresh + 1

    @property
    def sampling_players(self) -> nn.Module:
        """The players that make samples, whose weights an average is taken of: the generator, or all without one."""
        return self.players["generator"] if "generator" in self.players else self.players  # noqa: SIM401

    def optimizer_options(self, player: str) -> dict[str, Any]:
        """What ``player``'s optimizer has instead of the trainer's defaults, such as {"lr": 1e-2}."""
        return {}

    def set_progress(self, done: float) -> None:
        """How much of the training lies behind, 0..1, for whatever a game anneals; said before each iteration."""

    def reconstruct(self, real: Tensor) -> Tensor | None:
        """What the game makes of real samples [N, ...] when it rebuilds them, shaped like them; None if it does not."""
        return None

    def pictures(self, real: Tensor, noise: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Images to look at in pairs, by what the second is of the first: two tensors [N, ...] each.

        real [N, ...]: images; noise [N, noise_dim]. Called in eval mode. By default what ``reconstruct`` gives, as
        "reconstructions"; a game that changes images in another way adds its own.
        """
        rebuilt = self.reconstruct(real)
        return {} if rebuilt is None else {"reconstructions": (real, rebuilt)}

    def parts(self) -> dict[str, Any]:
        """What an export holds, as JSON, for ``rebuild``: the config of each phase's game that this one stands on.

        A game with phases has its own.
        """
        return {}

    @classmethod
    def rebuild(cls, config: Any, shape: tuple[int, ...], parts: Mapping[str, Any]) -> Game:
        """The game of an export, before its weights are loaded."""
        earlier = {name: cls._rebuild_phase(name, values, shape) for name, values in parts.items()}
        return cls.build_on(config, shape, earlier)

    @classmethod
    def _rebuild_phase(cls, name: str, config: Any, shape: tuple[int, ...]) -> Game:
        if name not in cls.phases:
            raise ValueError(f"{cls.__name__}: parts must be of {', '.join(cls.phases) or 'none'}, got {name!r}")
        kind = cls.phases[name].game
        return kind.rebuild(from_dict(kind.Config, config), shape, {})

    def cast(self, real: Tensor) -> torch.autocast:
        """Within the block networks compute in ``autocast``, if that is set, on the device of ``real``."""
        return torch.autocast(real.device.type, self.autocast, enabled=self.autocast is not None)

    def backward(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        """The loss, whose gradient it leaves in the parameters of ``player`` alone."""
        with self.cast(real):
            loss = self.loss(player, real, noise)
        loss.value.sum().backward(inputs=list(self.players[player].parameters()))
        return loss

    def step(self, player: str, real: Tensor, noise: Tensor, optimizer: torch.optim.Optimizer) -> Loss:
        """One optimisation step of ``player``; no other player's parameters or gradients are touched."""
        optimizer.zero_grad(set_to_none=True)
        loss = self.recorded.get(player, self.backward)(player, real, noise)
        self.processes.average(parameter.grad for parameter in self.players[player].parameters())
        optimizer.step()
        return loss
