"""Precision, recall, density and coverage: which samples lie within the k-th neighbour's distance of which others.

All pairs of distances are first estimated by one matrix product per block, in float32; no N x M matrix is kept. Those
that the estimate's error bound cannot place on one side of a radius are computed again in float64 from differences.
So every comparison is that of distances in float64, at the cost of a float32 product. Samples of a generator that has
collapsed are too close for float32: equal ones are known by a hash, and where many pairs are left open, the block's
product is taken once more in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from train.scores.product import product

K_PRECISION, K_DENSITY = 3, 5
NEAREST = K_DENSITY + 1  # a sample is its own nearest one, at distance 0
PART = 1024  # samples that are hashed at once
BLOCK = 2**20  # distances at once: 4 MB, which stay in a CPU's cache; a quarter faster than 16 MB
PIECE = 2**22  # float64 differences at once: 32 MB
UNIT, UNIT_64 = 2.0**-24, 2.0**-53  # unit roundoffs of float32 and float64
MOST_OPEN = 1 / 64  # of a block's pairs, above which it is estimated again in float64
MOST_CANDIDATES = 64  # of a sample for its six nearest, that are computed from differences at first


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
        factors = torch.randint(-(2**62), 2**62, (samples.shape[1],), generator=torch.Generator().manual_seed(0))
        factors = factors.mul_(2).add_(1).to(samples.device)
        bits = samples.contiguous().view(torch.int32).split(PART)
        self.keys = torch.cat([(part.long() * factors).sum(1) for part in bits])  # [N], a hash of each sample

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
    rows = torch.arange(start, stop, device=cloud.samples.device)
    least, candidates = _lower_bounds(*_estimates(cloud, slice(start, stop), cloud))
    if int(candidates.max()) > MOST_CANDIDATES:
        least, candidates = _lower_bounds(*_close_estimates(cloud, slice(start, stop), cloud))
    width = min(int(candidates.max()), MOST_CANDIDATES)
    exact, others = _six_nearest(cloud, rows, least, width)
    left = ((candidates > width) & (exact[:, -1] > others)).nonzero()[:, 0]  # a sample not looked at may be nearer
    if len(left):
        exact[left], _ = _six_nearest(cloud, rows[left], least[left], int(candidates[left].max()))
    return exact[:, [K_PRECISION, K_DENSITY]]


def _lower_bounds(distance: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Of the distances [rows, M]; and how many samples may be among the six nearest of each row, [rows]."""
    upper = (distance + bound).topk(NEAREST, largest=False).values  # in a thirtieth of kthvalue's time
    limit = upper.amax(1, keepdim=True)  # at least six are no farther
    least = distance.sub_(bound).clamp_(min=0)
    return least, (least <= limit).sum(1)


def _six_nearest(cloud: Cloud, rows: Tensor, least: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Exact distances [rows, 6], in order, to the six nearest of the ``width`` samples of least lower bounds.

    And what no sample beside these is nearer than, [rows].
    """
    bounds, columns = least.topk(width, largest=False)
    exact = _from_differences(cloud.samples, rows.repeat_interleave(width), cloud.samples, columns.flatten())
    return exact.view(-1, width).topk(NEAREST, largest=False).values, bounds.amax(1).double()


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    step = max(1, BLOCK // columns)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _estimates(one: Cloud, rows: slice, other: Cloud) -> tuple[Tensor, Tensor]:
    """Squared distances [rows, M] in float32, and a bound [rows, M] on how far they are from the exact ones.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y. A product of D terms errs by at most D u |x| |y|, u = 2^-24; centring, norms and
    sums by a few u (|x|^2 + |y|^2) more.
    """
    sums = one.squares[rows, None] + other.squares
    distance = product(one.centred[rows] * -2, other.centred).add_(sums)
    return _with_equals(one, rows, other, distance, sums.mul_((one.samples.shape[1] + 16) * UNIT))


def _close_estimates(one: Cloud, rows: slice, other: Cloud) -> tuple[Tensor, Tensor]:
    """As ``_estimates``, in float64 and about the first of the rows: for samples that float32 does not tell apart."""
    origin = one.samples[rows.start].double()
    x, y = one.samples[rows].double() - origin, other.samples.double() - origin
    sums = x.square().sum(1)[:, None] + y.square().sum(1)
    distance = torch.addmm(sums, x, y.T, alpha=-2)
    return _with_equals(one, rows, other, distance, sums.mul_((one.samples.shape[1] + 16) * UNIT_64))


def _with_equals(one: Cloud, rows: slice, other: Cloud, distance: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """With 0 for both where two samples are equal."""
    equal = one.keys[rows, None] == other.keys
    return distance.masked_fill_(equal, 0), bound.masked_fill_(equal, 0)


def _within(distance: Tensor, bound: Tensor, limit: Tensor, one: Cloud, start: int, other: Cloud) -> Tensor:
    """Whether each exact squared distance is at most ``limit`` [rows, 1] or [M]: bool [rows, M]."""
    gap = distance - limit.float()  # a limit is a distance itself: its rounding to float32 is within the bound
    inside, left = gap <= 0, (gap.abs_() <= 2 * bound) & (bound > 0)
    if int(left.sum()) > MOST_OPEN * left.numel():
        distance, bound = _close_estimates(one, slice(start, start + len(distance)), other)
        gap = distance - limit
        inside, left = gap <= 0, (gap.abs_() <= 2 * bound) & (bound > 0)
    row, column = left.nonzero(as_tuple=True)
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
