"""How samples are scored: the extractor of features, its weights, and how many images of each side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.config import check_fields

ExtractorName = Literal["none", "inception", "dinov2", "efficientnet-lite2"]
FEWEST = 10  # inception score takes ten splits, coverage five neighbours


@dataclass(frozen=True)
class ScoreConfig:
    """Scores of generated images against real ones."""

    extractor: ExtractorName = "none"
    """The network whose features are compared. inception: FID and IS as published; dinov2: FD-DINOv2;
    efficientnet-lite2: works without a network. none: no scores."""
    weights: str | None = None
    """A file with the extractor's weights (None: the published ones, from the package or PyTorch's hub folder,
    downloaded there if they are missing)."""
    n: int = 10_000
    """Generated images that are scored; published figures take 10,000 or 50,000."""
    reference: int | None = None
    """Real images that they are compared with, evenly spaced over the set (None: all of it)."""
    every: int = 0
    """Iterations between scores while a run trains (0: only at its end)."""
    batch_size: int = 64
    """Images that pass through the extractor at once on a GPU; a CPU takes few at a time, which is fastest there.
    The scores do not depend on it, but for rounding."""

    def __post_init__(self) -> None:
        check_fields(self, "scores")
        for name, least in (("n", FEWEST), ("reference", FEWEST), ("batch_size", 1), ("every", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"scores: {name} must be at least {least}, got {value}")
        if self.weights == "":
            raise ValueError("scores: weights must name a file, got ''")
        for name in ("weights", "every"):
            if getattr(self, name) and self.extractor == "none":
                raise ValueError(f"scores: {name} needs an extractor; --scores.extractor names one")
        if self.weights is not None:  # a run may be resumed from another folder
            object.__setattr__(self, "weights", os.path.abspath(Path(self.weights).expanduser()))
