"""Which real latent is matched with which transformed generated latent: Algorithm 1 of POT-GAN and its variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from geomloss import SamplesLoss
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from otkernels import l2_argmin

PairingName = Literal["cover", "literal", "assignment", "sinkhorn"]


@dataclass(frozen=True)
class Pairs:
    """K weighted pairs (real[k], generated[k]): indices int64 [K], weight [K] summing to 1."""

    real: Tensor
    generated: Tensor
    weight: Tensor

    def cost(self, z_r: Tensor, transformed: Tensor) -> Tensor:
        """The matched cost sum_k weight[k] |z_r[real[k]] - F(z_g)[generated[k]]|^2, a scalar (Eq. 13's last term).

        Differentiable in z_r [N, d] and transformed = F(z_g) [M, d] with the pairs held fixed. For ``cover`` and
        ``assignment`` that is the gradient of the minimised cost itself (Danskin's theorem); the rho of ``literal``
        minimises the cost of ``cover``, not the one matched here, and the plan of ``sinkhorn`` an entropic one.
        """
        difference = z_r[self.real] - transformed[self.generated]  # [K, d]
        return (self.weight * difference.square().sum(1)).sum()


def _uniform(real: Tensor, generated: Tensor, dtype: torch.dtype) -> Pairs:
    """Equal weights; NaN for a pair without a partner (index -1, from NaN latents), so that the cost shows it."""
    share = torch.full((), 1 / max(len(real), 1), dtype=dtype, device=real.device)
    weight = share.where((real >= 0) & (generated >= 0), torch.nan)
    return Pairs(real, generated, weight)


def _undefined(n: int, like: Tensor) -> Pairs:
    """Pairs of NaN or infinite latents: a NaN cost, as ``cover`` gives, for the trainer to report."""
    index = torch.full((n,), -1, device=like.device)
    return _uniform(index, index, like.dtype)


def cover(z_r: Tensor, transformed: Tensor) -> Pairs:
    """(z_r[i], F(z_g[rho_i])), rho_i = argmin_j |z_r[i] - F(z_g[j])|^2 (section 4.1: each real point is covered)."""
    real = torch.arange(len(z_r), device=z_r.device)
    return _uniform(real, l2_argmin(z_r.detach(), transformed.detach()).index, z_r.dtype)


def literal(z_r: Tensor, transformed: Tensor) -> Pairs:
    """(z_r[rho_i], F(z_g[i])) with the same rho: Algorithm 1 word for word, z'_r = Permute{z_r, rho}. Needs N = M.

    rho indexes generated points, yet permutes real ones: as printed the pairs are not neighbours.
    """
    if len(z_r) != len(transformed):
        raise ValueError(f"literal: z_r and F(z_g) must have equal length, got {len(z_r)} and {len(transformed)}")
    generated = torch.arange(len(transformed), device=z_r.device)
    return _uniform(l2_argmin(z_r.detach(), transformed.detach()).index, generated, z_r.dtype)


def assignment(z_r: Tensor, transformed: Tensor) -> Pairs:
    """The one-to-one pairs of least total cost, sigma of Eq. 11 and 14, by scipy on the CPU in float64.

    With N != M the smaller set is matched. Memory N * M; on a GPU it waits for the device.
    """
    if not (z_r.isfinite().all() and transformed.isfinite().all()):
        return _undefined(len(z_r), z_r)
    cost = cdist(z_r.detach().double().cpu().numpy(), transformed.detach().double().cpu().numpy(), "sqeuclidean")
    rows, columns = (torch.from_numpy(side).to(z_r.device) for side in linear_sum_assignment(cost))
    return _uniform(rows, columns, z_r.dtype)


@torch.no_grad()
def sinkhorn(z_r: Tensor, transformed: Tensor, relative_blur: float = 0.05) -> Pairs:
    """All N * M pairs, weighted by the entropic plan of geomloss: the usual relaxation, for comparison.

        plan_ij ~ exp((f_i + g_j - |z_r[i] - F(z_g[j])|^2 / 2) / blur^2) / (N M)

    blur = relative_blur * the largest distance. The plan is scaled to sum to 1. Memory N * M * d in the cost.
    """
    n, m = len(z_r), len(transformed)
    cost = (z_r[:, None] - transformed).square().sum(2) / 2  # [N, M]
    if not cost.isfinite().all():
        return _undefined(n, z_r)
    diameter = max(float((2 * cost.max()).sqrt()), torch.finfo(cost.dtype).tiny ** 0.25)  # > 0 for equal points
    blur = relative_blur * diameter
    solver = SamplesLoss(
        "sinkhorn", p=2, blur=blur, diameter=diameter, scaling=0.9, debias=False, potentials=True, backend="tensorized"
    )
    f, g = (potential.flatten() for potential in solver(z_r, transformed))
    plan = torch.softmax(((f[:, None] + g - cost) / blur**2).flatten(), 0)  # [N * M]
    index = torch.arange(n * m, device=z_r.device)
    return Pairs(index // m, index % m, plan)


PAIRINGS: dict[str, Callable[[Tensor, Tensor], Pairs]] = {
    "cover": cover,
    "literal": literal,
    "assignment": assignment,
    "sinkhorn": sinkhorn,
}
