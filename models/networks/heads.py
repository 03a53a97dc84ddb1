"""What a critic's scores pass through, and critics of pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bounded_scores(critic: nn.Module) -> nn.Sequential:
    """``critic`` followed by tanh: scores in (-1, 1) (3P-WGAN, section 3.1)."""
    return nn.Sequential(critic, nn.Tanh())


class PairCritic(nn.Module):
    """Pairs (z [N, k], x [N, ...]) -> scores [N]: head(body(x), z)."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.body(x), z], -1))
