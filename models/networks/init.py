"""Weight initialisation."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def he_init(module: M, gain: float = 1.0) -> M:
    """Weights N(0, gain^2 * 2 / fan_in), biases 0 (He et al. 2015), in place; returns ``module``.

    The fan-in of a transposed convolution is what one output pixel sums: in_channels * kernel area / stride area.
    """
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            area = layer.kernel_size[0] * layer.kernel_size[1] / (layer.stride[0] * layer.stride[1])
            fan_in = layer.in_channels * area
        elif isinstance(layer, (nn.Linear, nn.Conv2d)):
            fan_in = layer.weight[0].numel()
        else:
            continue
        _draw(layer, gain * (2 / fan_in) ** 0.5)
    return module


def normal_init(module: M, std: float = 0.02) -> M:
    """Weights N(0, std^2), biases 0, in place (Radford et al. 2016, section 3); returns ``module``.

    Scales of batch norm stay 1.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            _draw(layer, std)
    return module


def _draw(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, std: float) -> None:
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
