"""The pictures that are made once, at the end of a run on images: nearest training images and interpolations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.data.datasets import evenly_spaced, to_float
from train.report import plots
from train.report.neighbours import QUERIES, Embed, Neighbours, neighbours, pixels

SHOWN, COLUMNS = 16, 8
MOST_EMBEDDED = 10_000  # training images that pass through an extractor: minutes on a CPU
Interpolate = Callable[[Tensor, Tensor, float], Tensor]


def nearest_training_images(samples: Tensor, images: Tensor, directory: Path, extractor: Any = None) -> dict[str, Any]:
    """neighbours-pixels.png, with ``extractor`` also neighbours-features.png, and what figures.json says of them.

    samples [n, C, H, W] and images [M, C, H, W], uint8. extractor: as train.scores.extractors has them. Nothing where
    there are fewer than two images.
    """
    if len(images) < 2:
        return {}
    samples = samples[:QUERIES]
    found = {"pixels": _one_kind(samples, images, pixels, directory / "neighbours-pixels.png")}
    if extractor is not None:
        some = evenly_spaced(images, min(len(images), MOST_EMBEDDED))
        path = directory / "neighbours-features.png"
        made = _one_kind(samples, some, lambda batch: extractor.features(batch).features, path)
        found["features"] = {**made, "extractor": extractor.name}
    return found


def _one_kind(samples: Tensor, images: Tensor, embed: Embed, path: Path) -> dict[str, Any]:
    found = neighbours(samples, images, embed)
    plots.image_grid(to_float(_closest(samples, images, found)), path, columns=COLUMNS)
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
