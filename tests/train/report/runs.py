"""Run directories as training leaves them, without training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.report import plots

PROTOCOL = {
    "extractor": "efficientnet-lite2",
    "frechet distance": "FID[efficientnet-lite2]",
    "weights sha256": "ab" * 32,
    "n": 5000,
    "fingerprint": "cd" * 32,
}


def write_run(
    directory: Path, name: str = "potgan", *, seed: int = 0, steps: int = 8, offset: float = 0.0, **settings: Any
) -> Path:
    """A run on points of 100 iterations a row, whose reverse KL falls from 3 + offset; settings: of its config."""
    directory.mkdir(parents=True)
    config = {
        "data": {"name": "ring8", "path": None, "size": 32, "limit": None},
        "iterations": 100 * steps,
        "lr": 1e-3,
        "seed": seed,
        "device": "cpu",
        "out": str(directory),
        "threads": 1,
        "game": {"transport_weight": 0.01},
        **settings,
    }
    (directory / "config.json").write_text(json.dumps({"game": name, "config": config}))
    rows: list[dict[str, Any]] = []
    for i in range(1, steps + 1):
        rows.append({"step": 100 * i, "seconds": 2.0 * i, "critic/loss": -1.0 / i, "critic/lr": 0.1})
        kl = (3 + offset) * math.exp(-i / 3)
        rows.append({"step": 100 * i, "metrics/reverse_kl": kl, "metrics/reverse_kl_floor": 0.006, "metrics/n": 10000})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def write_scores(directory: Path, values: dict[int, float | None], protocol: dict[str, Any] = PROTOCOL) -> Path:
    """scores.json in a run directory: FID by step."""
    rows = [{"step": step, "seconds": step / 50, "fid": fid, "kid": fid and fid / 1e4} for step, fid in values.items()]
    (directory / "scores.json").write_text(json.dumps({"protocol": protocol, "rows": rows}))
    return directory


def images(n: int, seed: int = 0) -> Tensor:
    """Images [n, 3, 8, 8] in [-1, 1]."""
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def write_pictures(directory: Path, steps: list[int], last: int) -> Path:
    """Samples and moved images at ``steps`` and at the end, and what the final outputs measured."""
    for step in steps:
        for folder in ("samples", "pictures/moved"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
            plots.image_grid(images(16, step), directory / folder / f"{step:08d}.png")
    for name in ("samples", "moved", "neighbours-pixels", "interpolations"):
        plots.image_grid(images(16, last), directory / f"{name}.png")
    found = {"images": 500, "shown": 16, "samples": [10 + i / 8 for i in range(64)], "training": [12.0, 14.0, 20.0]}
    figures = {"step": last, "seconds": 9.0, "metrics": {}, "neighbours": {"pixels": found}}
    (directory / "figures.json").write_text(json.dumps(figures))
    return directory
