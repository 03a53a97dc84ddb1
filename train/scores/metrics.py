"""Scores of features: inception score, Frechet distance, kernel distance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from train.scores.product import product

SPLITS = 10
SUBSETS, SUBSET_SIZE = 100, 1000
BLOCK = 250  # rows of a subset's kernel at once: five eighths of it are computed, by products that are still large
PART = 4096
SEED = 2020  # torch-fidelity's: the same subsets give the same figures


class Moments(NamedTuple):
    """The Gaussian that a Frechet distance compares: of features [n, D], float64."""

    mean: Tensor
    """[D]."""
    covariance: Tensor
    """[D, D], divided by n - 1."""


def inception_score(logits: Tensor) -> tuple[float, float]:
    """exp E KL(p(class | image) || p(class)) over ten splits of logits [n, classes], n >= 10: mean and standard error.

    Salimans et al. 2016, as torch-fidelity computes it; it reports the splits' standard deviation, sqrt(10) times as
    large. 1 is the least, the number of classes the most.
    """
    found = isc_features_to_metric(logits, splits=SPLITS, rng_seed=SEED)
    return found["inception_score_mean"], found["inception_score_std"] / math.sqrt(SPLITS)


def moments(features: Tensor) -> Moments:
    """Mean and covariance of features [n, D], n >= 2, in float64 on their device."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"scores: features must be [n > 1, D], got {list(features.shape)}")
    mean = features.mean(0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=features.device)
    for part in features.split(PART):  # float64 copies of a part of them at a time
        centred = part.double() - mean
        covariance.addmm_(centred.T, centred)
    return Moments(mean, covariance.div_(len(features) - 1))


def root(covariance: Tensor) -> Tensor:
    """F [D, D] with F F^T = covariance [D, D], which is symmetric with no eigenvalue below 0 but by rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_(min=0).sqrt_()


def frechet_distance(one: Moments, other: Moments, root_of_one: Tensor | None = None) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2): the squared 2-Wasserstein distance of two Gaussians (Heusel 2017).

    With C1 = F F^T, the product C1 C2 has the eigenvalues of the symmetric F^T C2 F; the trace is the sum of their
    square roots. That takes a third of the time of eigenvalues of C1 C2, and can give none that is complex.
    root_of_one: F, if it is known.
    """
    factor = root(one.covariance) if root_of_one is None else root_of_one
    shared = torch.linalg.eigvalsh(factor.T @ other.covariance @ factor).clamp_(min=0).sqrt_().sum()
    difference = one.mean - other.mean
    return float(difference @ difference + one.covariance.trace() + other.covariance.trace() - 2 * shared)


def kernel_distance(generated: Tensor, real: Tensor) -> tuple[float, float | None]:
    """Squared maximum mean discrepancy of features [n, D] and [m, D], kernel (x.y / D + 1)^3: mean and standard error.

    The unbiased estimate of Binkowski et al. 2018, averaged over 100 subsets of 1,000 (or of as many as there are) on
    each side. Subsets and figure are those of torch-fidelity, but computed on the features' device. Subsets share
    images, so the standard error is that of as many subsets as fit into the sets without sharing; None if that is one.
    """
    size = min(SUBSET_SIZE, len(generated), len(real))
    draw = np.random.RandomState(SEED)
    found = []
    for _ in range(SUBSETS):
        x = generated[torch.from_numpy(draw.choice(len(generated), size, replace=False)).to(generated.device)]
        y = real[torch.from_numpy(draw.choice(len(real), size, replace=False)).to(real.device)]
        found.append(_discrepancy(x, y))
    values = torch.stack(found)
    apart = min(len(generated), len(real)) // size
    return float(values.mean()), float(values.std(correction=0)) / math.sqrt(apart) if apart > 1 else None


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    n = len(x)
    within = _off_diagonal_sum(x) + _off_diagonal_sum(y)
    return within / (n * (n - 1)) - 2 * _kernel(x, y).sum(dtype=torch.float64) / n**2


def _off_diagonal_sum(z: Tensor) -> Tensor:
    """Of the kernel [n, n] of z with itself, which is symmetric: blocks of the upper triangle are enough."""
    total = torch.zeros((), dtype=torch.float64, device=z.device)
    for start in range(0, len(z), BLOCK):
        rows, later = z[start : start + BLOCK], z[start + BLOCK :]
        total += _kernel(rows, rows).fill_diagonal_(0).sum(dtype=torch.float64)
        total += 2 * _kernel(rows, later).sum(dtype=torch.float64)
    return total


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """[n, m]."""
    base = product(x / x.shape[1], y).add_(1)
    return base.square().mul_(base)
