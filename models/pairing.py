"""Which real latent is matched with which transformed generated latent: Algorithm 1 of POT-GAN and its variants.

Every pairing takes z_r [..., N, d] and F(z_g) [..., M, d]; leading dimensions are problems of their own. A problem with
NaN or infinite latents has a NaN cost, for the trainer to report.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from geomloss import SamplesLoss
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from otkernels import l2_argmin

Array = np.ndarray[Any, Any]
PairingName = Literal["cover", "literal", "assignment", "sinkhorn"]


@dataclass(frozen=True)
class Pairs:
    """K weighted pairs (real[k], generated[k]): indices int64 [..., K], weight [..., K] summing to 1."""

    real: Tensor
    generated: Tensor
    weight: Tensor

    def cost(self, z_r: Tensor, transformed: Tensor) -> Tensor:
        """The matched cost sum_k weight[k] |z_r[real[k]] - F(z_g)[generated[k]]|^2 [...] (Eq. 13's last term).

        Differentiable in z_r [..., N, d] and transformed = F(z_g) [..., M, d] with the pairs held fixed. For ``cover``
        and ``assignment`` that is the gradient of the minimised cost itself (Danskin's theorem); the rho of ``literal``
        minimises the cost of ``cover``, not the one matched here, and the plan of ``sinkhorn`` an entropic one.
        """
        difference = _rows(z_r, self.real) - _rows(transformed, self.generated)  # [..., K, d]
        return (self.weight * difference.square().sum(-1)).sum(-1)


def _rows(points: Tensor, index: Tensor) -> Tensor:
    """points [..., N, d] at index [..., K]: [..., K, d]; any row for an index of -1, whose weight is NaN."""
    return points.take_along_dim(index.clamp(min=0)[..., None], -2)


def _uniform(real: Tensor, generated: Tensor, z_r: Tensor, transformed: Tensor) -> Pairs:
    """Equal weights; NaN where a latent of the problem is NaN or infinite, so that the cost shows it."""
    finite = z_r.isfinite().flatten(-2).all(-1) & transformed.isfinite().flatten(-2).all(-1)
    share = torch.full((), 1 / max(real.shape[-1], 1), dtype=z_r.dtype, device=real.device)
    return Pairs(real, generated, share.where(finite[..., None], torch.nan).expand(real.shape))


def _each(index: Tensor) -> Tensor:
    """0, 1, ..., K - 1 along the last dimension of ``index`` [..., K]."""
    return torch.arange(index.shape[-1], device=index.device).expand_as(index)


def cover(z_r: Tensor, transformed: Tensor) -> Pairs:
    """(z_r[i], F(z_g[rho_i])), rho_i = argmin_j |z_r[i] - F(z_g[j])|^2 (section 4.1: each real point is covered)."""
    rho = l2_argmin(z_r.detach(), transformed.detach()).index
    return _uniform(_each(rho), rho, z_r, transformed)


def literal(z_r: Tensor, transformed: Tensor) -> Pairs:
    """(z_r[rho_i], F(z_g[i])) with the same rho: Algorithm 1 word for word, z'_r = Permute{z_r, rho}. Needs N = M.

    rho indexes generated points, yet permutes real ones: as printed the pairs are not neighbours.
    """
    n, m = z_r.shape[-2], transformed.shape[-2]
    if n != m:
        raise ValueError(f"literal: z_r and F(z_g) must have equal length, got {n} and {m}")
    rho = l2_argmin(z_r.detach(), transformed.detach()).index
    return _uniform(rho, _each(rho), z_r, transformed)


def assignment(z_r: Tensor, transformed: Tensor) -> Pairs:
    """The one-to-one pairs of least total cost, sigma of Eq. 11 and 14, by scipy on the CPU in float64.

    With N != M the smaller set is matched. Several problems are solved on PyTorch's number of threads (scipy releases
    the GIL). Memory N * M per thread; on a GPU it waits for the device.
    """
    lead, (n, m) = z_r.shape[:-2], (z_r.shape[-2], transformed.shape[-2])
    x, y = (
        z.detach().double().cpu().flatten(0, -3).numpy() if lead else z.detach().double().cpu().numpy()[None]
        for z in (z_r, transformed)
    )
    if len(x) > 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            matched = list(pool.map(_matched, x, y))
    else:  # a thread costs twice what 64 points do
        matched = list(map(_matched, x, y))
    pairs = np.array(matched, dtype=np.int64).reshape(len(x), 2, min(n, m))
    real, generated = (index.to(z_r.device).view(*lead, min(n, m)) for index in torch.from_numpy(pairs).unbind(1))
    return _uniform(real, generated, z_r, transformed)


def _matched(x: Array, y: Array) -> Array:
    """Indices [2, min(N, M)] into x [N, d] and y [M, d]; -1 where a point is NaN or infinite."""
    if np.isfinite(x).all() and np.isfinite(y).all():
        return np.stack(linear_sum_assignment(cdist(x, y, "sqeuclidean")))
    return np.full((2, min(len(x), len(y))), -1)


@torch.no_grad()
def sinkhorn(z_r: Tensor, transformed: Tensor, relative_blur: float = 0.05) -> Pairs:
    """All N * M pairs, weighted by the entropic plan of geomloss: the usual relaxation, for comparison.

        plan_ij ~ exp((f_i + g_j - |z_r[i] - F(z_g[j])|^2 / 2) / blur^2) / (N M)

    blur = relative_blur * the largest distance. The plan is scaled to sum to 1. Memory N * M * d in the cost.
    """
    lead, (n, m) = z_r.shape[:-2], (z_r.shape[-2], transformed.shape[-2])
    x, y = (z if lead else z[None] for z in (z_r, transformed))
    centre = x.mean(-2, keepdim=True)  # geomloss expands |x - y|^2, which far from the origin loses all digits
    x, y = (x - centre).flatten(0, -3), (y - centre).flatten(0, -3)
    cost = (x[:, :, None] - y[:, None]).square().sum(-1)  # [B, N, M]
    largest = cost.flatten(1).amax(1).sqrt()  # [B]; NaN for NaN or infinite latents
    # In units of the largest distance every problem has diameter 1 and the same blur; equal points stay equal.
    unit = largest.where(largest > 0, 1)[:, None, None]
    solver = SamplesLoss(
        "sinkhorn", p=2, blur=relative_blur, diameter=1.0, scaling=0.9, debias=False, potentials=True,
        backend="tensorized",
    )  # fmt: skip
    f, g = solver(x / unit, y / unit)
    exponent = (f.view(-1, n, 1) + g.view(-1, 1, m) - cost / unit.square() / 2) / relative_blur**2
    plan = torch.softmax(exponent.flatten(1), 1).view(*lead, n * m)
    index = torch.arange(n * m, device=z_r.device).expand(plan.shape)
    return Pairs(index // m, index % m, plan)


PAIRINGS: dict[str, Callable[[Tensor, Tensor], Pairs]] = {
    "cover": cover,
    "literal": literal,
    "assignment": assignment,
    "sinkhorn": sinkhorn,
}
