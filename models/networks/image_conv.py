"""The first convolution of an image network, whose gradient to the image is made quickly on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageConv2d(nn.Conv2d):
    """nn.Conv2d of 5x5 kernels with stride 2 and padding 2, for images of a few channels.

    oneDNN pads the gradient's few channels to a whole vector. Where a frozen network on a CPU passes a gradient on to
    its images, as POT-GAN's encoder does, it is computed as a convolution with four times as many outputs instead, in
    half the time for 64 images of 3 channels and 32 pixels.
    """

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__(channels, maps, 5, stride=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        frozen = not (self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad))
        if frozen and x.requires_grad and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            out: Tensor = _Frozen.apply(x, self.weight, self.bias)
            return out
        return super().forward(x)


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size = x.shape[-2:]
        return F.conv2d(x, weight, bias, 2, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return to_image(grad, weight, ctx.size), None, None


def to_image(grad: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """The gradient [N, C, *size] of an image whose convolution (5x5, stride 2, padding 2) has gradient [N, M, h, w].

    Pixel 2 u + p of a row gets grad[u + t] weight[p - 2 t + 2] for t = -1, 0, 1 where such a weight exists: for each
    parity p of rows and columns a 3x3 convolution, and all four are one, whose outputs are interleaved (pixel shuffle).
    """
    maps, channels = weight.shape[:2]
    by_parity = F.pad(weight, (0, 1, 0, 1)).view(maps, channels, 3, 2, 3, 2).flip(2, 4)  # [M, C, t, p, t, p]
    kernel = by_parity.permute(1, 3, 5, 0, 2, 4).reshape(4 * channels, maps, 3, 3)
    return F.pixel_shuffle(F.conv2d(grad, kernel, padding=1), 2)[..., : size[0], : size[1]]
