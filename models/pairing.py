"""Which real latent is matched with which transformed generated latent: Algorithm 1 of POT-GAN and its variants.

Every pairing takes z_r [..., N, d] and F(z_g) [..., M, d] with N, M >= 1; leading dimensions are problems of their own.
ValueError for other shapes. A problem with NaN or infinite latents has a NaN cost, for the trainer to report. Pairs are
found in units of the largest coordinate: those of latents of 1e-25 or 1e25 are found as well, whose squares float32
cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from otkernels import assign, l2_argmin

PairingName = Literal["cover", "literal", "assignment", "sinkhorn"]
MARGINAL_TOLERANCE = 1e-3
MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class Pairs:
    """K weighted pairs (real[k], generated[k]): indices int64 [..., K], weight [..., K] summing to 1.

    marginal_error [...]: how far the weights are from the marginals that they are meant to have (``sinkhorn`` alone).
    rho int64 [..., K]: the generated sample that was found for each real one; None for ``sinkhorn``, which takes all.
    """

    real: Tensor
    generated: Tensor
    weight: Tensor
    marginal_error: Tensor | None = None
    rho: Tensor | None = None

    def cost(self, z_r: Tensor, transformed: Tensor) -> Tensor:
        """The matched cost sum_k weight[k] |z_r[real[k]] - F(z_g)[generated[k]]|^2 [...] (Eq. 13's last term).

        Differentiable in z_r [..., N, d] and transformed = F(z_g) [..., M, d] with the pairs held fixed. For ``cover``
        and ``assignment`` that is the gradient of the minimised cost itself (Danskin's theorem); the rho of ``literal``
        minimises the cost of ``cover``, not the one matched here, and the plan of ``sinkhorn`` an entropic one.
        """
        difference = _rows(z_r, self.real) - _rows(transformed, self.generated)  # [..., K, d]
        return (self.weight * difference.square().sum(-1)).sum(-1)


def distinct_share(index: Tensor, candidates: int) -> Tensor:
    """How many of ``candidates`` samples occur in index [..., K], as a share [...]; NaN where an index is -1."""
    hit = torch.zeros(*index.shape[:-1], candidates, device=index.device)
    share = hit.scatter(-1, index.clamp(min=0), 1.0).mean(-1)
    return share.where((index >= 0).all(-1), torch.nan)


def counted_share(index: Tensor, candidates: int) -> Tensor:
    """As ``distinct_share``, outside of recorded steps: on a CPU counted by Python (N = 128: 7 us, not 20)."""
    if index.dim() > 1 or index.device.type != "cpu":
        return distinct_share(index, candidates)
    found = set(index.tolist())
    return torch.tensor(math.nan if -1 in found else len(found) / candidates)


def _rows(points: Tensor, index: Tensor) -> Tensor:
    """points [..., N, d] at index [..., K]: [..., K, d]; any row for an index of -1, whose weight is NaN."""
    return points.gather(-2, index.clamp(min=0)[..., None].expand(*index.shape, points.shape[-1]))


def _uniform(real: Tensor, generated: Tensor, rho: Tensor, largest: Tensor) -> Pairs:
    """Equal weights; NaN where a latent of the problem is NaN or infinite, so that the cost shows it.

    largest [...]: the problem's largest coordinate, which then is no number either, and 0 times it is NaN.
    """
    weight = (0 * largest + 1 / max(real.shape[-1], 1))[..., None].expand(real.shape)
    return Pairs(real, generated, weight, rho=rho)


def _scaled(pairing: str, z_r: Tensor, transformed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both without a graph, divided by a power of two so that the largest coordinate of a problem lies in [1, 2).

    The division is exact but for what is 2^-126 of the largest. NaN and infinities stay. ValueError for wrong shapes.
    Also the largest coordinate [...], NaN if one is NaN. Few operations: for points each takes as long as the search.
    """
    lead, d = z_r.shape[:-2], z_r.shape[-1:]
    if z_r.dim() < 2 or 0 in z_r.shape:
        raise ValueError(f"{pairing}: z_r must be [..., N, d] with N, d >= 1, got {list(z_r.shape)}")
    if transformed.dim() < 2 or transformed.shape[:-2] != lead or transformed.shape[-1:] != d or 0 in transformed.shape:
        shape = ", ".join(map(str, (*lead, "M", *d)))
        raise ValueError(f"{pairing}: F(z_g) must be [{shape}] with M >= 1, got {list(transformed.shape)}")
    x, y = z_r.detach(), transformed.detach()
    norm = torch.linalg.vector_norm
    largest = torch.maximum(norm(x, torch.inf, (-2, -1)), norm(y, torch.inf, (-2, -1)))
    unit = largest / (2 * torch.frexp(largest).mantissa)  # a power of two; NaN at 0, NaN and infinity
    unit = unit.nan_to_num(1)[..., None, None]
    return x / unit, y / unit, largest


def _each(index: Tensor) -> Tensor:
    """0, 1, ..., K - 1 along the last dimension of ``index`` [..., K]."""
    return torch.arange(index.shape[-1], device=index.device).expand_as(index)


def cover(z_r: Tensor, transformed: Tensor) -> Pairs:
    """(z_r[i], F(z_g[rho_i])), rho_i = argmin_j |z_r[i] - F(z_g[j])|^2 (section 4.1: each real point is covered)."""
    x, y, largest = _scaled("cover", z_r, transformed)
    nearest = l2_argmin(x, y).index
    return _uniform(_each(nearest), nearest, nearest, largest)


def literal(z_r: Tensor, transformed: Tensor) -> Pairs:
    """(z_r[rho_i], F(z_g[i])) with the same rho: Algorithm 1 word for word, z'_r = Permute{z_r, rho}. Needs N = M.

    rho indexes generated points, yet permutes real ones: as printed the pairs are not neighbours.
    """
    x, y, largest = _scaled("literal", z_r, transformed)
    n, m = x.shape[-2], y.shape[-2]
    if n != m:
        raise ValueError(f"literal: z_r and F(z_g) must have equal length, got {n} and {m}")
    nearest = l2_argmin(x, y).index
    return _uniform(nearest, _each(nearest), nearest, largest)


def assignment(z_r: Tensor, transformed: Tensor) -> Pairs:
    """The one-to-one pairs of least total cost, sigma of Eq. 11 and 14, by otkernels.assign.

    With N != M the smaller set is matched; real indices ascend. Costs are weighed in float64, whatever the dtype.
    Memory O(N + M). On a GPU it waits for the device.
    """
    x, y, largest = _scaled("assignment", z_r, transformed)
    if x.shape[-2] <= y.shape[-2]:
        generated = assign(x, y).index
        real = _each(generated)
    else:
        real, generated = assign(y, x).index.sort(-1)
    solved = torch.minimum(real, generated).amin(-1, keepdim=True) >= 0
    real, generated = (index.where(solved, -1) for index in (real, generated))
    return _uniform(real, generated, generated, largest)


@torch.no_grad()
def sinkhorn(
    z_r: Tensor,
    transformed: Tensor,
    relative_blur: float = 0.05,
    tolerance: float = MARGINAL_TOLERANCE,
    most: int = MOST_ITERATIONS,
) -> Pairs:
    """All N * M pairs, weighted by the entropic plan: the usual relaxation, for comparison.

        plan_ij ~ exp((f_i + g_j - |z_r[i] - F(z_g[j])|^2 / 2) / blur^2) / (N M)

    blur = relative_blur * the largest distance. Sinkhorn's iterations (Peyre & Cuturi 2019, ch. 4) run at temperatures
    that fall by halves from the largest squared distance to blur^2, each until the worse marginal is within
    ``tolerance`` of the uniform one, sum_i |sum_j plan_ij - 1 / N| or sum_j |sum_i plan_ij - 1 / M|, or ``most`` were
    made. ``marginal_error`` is what the last one reached. The plan sums to 1. Memory N * M * d in the cost.
    """
    *scaled, _ = _scaled("sinkhorn", z_r, transformed)
    lead, (n, m) = z_r.shape[:-2], (z_r.shape[-2], transformed.shape[-2])
    with torch.autocast(z_r.device.type, enabled=False):
        x, y = (z.reshape(-1, *z.shape[-2:]) for z in scaled)  # [B, N, d], [B, M, d]
        cost = (x[:, :, None] - y[:, None]).square().sum(-1)  # [B, N, M]
        largest = cost.amax((1, 2), keepdim=True)  # NaN for NaN or infinite latents
        cost = cost / largest.where(largest != 0, 1) / 2  # in units of the largest: every problem has the same blur
        f, g = torch.zeros_like(cost[:, :, :1]), torch.zeros_like(cost[:, :1])
        temperature = 1.0
        while True:
            temperature = max(temperature, relative_blur**2)
            plan, more_f, more_g = _balanced((f + g - cost) / temperature, tolerance, most)
            if temperature <= relative_blur**2:
                break
            f, g = f + temperature * more_f, g + temperature * more_g
            temperature /= 2
    error = torch.maximum((plan.sum(2) - 1 / n).abs().sum(1), (plan.sum(1) - 1 / m).abs().sum(1))
    index = torch.arange(n * m, device=z_r.device).expand(*lead, n * m)
    return Pairs(index // m, index % m, plan.reshape(*lead, n * m), error.reshape(lead))


def _balanced(exponent: Tensor, tolerance: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """exp(exponent) [B, N, M] with rows and columns scaled to uniform marginals, and the factors' logarithms.

    Sinkhorn's iterations: rows to 1 / N, columns to 1 / M, in turn, each problem until its own error is within
    ``tolerance``, looked at every tenth time. The first round, in logarithms, leaves no row or column where all
    entries underflow; from there on factors are of moderate size. Logarithms [B, N, 1] and [B, 1, M].
    """
    n, m = exponent.shape[1:]
    rows = -exponent.logsumexp(2, keepdim=True)
    columns = -(exponent + rows).logsumexp(1, keepdim=True)
    plan = (exponent + rows + columns).exp() / m
    row, column = plan.new_ones(len(plan), n, 1), plan.new_ones(len(plan), m, 1)
    for step in range(most):
        sums = (plan * column.mT).sum(2, keepdim=True)  # a batched product with one column is 5 times slower on a CPU
        if step % 10 == 0:
            going = (row * sums - 1 / n).abs().sum(1, keepdim=True) > tolerance  # [B, 1, 1]; False for NaN
            if not going.any():
                break
        row = (1 / n / sums).where(going, row)
        column = (1 / m / (plan * row).sum(1, keepdim=True).mT).where(going, column)
    return row * plan * column.mT, rows + row.log(), columns + column.mT.log()


PAIRINGS: dict[str, Callable[[Tensor, Tensor], Pairs]] = {
    "cover": cover,
    "literal": literal,
    "assignment": assignment,
    "sinkhorn": sinkhorn,
}
