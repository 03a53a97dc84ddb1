"""Modules made of the ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import _checks
from .soft_forest import soft_forest


class SoftForest(nn.Module):
    """A soft decision forest F: R^dim -> R^out_dim, POT-GAN's latent transformation (Avraham et al. 2019, section 4.2).

        F(z) = (1/T) sum_t sum_l mu[t, l](scale * z) leaves[t, l]

    where mu[t, l] is the product of the shares on the way from the root of tree t to its leaf l: node n (breadth-first)
    compares feature f = (t * (2^D - 1) + n) mod dim, passes sigmoid(scale * z[f] - thresholds[t, n]) to its left child
    and the rest to its right one. Gradients reach z, leaves and thresholds, any number of times.

        forest = SoftForest(dim=128, trees=18, depth=3)
        forest(torch.randn(64, 128)).shape  # [64, 128]

    A call takes z [..., N, dim] to F(z) [..., N, out_dim] in the same dtype.

    Args:
        dim: size of z. Nodes take features in turn: those beyond the first T * (2^D - 1) are never read.
        trees: T >= 1.
        depth: D of every tree, in 1..16.
        out_dim: size of F(z); None stands for dim.
        scale: how sharply z routes; 1 is the paper's sigmoid(z - t), which hardly separates points closer than 4.
        learn_thresholds: whether thresholds are a parameter or, as in the paper, a buffer.
        device: of leaves and thresholds, as every torch.nn module takes it; z must be there too.
        dtype: of leaves and thresholds; z must have the same.

    Attributes:
        leaves: parameter [T, 2^D, out_dim], in the units of F. They start as N(0, T): the mean over trees is then of
            unit size.
        thresholds: [T, 2^D - 1], in units of scale * z. They start at zero.

    Raises:
        ValueError: a size or an option is wrong, or z has another shape, dtype or device; the message names it.
    """

    thresholds: Tensor

    def __init__(
        self,
        dim: int,
        trees: int = 18,
        depth: int = 3,
        out_dim: int | None = None,
        *,
        scale: float = 1.0,
        learn_thresholds: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.dim = _checks.count(name, "dim", dim)
        self.trees = _checks.count(name, "trees", trees)
        self.depth = _checks.count(name, "depth", depth)
        self.out_dim = self.dim if out_dim is None else _checks.count(name, "out_dim", out_dim)
        if self.depth > 16:
            raise ValueError(f"{name}: depth must be in 1..16, got {depth}")
        self.scale = _checks.number(name, "scale", scale, must="a finite number > 0")
        if self.scale == 0:
            raise ValueError(f"{name}: scale must be a finite number > 0, got {scale}")
        width = 2**self.depth
        self.leaves = nn.Parameter(torch.empty(self.trees, width, self.out_dim, device=device, dtype=dtype))
        thresholds = torch.empty(self.trees, width - 1, device=device, dtype=dtype)
        if learn_thresholds:
            self.thresholds = nn.Parameter(thresholds)
        else:
            self.register_buffer("thresholds", thresholds)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the leaves anew and sets the thresholds to zero."""
        self.leaves.normal_().mul_(self.trees**0.5)
        self.thresholds.zero_()

    def forward(self, z: Tensor) -> Tensor:
        self._check_rows("z", z, "N", self.dim)
        return soft_forest(z * self.scale, self.thresholds, self.leaves)

    if TYPE_CHECKING:  # torch.nn.Module promises nothing of what a call returns

        def __call__(self, z: Tensor) -> Tensor: ...

    def _check_rows(self, name: str, rows: Tensor, count: str, dim: int) -> None:
        """Rows are [..., count, dim]; where leaves have leading dimensions, one forest each, rows have the same."""
        lead = self.leaves.shape[:-3]
        if rows.dim() < 2 or rows.shape[-1] != dim or (lead and rows.shape[:-2] != lead):
            shape = ", ".join(map(str, [*lead, count, dim]))
            raise ValueError(f"{type(self).__name__}: {name} must be [{shape}], got {list(rows.shape)}")

    def extra_repr(self) -> str:
        learned = isinstance(self.thresholds, nn.Parameter)
        return (
            f"dim={self.dim}, trees={self.trees}, depth={self.depth}, out_dim={self.out_dim}, scale={self.scale}, "
            f"learn_thresholds={learned}"
        )
