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


class MlpTransform(nn.Module):
    """F(z) = z + network(z) on latents [..., dim], two hidden layers, from the identity: the last layer starts at 0."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.network = mlp([dim, width, width, dim])
        nn.init.zeros_(cast(nn.Linear, self.network[-1]).weight)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.network(z)
