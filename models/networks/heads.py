"""What a critic's scores pass through, and critics of pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bounded_scores(critic: nn.Module) -> nn.Sequential:
    """``critic`` followed by tanh: scores in (-1, 1) (3P-WGAN, section 3.1)."""
    return nn.Sequential(critic, nn.Tanh())


class PairCritic(nn.Module):
    """Pairs (z [N, latent_dim], x [N, ...]) -> scores [N]: head(body(x), z)."""

    def __init__(self, body: nn.Module, head: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.body, self.head, self.latent_dim = body, head, latent_dim

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        features = self.body(x)  # [N, K]
        if z.shape != (*features.shape[:-1], self.latent_dim):
            shape = [*features.shape[:-1], self.latent_dim]
            raise ValueError(f"critic: z must be {shape} for x {list(x.shape)}, got {list(z.shape)}")
        return self.head(torch.cat([features, z], -1))
