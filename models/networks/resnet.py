"""The residual networks of WGAN-GP (Gulrajani et al. 2017, CIFAR-10), for 32 and 64 pixels, and 3P-WGAN's mover.

All blocks have ``width`` maps. Batch norm in the generator and the mover; in the critic only if asked for, since a
gradient penalty is per sample. Any size 4 * 2^k from 16 pixels; the mover takes any multiple of 4.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from models.networks.init import he_init
from models.networks.network import Network, check_shape


class Block(nn.Module):
    """Two 3x3 convolutions beside a 1x1 shortcut: [N, channels, H, W] -> [N, out, H', W'].

    resample: "up" doubles H and W before the first convolution, "down" halves them after the second.
    first: no batch norm and ReLU before the first convolution: the input is an image.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        resample: Literal["up", "down", "same"] = "same",
        *,
        batch_norm: bool = False,
        first: bool = False,
    ) -> None:
        super().__init__()
        up: list[nn.Module] = [nn.Upsample(scale_factor=2)] if resample == "up" else []
        down: list[nn.Module] = [nn.AvgPool2d(2)] if resample == "down" else []
        before = [] if first else [*_norm(channels, batch_norm), nn.ReLU()]
        convolutions = [_conv(channels, out), *_norm(out, batch_norm), nn.ReLU(), _conv(out, out)]
        self.main = nn.Sequential(*before, *up, *convolutions, *down)
        # 1x1 convolutions commute with both resamplings: here they run on the smaller map.
        same = resample == "same" and channels == out
        self.shortcut = nn.Identity() if same else nn.Sequential(*down, nn.Conv2d(channels, out, 1), *up)
        he_init(self.main)
        he_init(self.shortcut, gain=0.5**0.5)  # no ReLU follows it (WGAN-GP's code does the same)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.shortcut(x)


def generator(noise_dim: int, shape: tuple[int, ...], width: int) -> Network:
    """Noise [N, noise_dim] -> images [N, *shape] in [-1, 1]; a block for each doubling from 4x4."""
    blocks = [Block(width, width, "up", batch_norm=True) for _ in range(_doublings(shape))]
    return Network(
        he_init(nn.Linear(noise_dim, width * 16)),
        nn.Unflatten(1, (width, 4, 4)),
        *blocks,
        nn.BatchNorm2d(width),
        nn.ReLU(),
        he_init(_conv(width, shape[0])),
        nn.Tanh(),
        name="generator",
        takes=(noise_dim,),
        argument="noise",
    )


def features(shape: tuple[int, ...], width: int, batch_norm: bool = False) -> tuple[Network, int]:
    """Images [N, *shape] -> features [N, width], and ``width``: halvings to 8x8, two more blocks, ReLU, mean."""
    blocks = [
        Block(shape[0] if i == 0 else width, width, "down", batch_norm=batch_norm, first=i == 0)
        for i in range(_doublings(shape) - 1)
    ]
    blocks += [Block(width, width, batch_norm=batch_norm) for _ in range(2)]
    mean = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Network(*blocks, *_norm(width, batch_norm), nn.ReLU(), *mean, name="features", takes=shape), width


def critic(shape: tuple[int, ...], width: int, batch_norm: bool = False) -> Network:
    """Images [N, *shape] -> scores [N]."""
    body, size = features(shape, width, batch_norm)
    return Network(body, he_init(nn.Linear(size, 1)), nn.Flatten(0), name="critic", takes=shape)


def mover(shape: tuple[int, ...], width: int) -> Network:
    """Images [N, *shape] -> images in [-1, 1]: two blocks down, two up, ReLU, 3x3 convolution, tanh (section 3.3)."""
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise ValueError(f"mover: shape must be [C, H, W] with H and W multiples of 4, got {list(shape)}")
    check_shape(shape)
    return Network(
        Block(shape[0], width, "down", batch_norm=True, first=True),
        Block(width, width, "down", batch_norm=True),
        Block(width, width, "up", batch_norm=True),
        Block(width, width, "up", batch_norm=True),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        he_init(_conv(width, shape[0])),
        nn.Tanh(),
        name="mover",
        takes=shape,
    )


def _conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


def _norm(channels: int, batch_norm: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if batch_norm else []


def _doublings(shape: tuple[int, ...]) -> int:
    """k of H = W = 4 * 2^k. ValueError unless k >= 2."""
    size = shape[1] if len(shape) == 3 and shape[1] == shape[2] else 0
    if size < 16 or size & (size - 1):
        raise ValueError(f"resnet: shape must be [C, H, W] with H = W a power of two from 16, got {list(shape)}")
    check_shape(shape)
    return size.bit_length() - 3
