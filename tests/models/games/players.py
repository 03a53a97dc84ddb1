"""Tiny players whose losses and optima have closed forms, data without sampling error, and loops that train them.

Affine and the critics take leading dimensions of runs, in their weights and in what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from models.games import Game
from models.networks import NetworkConfig

Values = Tensor | list[float] | list[list[float]]


def mlp(noise_dim: int = 1) -> NetworkConfig:
    """Networks by name only: what these games take from it is the noise's dimension."""
    return NetworkConfig("mlp", width=8, noise_dim=noise_dim)


class LinearCritic(nn.Module):
    """D(x) = w . x + b on [..., N, d]; weight [..., d] and bias [...]."""

    def __init__(self, weight: Values, bias: Tensor | float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight))
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[:-1]) + bias)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight[..., None]).squeeze(-1) + self.bias[..., None]


class QuadraticCritic(LinearCritic):
    """D(x) = w1 x + w2 x^2 + b for x [N, 1]: the log density ratio of any two Gaussians is one of these."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([x, x.square()], -1))


class PairCritic(LinearCritic):
    """D(z, x) = w . (z, x) + b."""

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return super().forward(torch.cat([z, x], -1))


class Affine(nn.Module):
    """x -> x A + b on [..., N, k]; weight A [..., k, d] and bias b [..., d]."""

    def __init__(self, weight: Values, bias: Values) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.as_tensor(weight)), nn.Parameter(torch.as_tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias[..., None, :]


class Shift(nn.Module):
    """x -> x + v: a generator, an encoder or a mover."""

    def __init__(self, shift: list[float]) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Points(nn.Module):
    """G(noise) = these points [N, d], whatever the noise."""

    def __init__(self, points: list[list[float]]) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.tensor(points))

    def forward(self, noise: Tensor) -> Tensor:
        return self.points


class Point(nn.Module):
    """G(noise) = the same point [d] for every noise."""

    def __init__(self, point: list[float]) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor(point))

    def forward(self, noise: Tensor) -> Tensor:
        return self.point.expand(len(noise), -1)


def half_squares(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|^2 / 2 over the last dimension: a cost of the user's own."""
    return (x - y).square().sum(-1) / 2


def normal_grid(n: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """The n midpoint quantiles of N(mean, std^2), scaled to have just that mean and deviation [n, 1]."""
    grid = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    return (mean + std * grid / grid.square().mean().sqrt()).float()[:, None]


def settle(module: nn.Module, calls: int = 300) -> None:
    """``calls`` power iterations of every layer with a spectral norm; each reading of such a weight makes one."""
    for layer in module.modules():
        if is_parametrized(layer):
            for _ in range(calls):
                _ = layer.weight


def train(game: Game, player: str, real: Tensor, noise: Tensor, steps: int, lr: float) -> None:
    """``steps`` steps of one player by gradient descent on one batch."""
    optimizer = torch.optim.SGD(game.players[player].parameters(), lr=lr)
    for _ in range(steps):
        game.step(player, real, noise, optimizer)


def minimise(game: Game, player: str, real: Tensor, noise: Tensor) -> None:
    """``player``'s loss on one batch brought to its minimum by L-BFGS, which goes downhill only."""
    parameters = list(game.players[player].parameters())
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        value = game.loss(player, real, noise).value
        value.backward(inputs=parameters)
        return value.item()

    optimizer.step(closure)


def play(
    game: Game,
    real: Tensor,
    noise: Tensor,
    rounds: int,
    lr: Mapping[str, float],
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
) -> None:
    """``rounds`` rounds of the game's order on one batch, with a learning rate per player."""
    optimizers = {player: optimizer(module.parameters(), lr=lr[player]) for player, module in game.players.items()}
    for _ in range(rounds):
        for turn in game.order:
            for _ in range(turn.steps):
                game.step(turn.player, real, noise, optimizers[turn.player])


def turns(game: Game) -> list[tuple[str, int, bool]]:
    """(player, steps, fresh) in the game's order."""
    return [(turn.player, turn.steps, turn.fresh) for turn in game.order]
