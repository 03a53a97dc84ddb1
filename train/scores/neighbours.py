"""Precision, recall, density and coverage: which samples lie within the k-th neighbour's distance of which others.

All pairs of distances are first estimated by one matrix product per block, in float32; no N x M matrix is kept. Those
that the estimate's error bound cannot place on one side of a radius are computed again in float64 from differences.
So every comparison is that of distances in float64, at the cost of a float32 product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

K_PRECISION, K_DENSITY = 3, 5
BLOCK = 2**20  # distances at once: 4 MB, which stay in a CPU's cache; a quarter faster than 16 MB
PIECE = 2**22  # float64 differences at once: 32 MB
UNIT = 2.0**-24  # float32's unit roundoff


class Radii(NamedTuple):
    """Squared distances of each of N samples to its 3rd and 5th nearest other one, float64."""

    third: Tensor
    """[N]."""
    fifth: Tensor
    """[N]."""


class Neighbours(NamedTuple):
    """Scores in [0, 1], but for density, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


class Cloud:
    """Samples [N, D], N >= 6, float32, with what estimates of distances need.

    shift: a vector [D] near the samples; rounding errors grow with the distance from it.
    """

    def __init__(self, samples: Tensor, shift: Tensor) -> None:
        if samples.ndim != 2 or samples.dtype != torch.float32 or len(samples) <= K_DENSITY:
            raise ValueError(
                f"scores: features must be float32 [n > {K_DENSITY}, D], got {samples.dtype} {list(samples.shape)}"
            )
        self.samples = samples
        self.centred = (samples - shift).contiguous()  # [N, D]
        self.squares = self.centred.double().square().sum(1).float()  # [N]

    def __len__(self) -> int:
        return len(self.samples)


def neighbour_scores(real: Tensor, generated: Tensor, real_radii: Radii | None = None) -> Neighbours:
    """Precision and recall (Kynkaanniemi et al. 2019, k = 3), density and coverage (Naeem et al. 2020, k = 5).

    real [N, D], generated [M, D]: float32 features, at least 6 of each. A ball around a sample reaches to its k-th
    nearest other sample of the same set, and includes its surface.

        precision   share of generated samples in any real sample's ball
        recall      share of real samples in any generated sample's ball
        density     mean number of real balls that a generated sample lies in, over k
        coverage    share of real balls that hold a generated sample

    real_radii: ``radii`` of the real cloud, if they are known.
    """
    shift = real.double().mean(0).float()
    them, us = Cloud(real, shift), Cloud(generated, shift)
    real_radii = radii(them) if real_radii is None else real_radii
    own_radii = radii(us)
    precise = torch.zeros(len(us), dtype=torch.bool, device=real.device)
    recalled = torch.zeros(len(them), dtype=torch.bool, device=real.device)
    covered, inside = torch.zeros_like(recalled), 0
    for start, stop in _blocks(len(us), len(them)):
        distance, bound = _estimates(us, slice(start, stop), them)  # [block, N]
        limits = (real_radii.third, real_radii.fifth, own_radii.third[start:stop, None])
        by_third, by_fifth, by_own = (_within(distance, bound, limit, us, start, them) for limit in limits)
        precise[start:stop] = by_third.any(1)
        recalled |= by_own.any(0)
        covered |= by_fifth.any(0)
        inside += int(by_fifth.sum())
    density = inside / (K_DENSITY * len(us))
    return Neighbours(_share(precise), _share(recalled), density, _share(covered))


def radii(cloud: Cloud) -> Radii:
    """Squared distance of every sample to its 3rd and 5th nearest other one in the cloud."""
    rows = [_radii_of(cloud, start, stop) for start, stop in _blocks(len(cloud), len(cloud))]
    found = torch.cat(rows)  # [N, 2]
    return Radii(found[:, 0].contiguous(), found[:, 1].contiguous())


def _radii_of(cloud: Cloud, start: int, stop: int) -> Tensor:
    """[stop - start, 2]."""
    distance, bound = _estimates(cloud, slice(start, stop), cloud)
    nearest = K_DENSITY + 1  # a sample is its own nearest one, at distance 0
    limit = (distance + bound).kthvalue(nearest, dim=1, keepdim=True).values  # at least six are no farther
    least = distance.sub_(bound)
    width = int((least <= limit).sum(1).max())  # the six nearest are among the ``width`` of the least lower bound
    columns = least.topk(width, largest=False).indices.flatten()
    rows = torch.arange(start, stop, device=columns.device).repeat_interleave(width)
    exact = _from_differences(cloud.samples, rows, cloud.samples, columns).view(-1, width).sort().values
    return exact[:, [K_PRECISION, K_DENSITY]]


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    step = max(1, BLOCK // columns)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _estimates(one: Cloud, rows: slice, other: Cloud) -> tuple[Tensor, Tensor]:
    """Squared distances [rows, M] in float32, and a bound [rows, M] on how far they are from the exact ones.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y. A product of D terms errs by at most D u |x| |y|, u = 2^-24; centring, norms and
    sums by a few u (|x|^2 + |y|^2) more.
    """
    sums = one.squares[rows, None] + other.squares
    distance = torch.addmm(sums, one.centred[rows], other.centred.T, alpha=-2)
    return distance, sums.mul_((one.samples.shape[1] + 16) * UNIT)


def _within(distance: Tensor, bound: Tensor, limit: Tensor, one: Cloud, start: int, other: Cloud) -> Tensor:
    """Whether each exact squared distance is at most ``limit`` [rows, 1] or [M]: bool [rows, M]."""
    gap = distance - limit.float()  # a limit is a distance itself: its rounding to float32 is within the bound
    inside = gap <= 0
    row, column = (gap.abs_() <= 2 * bound).nonzero(as_tuple=True)
    if len(row):
        limits = limit.expand(distance.shape)[row, column]
        exact = _from_differences(one.samples, row + start, other.samples, column)
        inside[row, column] = exact <= limits
    return inside


def _from_differences(x: Tensor, rows: Tensor, y: Tensor, columns: Tensor) -> Tensor:
    """|x_i - y_j|^2 in float64 for the pairs (i, j) of ``rows`` and ``columns`` [P]: [P]."""
    step = max(1, PIECE // x.shape[1])
    pairs = zip(rows.split(step), columns.split(step), strict=True)
    return torch.cat([(x[i].double() - y[j].double()).square_().sum(1) for i, j in pairs])


def _share(found: Tensor) -> float:
    return found.double().mean().item()
