"""DINOv2 ViT-L/14 (Oquab et al. 2023), whose Frechet distance Stein et al. 2023 call FD-DINOv2.

The network is written out here, under the names of the published weights, so that a file of weights is all it takes:
neither a package nor code from PyTorch's hub runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.scores.extractors import Features, bicubic
from train.scores.weights import Published, check_finite, fitting

SHA256 = None  # its authors publish none; the protocol has that of the file
WEIGHTS = Published("https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth", SHA256)
SIZE, PATCH = 224, 14  # pixels
GRID = SIZE // PATCH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OFFSET = 0.1  # the published code adds it to the grid before it takes the ratio of grids


class Sizes(NamedTuple):
    """Of a vision transformer."""

    width: int
    depth: int
    heads: int


LARGE = Sizes(1024, 24, 16)


def published() -> Path:
    """The file of weights where PyTorch's hub keeps it, downloaded if it is missing."""
    return WEIGHTS.fetch()


def build(weights: Mapping[str, Tensor], path: Path, device: torch.device) -> nn.Module:
    """The network with ``weights``, which were read from ``path``, for use on ``device``."""
    named = {name: value.float() for name, value in weights.items() if name != "mask_token"}  # for training alone
    with torch.device("meta"):  # 1.2 GB are not filled twice
        network = VisionTransformer(LARGE)
    with fitting(path):
        positions = named.get("pos_embed")
        if positions is not None:
            named["pos_embed"] = resampled(positions)
        network.load_state_dict(named, assign=True)
    check_finite(network, path)
    return network


def resampled(positions: Tensor) -> Tensor:
    """Embeddings of positions [1, 1 + g^2, width] -> [1, 1 + 16^2, width], as the published code does it for 224 px.

    Bicubic, not antialiased. ValueError is left to whoever loads them: a number that is no 1 + g^2 passes unchanged.
    """
    grid = round((positions.shape[1] - 1) ** 0.5) if positions.ndim == 3 else 0
    if grid == GRID or 1 + grid**2 != positions.shape[1]:
        return positions
    image = positions[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    ratio = (GRID + OFFSET) / grid
    image = F.interpolate(image, scale_factor=(ratio, ratio), mode="bicubic")
    return torch.cat([positions[:, :1], image.permute(0, 2, 3, 1).flatten(1, 2)], 1)


class VisionTransformer(nn.Module):
    """The normalised class token of uint8 images [n, 3, H, W]: [n, width], and no logits."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, sizes.width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, sizes.width, PATCH, PATCH)})
        self.blocks = nn.Sequential(*(Block(sizes) for _ in range(sizes.depth)))
        self.norm = nn.LayerNorm(sizes.width, eps=1e-6)

    def forward(self, images: Tensor) -> Features:
        """See the class."""
        mean, std = (images.new_tensor(value, dtype=torch.float32).view(3, 1, 1) for value in (MEAN, STD))
        pixels = bicubic(images, SIZE).div_(255).sub_(mean).div_(std)
        patches = self.patch_embed["proj"](pixels).flatten(2).mT  # [n, 16^2, width]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.pos_embed
        return Features(self.norm(self.blocks(tokens)[:, 0]), None)


class Block(nn.Module):
    """Attention and a two-layer network, each normalised before and scaled per feature behind."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.heads = sizes.heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(width)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] -> the same."""
        x = x + self._attended(self.norm1(x)) * self.ls1["gamma"]
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))) * self.ls2["gamma"]

    def _attended(self, x: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [n, heads, tokens, width / heads]
        return self.attn["proj"](mixed.transpose(1, 2).flatten(2))
