"""The small convolutional networks of WGAN-GP (Gulrajani et al. 2017, CIFAR-10): 5x5 kernels, stride 2.

Batch norm in the generator, and in the critic only if asked for: a gradient penalty is per sample, and batch norm would
couple the samples of a critic's batch. Any square size from 8 pixels: L = ceil(log2(size / 4)) levels lie between 4x4
and the image.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.image_conv import ImageConv2d
from models.networks.init import he_init
from models.networks.network import Network, check_shape


def levels(shape: tuple[int, ...]) -> int:
    """Halvings from ``shape`` [C, H, W] down to 4x4. ValueError unless H = W >= 8."""
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 8:
        raise ValueError(f"dcgan: shape must be [C, H, W] with H = W >= 8, got {list(shape)}")
    check_shape(shape)
    return (-(-shape[1] // 4) - 1).bit_length()


class CentreCrop(nn.Module):
    """Crop [N, C, H, W] to [N, C, size, size]: 32 -> 28 for MNIST-like images."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in x.shape[-2:])
        return x[..., top : top + self.size, left : left + self.size]


def generator(noise_dim: int, shape: tuple[int, ...], width: int) -> Network:
    """Noise [N, noise_dim] -> images [N, *shape] in [-1, 1]; ``width`` maps before the last layer, doubled inwards."""
    count = levels(shape)
    maps = width * 2 ** (count - 1)
    # No bias before batch norm: it would be subtracted again.
    layers: list[nn.Module] = [nn.Linear(noise_dim, maps * 16, bias=False), nn.Unflatten(1, (maps, 4, 4))]
    for _ in range(count - 1):
        layers += [
            nn.BatchNorm2d(maps),
            nn.ReLU(),
            nn.ConvTranspose2d(maps, maps // 2, 5, stride=2, padding=2, output_padding=1, bias=False),
        ]
        maps //= 2
    layers += [
        nn.BatchNorm2d(maps),
        nn.ReLU(),
        nn.ConvTranspose2d(maps, shape[0], 5, stride=2, padding=2, output_padding=1),
        CentreCrop(shape[1]),
        nn.Tanh(),
    ]
    return he_init(Network(*layers, name="generator", takes=(noise_dim,), argument="noise"))


def features(shape: tuple[int, ...], width: int, batch_norm: bool = False) -> tuple[Network, int]:
    """Images [N, *shape] -> flat features [N, K] by strided convolutions and LeakyReLU(0.2); returns (module, K).

    batch_norm: after every convolution but the first (Radford et al. 2016, section 3).
    """
    layers: list[nn.Module] = []
    count, channels, size = levels(shape), shape[0], shape[1]
    for level in range(count):
        maps = width * 2**level
        norm = [nn.BatchNorm2d(maps)] if batch_norm and level > 0 else []
        conv = nn.Conv2d(channels, maps, 5, stride=2, padding=2) if level else ImageConv2d(channels, maps)
        layers += [conv, *norm, nn.LeakyReLU(0.2)]
        channels, size = maps, -(-size // 2)
    return he_init(Network(*layers, nn.Flatten(), name="features", takes=shape)), channels * size * size


def critic(shape: tuple[int, ...], width: int, batch_norm: bool = False) -> Network:
    """Images [N, *shape] -> scores [N]."""
    body, size = features(shape, width, batch_norm)
    return Network(body, he_init(nn.Linear(size, 1)), nn.Flatten(0), name="critic", takes=shape)
