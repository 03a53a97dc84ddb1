"""What is made once, at the end of a run on images: the training images nearest to samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.data.datasets import evenly_spaced, to_float
from train.report import plots
from train.report.neighbours import Neighbours, grey_levels, neighbours
from train.scores.images import Scorer

SHOWN, COLUMNS = 16, 8


def nearest_training_images(
    samples: Tensor, images: Tensor, directory: Path, scorer: Scorer | None = None
) -> dict[str, Any]:
    """neighbours-pixels.png, with ``scorer`` also neighbours-features.png, and what figures.json says of them.

    samples [n, C, H, W] and images [M, C, H, W], uint8; scorer: against the same images. Nothing where there are fewer
    than two images.
    """
    if len(images) < 2:
        return {}
    device = samples.device
    in_pixels = neighbours(
        grey_levels(samples), len(images), lambda index: grey_levels(images[index.to(images.device)].to(device))
    )
    found = {"pixels": _described(samples, images, in_pixels, directory / "neighbours-pixels.png")}
    if scorer is not None:
        # Those of the training images that have been through the extractor.
        some, vectors = evenly_spaced(images, len(scorer.real_features)), scorer.real_features
        ours = scorer.features(samples)
        in_features = neighbours(ours, len(some), lambda index: vectors[index.to(vectors.device)])
        made = _described(samples, some, in_features, directory / "neighbours-features.png")
        found["features"] = {**made, "extractor": scorer.protocol["extractor"]}
    return found


def _described(samples: Tensor, images: Tensor, found: Neighbours, path: Path) -> dict[str, Any]:
    plots.image_grid(to_float(_closest(samples, images, found)), path, columns=min(COLUMNS, len(samples)))
    return {
        "images": len(images),
        "shown": min(SHOWN, len(samples)),
        "samples": [round(value, 5) for value in found.distance.tolist()],
        "training": [round(value, 5) for value in found.own.tolist()],
    }


def _closest(samples: Tensor, images: Tensor, found: Neighbours) -> Tensor:
    """The samples with the smallest distances in rows, each row above the training images that are nearest to it."""
    order = found.distance.argsort(stable=True)[:SHOWN]
    above = samples[order.to(samples.device)].cpu()
    below = images[found.index[order].to(images.device)].cpu()
    rows = zip(_rows(above), _rows(below), strict=True)
    return torch.cat([part for pair in rows for part in pair])


def _rows(images: Tensor) -> list[Tensor]:
    """Rows of COLUMNS images; a last one that is short is filled up with white."""
    short = -len(images) % min(COLUMNS, len(images))
    return list(torch.cat([images, images.new_full((short, *images.shape[1:]), 255)]).split(COLUMNS))
