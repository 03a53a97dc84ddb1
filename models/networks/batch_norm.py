"""Batch norm whose statistics are those of the whole batch where several processes play on its rows."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.processes import Processes


class WholeBatchNorm(_BatchNorm):
    """``layer``, sharing its parameters and buffers, with mean and variance over the rows of all processes.

    torch.nn.SyncBatchNorm runs on a GPU alone and has no second derivative; this one has both, for more memory.
    """

    def __init__(self, layer: _BatchNorm, processes: Processes) -> None:
        if layer.running_mean is None or layer.momentum is None or not layer.affine:
            raise ValueError("WholeBatchNorm: layer must be affine and keep running statistics with a momentum")
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self._momentum: float = layer.momentum
        self.processes = processes
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:  # its layers' own shapes have been checked by the network
        pass

    def forward(self, input: Tensor) -> Tensor:
        """input [n, C, ...] -> the same shape."""
        if not self.training:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        others = [dim for dim in range(x.dim()) if dim != 1]
        column = (1, -1, *[1] * (x.dim() - 2))
        mean = self.processes.mean(x.mean(others))  # [C]
        centred = x - mean.view(column)
        variance = self.processes.mean(centred.square().mean(others))
        with torch.no_grad():
            count = self.processes.size * x.numel() // x.shape[1]
            kept = cast(tuple[Tensor, Tensor], (self.running_mean, self.running_var))
            cast(Tensor, self.num_batches_tracked).add_(1)
            for value, new in zip(kept, (mean, variance * (count / (count - 1))), strict=True):
                value.lerp_(new, self._momentum)
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale.view(column) + self.bias.view(column)).to(input.dtype)


def over_processes(module: nn.Module, processes: Processes) -> None:
    """Each batch norm within ``module`` becomes a WholeBatchNorm of the same parameters, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, WholeBatchNorm(child, processes))
        else:
            over_processes(child, processes)


def statistics(module: nn.Module) -> list[Tensor]:
    """The running means and variances of all batch norms within ``module``: not learned, and of own rows alone."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    return [value for layer in layers for value in (layer.running_mean, layer.running_var) if value is not None]
