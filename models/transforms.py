"""What may take the forest's place as F in POT-GAN's cost |z_r - F(z_g)|^2: the ablation of the choice of F."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.networks.mlp import mlp


class AffineTransform(nn.Linear):
    """F(z) = A z + b on latents [..., dim], from the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim)
        with torch.no_grad():
            nn.init.eye_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, z: Tensor) -> Tensor:
        _check_latents(self, z, self.in_features)
        return super().forward(z)


class MlpTransform(nn.Module):
    """F(z) = z + network(z) on latents [..., dim], two hidden layers, from the identity: the last layer starts at 0."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.network = mlp([dim, width, width, dim])
        nn.init.zeros_(cast(nn.Linear, self.network[-1]).weight)

    def forward(self, z: Tensor) -> Tensor:
        _check_latents(self, z, self.dim)
        return z + self.network(z)


def _check_latents(transform: nn.Module, z: Tensor, dim: int) -> None:
    if z.dim() < 2 or z.shape[-1] != dim:
        raise ValueError(f"{type(transform).__name__}: z must be [N, {dim}], got {list(z.shape)}")
