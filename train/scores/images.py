"""Scores of generated images against a set of real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from models.processes import here
from train.data.datasets import evenly_spaced
from train.data.fingerprint import image_fingerprint
from train.scores.cache import real_statistics
from train.scores.config import FEWEST, ScoreConfig
from train.scores.extractors import Extractor, full_float32, load_extractor
from train.scores.metrics import (
    SPLITS,
    SUBSET_SIZE,
    SUBSETS,
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
)
from train.scores.neighbours import K_DENSITY, K_PRECISION, neighbour_scores
from train.scores.protocol import DEFINITION, versions

MOST_NEIGHBOURS = 10_000  # images of each side for the scores by neighbours, whose cost grows with the square
DRAW = 256
Samples = Iterable[Tensor] | Callable[[int, int], Tensor]


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8 0..255, rounded to the nearest; what lies outside is clamped. ValueError for NaN."""
    broken = int(images.isnan().flatten(1).any(1).sum())
    if broken:
        raise ValueError(f"to_uint8: {broken} of {len(images)} images hold NaN")
    return images.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class Scorer:
    """Scores sets of ``config.n`` images against real ones, whose statistics are computed once and kept on disk.

    real: uint8 [M, 1 or 3, H, W]. data, split: what the protocol calls them. fingerprint: theirs, if it is known. ema:
    decay of the average of the weights that make the samples, 0 for the weights as they are, None if it is not known.
    cache: the folder for statistics (default: that of decoded images). extractor: that of ``config``, if it is loaded.
    Whatever can be wrong is found here, before anything is trained: ValueError in one line for missing or wrong weights
    and for too few or wrong images. shape: of an image.
    """

    def __init__(
        self,
        config: ScoreConfig,
        real: Tensor,
        *,
        data: str,
        split: str | None = None,
        fingerprint: str | None = None,
        ema: float | None = None,
        device: torch.device | str = "cpu",
        cache: str | None = None,
        extractor: Extractor | None = None,
    ) -> None:
        if real.dtype != torch.uint8 or real.ndim != 4 or real.shape[1] not in (1, 3):
            raise ValueError(
                f"scores: real images must be uint8 [M, 1 or 3, H, W], got {real.dtype} {list(real.shape)}"
            )
        count = len(real) if config.reference is None else config.reference
        if not FEWEST <= count <= len(real):
            raise ValueError(
                f"scores: reference must lie in {FEWEST}..{len(real)}, the number of images of {data}, got {count}"
            )
        self._config = config
        self.shape: tuple[int, ...] = tuple(real.shape[1:])
        if extractor is None:
            extractor = load_extractor(config.extractor, config.weights, device, config.batch_size)
        self._extractor = extractor
        self._neighbours = min(config.n, count, MOST_NEIGHBOURS)
        self.protocol: dict[str, Any] = {
            "definition": DEFINITION,
            "frechet distance": self._extractor.label,
            "extractor": self._extractor.name,
            "weights sha256": self._extractor.digest,
            "resize": self._extractor.resize,
            "n": config.n,
            "reference": count,
            "neighbours": self._neighbours,
            "data": data,
            "split": split,
            "fingerprint": image_fingerprint(real) if fingerprint is None else fingerprint,
            "size": list(self.shape),
            "ema": None if ema is None else ema > 0,
            "k precision, recall": K_PRECISION,
            "k density, coverage": K_DENSITY,
            "kid subsets": [SUBSETS, min(SUBSET_SIZE, config.n, count)],
            "is splits": SPLITS,
            "versions": versions(),
        }
        few = min(config.n, count)
        if few <= self._extractor.dim:
            print(
                f"scores: {self.label} of {few} images, no more than its {self._extractor.dim} features, is far above "
                "that of many images; compare it with the same number alone",
                file=sys.stderr,
            )
        self._real = real_statistics(real, self._extractor, self.protocol, cache)

    @property
    def label(self) -> str:
        """What the Frechet distance is called: FID for Inception alone."""
        return self._extractor.label

    @property
    def real_features(self) -> Tensor:
        """Features [M, D] of the M real images that samples are compared with, evenly spaced over the set."""
        return self._real.features

    def features(self, images: Tensor) -> Tensor:
        """Features [n, D] of uint8 images [n, C, H, W]; ValueError for others."""
        return self._extractor.features(images).features

    def score(self, samples: Samples) -> dict[str, float]:
        """The scores of ``config.n`` samples.

        samples: batches of uint8 images of the real ones' shape, of which the first n are taken, or a function that
        draws those from one number to another, the last not included. ValueError if they are too few or of another
        shape. Several processes share the extractor's work; the first gets the scores, the others none.

        inception_score (where the extractor classifies), fid (the extractor's Frechet distance), kid, precision,
        recall, density, coverage; inception_score_error and kid_error are standard errors, the latter from 2,000 images
        on each side on.
        """
        features, logits = self._features(samples)
        if not here().first:
            return {}
        with full_float32():
            return self._scores(features, logits)

    def _scores(self, features: Tensor, logits: Tensor | None) -> dict[str, float]:
        scores: dict[str, float] = {}
        if logits is not None:
            scores["inception_score"], scores["inception_score_error"] = inception_score(logits)
        scores["fid"] = frechet_distance(self._real.moments, moments(features), self._real.root)
        scores["kid"], error = kernel_distance(features, self._real.features)
        if error is not None:
            scores["kid_error"] = error
        nearest = neighbour_scores(
            evenly_spaced(self._real.features, self._neighbours),
            evenly_spaced(features, self._neighbours),
            self._real.radii,
        )
        return {**scores, **nearest._asdict()}

    def _features(self, samples: Samples) -> tuple[Tensor, Tensor | None]:
        """Of n samples: [n, D], and logits [n, classes] where the extractor classifies."""
        features, logits = [], []
        for count, own in self._batches(samples):
            found = self._extractor.features(own)
            features.append(here().gather(found.features)[:count])
            if found.logits is not None:
                logits.append(here().gather(found.logits)[:count])
        return torch.cat(features), torch.cat(logits) if logits else None

    def _batches(self, samples: Samples) -> Iterator[tuple[int, Tensor]]:
        """The first n samples, checked: how many a batch has, and this process's part of it (``Processes.part``)."""
        n, taken = self._config.n, 0
        for count, batch in _drawn(samples, n) if callable(samples) else _parts(samples, n):
            if batch.dtype != torch.uint8 or batch.ndim != 4 or tuple(batch.shape[1:]) != self.shape:
                raise ValueError(
                    f"scores: samples must be uint8 [n, {', '.join(map(str, self.shape))}] like the real images, got "
                    f"{batch.dtype} {list(batch.shape)}"
                )
            yield count, batch
            taken += count
            if taken >= n:
                return
        raise ValueError(f"scores: n is {n}, but there are only {taken} samples")


def _drawn(draw: Callable[[int, int], Tensor], n: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, n, DRAW):
        count = min(DRAW, n - start)
        first, end = here().part(count)
        yield count, draw(start + first, start + end)


def _parts(batches: Iterable[Tensor], n: int) -> Iterator[tuple[int, Tensor]]:
    taken = 0
    for batch in batches:
        count = min(len(batch), n - taken)
        taken += count
        first, end = here().part(count)
        yield count, batch[torch.arange(first, end).clamp(max=count - 1)]
