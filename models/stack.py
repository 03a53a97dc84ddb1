"""R modules of one kind as one: parameters and inputs get a leading dimension of runs, and no run sees another.

So R games train at once, at the cost of a few batched products instead of R times the small ones. Losses that reduce
over the last dimension of scores (`models.games.game`) need no change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from models.forest import LatentTransformationForest
from models.games.game import Game
from models.transforms import AffineTransform

M = TypeVar("M", bound=nn.Module)


def stack(modules: Sequence[M]) -> M:
    """One module that applies ``modules`` side by side, run r to entry r of its inputs [R, N, ...].

    modules: R >= 1 of equal structure, games among them. Weights are copied. What has no weights must count dimensions
    from the last. ValueError for a layer with weights other than those in ``LAYERS``.
    """
    if not modules:
        raise ValueError("stack: modules must hold at least one module, got none")
    first: Any = modules[0]
    if type(first) in LAYERS:
        return LAYERS[type(first)](modules)
    own = [*first.parameters(recurse=False), *first.buffers(recurse=False)]
    if own and not isinstance(first, Game):  # a game's own buffers are flags that all runs share
        known = ", ".join(kind.__name__ for kind in LAYERS)
        raise ValueError(
            f"stack: a layer must be one of {known} to train runs side by side, got {type(first).__name__}"
        )
    stacked = copy.deepcopy(first)
    for name, _ in first.named_children():
        setattr(stacked, name, stack([getattr(module, name) for module in modules]))
    return stacked


def _parameter(values: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([value.detach() for value in values]), values[0].requires_grad)


class StackedLinear(nn.Module):
    """R linear layers: [R, N, in] -> [R, N, out], weight [R, in, out], bias [R, 1, out]."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        if layers[0].bias is None:
            raise ValueError("stack: Linear must have a bias")
        self.weight = _parameter([layer.weight.T for layer in layers])
        self.bias = _parameter([layer.bias[None] for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or (x.shape[0], x.shape[2]) != self.weight.shape[:2]:
            runs, fan_in = self.weight.shape[:2]
            raise ValueError(f"StackedLinear: x must be [{runs}, N, {fan_in}], got {list(x.shape)}")
        return torch.baddbmm(self.bias, x, self.weight)


class StackedBatchNorm(nn.Module):
    """R batch norms: [R, N, C] -> [R, N, C], statistics over N for each run and channel."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, layers: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        if not layers[0].affine or not layers[0].track_running_stats or layers[0].momentum is None:
            raise ValueError("stack: BatchNorm1d must be affine and keep running statistics with a momentum")
        self.momentum, self.eps = layers[0].momentum, layers[0].eps
        self.weight = _parameter([layer.weight for layer in layers])
        self.bias = _parameter([layer.bias for layer in layers])
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.stack([getattr(layer, name) for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or (x.shape[0], x.shape[2]) != self.weight.shape:
            runs, channels = self.weight.shape
            raise ValueError(f"StackedBatchNorm: x must be [{runs}, N, {channels}], got {list(x.shape)}")
        runs, n, channels = x.shape
        if self.training and n == 1:
            raise ValueError(f"StackedBatchNorm: x must hold at least 2 samples a run to train, got {list(x.shape)}")
        rows = x.transpose(0, 1).reshape(n, runs * channels)
        mean, variance = self.running_mean.view(-1), self.running_var.view(-1)
        rows = batch_norm(
            rows,
            mean,
            variance,
            self.weight.view(-1),
            self.bias.view(-1),
            self.training,
            self.momentum,
            self.eps,
        )
        return rows.view(n, runs, channels).transpose(0, 1)


def stack_forests(forests: Sequence[LatentTransformationForest]) -> LatentTransformationForest:
    """A forest per run: the ops take leaves [R, T, 2^D, out_dim] and thresholds [R, T, 2^D - 1] as they are."""
    stacked = copy.deepcopy(forests[0])
    for name in ("leaves", "thresholds"):
        values = torch.stack([getattr(forest, name).detach() for forest in forests])
        own = getattr(stacked, name)
        delattr(stacked, name)
        if isinstance(own, nn.Parameter):
            setattr(stacked, name, nn.Parameter(values, own.requires_grad))
        else:
            stacked.register_buffer(name, values)
    return stacked


LAYERS: dict[type[nn.Module], Callable[[Any], Any]] = {
    nn.Linear: StackedLinear,
    AffineTransform: StackedLinear,
    nn.BatchNorm1d: StackedBatchNorm,
    LatentTransformationForest: stack_forests,
}
