"""Are samples copies of training images? The nearest one of each, and how near training images are to one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from otkernels import l2_argmin

QUERIES = 256  # training images whose nearest other one is looked for
NUMBERS = 2**24  # of training images at once: 64 MiB as float32
Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Neighbours:
    """Of n samples the index [n] of the nearest of M images and its distance [n], the samples in their order.

    own [q]: the distance of q of the M images, evenly spaced, to the nearest other one.
    """

    index: Tensor
    distance: Tensor
    own: Tensor


def neighbours(samples: Tensor, total: int, images: Rows, queries: int = QUERIES) -> Neighbours:
    """The nearest of ``total`` >= 2 images for each of n >= 1 samples, by Euclidean distances that are exact.

    samples: vectors [n, D], float32. images: from indices [k] on the CPU to the vectors [k, D] of these images, on the
    samples' device; it is asked for a part of them at a time. queries: how many images, evenly spaced, are looked at
    themselves. ValueError for other shapes.
    """
    if samples.ndim != 2 or len(samples) == 0 or total < 2:
        raise ValueError(
            f"neighbours: samples must be [n > 0, D] and total at least 2, got {list(samples.shape)} and {total}"
        )
    chosen = torch.arange(min(queries, total)) * total // min(queries, total)  # [q]
    theirs = images(chosen)
    best = samples.new_full((len(samples),), torch.inf)
    index = torch.full_like(best, -1, dtype=torch.int64)
    own = _between(theirs)
    for part in torch.arange(total).split(max(1, NUMBERS // samples.shape[1])):
        vectors = images(part)
        value, found = l2_argmin(samples, vectors)
        index = torch.where(value < best, found + int(part[0]), index)
        best = torch.minimum(best, value)
        # Those that are themselves looked at were compared by _between: none may be found to be nearest to itself.
        others = vectors.new_zeros(len(part)).masked_fill(torch.isin(part, chosen).to(vectors.device), -torch.inf)
        own = torch.minimum(own, l2_argmin(theirs, vectors, others).value)
    return Neighbours(index.cpu(), best.sqrt().cpu(), own.sqrt().cpu())


def grey_levels(images: Tensor) -> Tensor:
    """Pixels of uint8 images [n, C, H, W] as float32 vectors, whose distance is their root mean square difference."""
    vectors = images.flatten(1).float()
    return vectors / vectors.shape[1] ** 0.5


def _between(vectors: Tensor) -> Tensor:
    """The squared distance of each vector [q, D] to the nearest other one [q]; infinite for a single one."""
    distance = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist").square()
    return distance.fill_diagonal_(torch.inf).amin(1)
