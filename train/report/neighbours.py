"""Are samples copies of training images? The nearest one of each, and how near training images are to one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from otkernels import l2_argmin

QUERIES = 256  # samples, and training images, whose nearest one is looked for
CHUNK_NUMBERS = 2**24  # float32 numbers of training images at once: 64 MiB
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Neighbours:
    """Of n samples the index [n] of the nearest of M images and its distance [n], the samples in their order.

    own [q]: the distance of q of the M images, evenly spaced, to the nearest other one.
    """

    index: Tensor
    distance: Tensor
    own: Tensor


def neighbours(samples: Tensor, images: Tensor, embed: Embed, queries: int = QUERIES) -> Neighbours:
    """The nearest of ``images`` [M >= 2, C, H, W] for each of ``samples`` [n, C, H, W], both uint8, exactly.

    embed: uint8 images [k, C, H, W] on the samples' device -> vectors [k, D] float32, between which distances are
    Euclidean. Images may lie in host memory: they come to the samples' device a part at a time. ValueError for other
    shapes.
    """
    if samples.shape[1:] != images.shape[1:] or samples.ndim != 4 or len(samples) == 0 or len(images) < 2:
        raise ValueError(
            f"neighbours: samples [n > 0, C, H, W] and images [M > 1, C, H, W] must be alike, got "
            f"{list(samples.shape)} and {list(images.shape)}"
        )
    device, total = samples.device, len(images)
    chosen = torch.arange(min(queries, total)) * total // min(queries, total)  # [q]
    ours, theirs = embed(samples).float(), embed(images[chosen].to(device)).float()
    best, index = torch.full((len(ours),), torch.inf, device=device), torch.zeros(len(ours), dtype=torch.int64)
    own = _between(theirs)
    for start, vectors in _parts(images, embed, device):
        value, found = l2_argmin(ours, vectors)
        nearer = value < best
        index = torch.where(nearer.cpu(), found.cpu() + start, index)
        best = torch.minimum(best, value)
        among = chosen[(chosen >= start) & (chosen < start + len(vectors))] - start
        others = torch.zeros(len(vectors), device=device).index_fill_(0, among.to(device), -torch.inf)
        own = torch.minimum(own, l2_argmin(theirs, vectors, others).value)  # those chosen are in _between
    return Neighbours(index, best.sqrt().cpu(), own.sqrt().cpu())


def pixels(images: Tensor) -> Tensor:
    """Grey levels as vectors [n, D], scaled so that a distance is the root mean square difference of two values."""
    vectors = images.flatten(1).float()
    return vectors / vectors.shape[1] ** 0.5


def _between(vectors: Tensor) -> Tensor:
    """The squared distance of each vector [q, D] to the nearest other one [q]; infinite for a single one."""
    distance = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist").square()
    return distance.fill_diagonal_(torch.inf).amin(1)


def _parts(images: Tensor, embed: Embed, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Where each part of ``images`` begins, and its vectors."""
    rows = max(1, CHUNK_NUMBERS // images[0].numel())
    for start in range(0, len(images), rows):
        yield start, embed(images[start : start + rows].to(device)).float()
