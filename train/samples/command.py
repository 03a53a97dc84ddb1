"""``python -m train sample``: samples of a run or an export, as images for other programs to read."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from torch import Tensor

from models.config import check_fields
from models.processes import here
from train.cli import parse_fields
from train.errors import printable
from train.run.config import torch_device
from train.run.launch import launched
from train.samples.draw import batches
from train.samples.files import form_of, write_images, write_npz
from train.samples.source import Weights, check_counts, load_trained
from train.scores.images import to_uint8
from train.scores.progress import shown


@dataclass(frozen=True)
class SampleConfig:
    """Draw samples from the run or the export SOURCE and write them to files.

    A sample depends on the seed and on its number alone, but for rounding.
    """

    source: Annotated[str, tyro.conf.Positional] = ""
    """A run directory, or an export (a folder with model.safetensors and config.json)."""
    out: str = ""
    """A new or empty folder for PNG files, FILE.tar of PNG files, or FILE.npz (arr_0, uint8 [N, H, W, C]). Points go to
    FILE.npz alone (arr_0, float32 [N, D])."""
    n: int = 10_000
    """How many; torchrun's processes draw a part each."""
    seed: int = 0
    """Of the noise; a run is scored on the first samples of its own seed."""
    weights: Weights = "last"
    """Of a run. last: its export or, before the end, its newest checkpoint, averaged if the run averages its weights;
    best: the snapshot with the best Frechet distance of a run that is scored; raw: without the average."""
    batch_size: int = 256
    """Samples that pass through the generator at once."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_fields(self, "samples")
        check_counts(self, "samples", "n", "batch_size")


def sample_main(argv: Sequence[str]) -> None:
    """Draw and write the samples; ValueError in one line, before any is drawn, for what cannot be done."""
    config = parse_fields(SampleConfig, SampleConfig(), argv, "python -m train sample")
    if not config.source:
        raise ValueError("samples: which run or export? give its folder")
    if not config.out:
        raise ValueError("samples: where to? --out names a folder, FILE.npz or FILE.tar")
    torch_device(config.device)
    out = Path(config.out)
    form = form_of(out)
    trained = load_trained(config.source, config.weights)
    points = len(trained.shape) == 1
    if points and form != "npz":
        raise ValueError(
            f"samples: {trained.name} makes points here, which go to FILE.npz, got {printable(config.out)}"
        )
    with launched(config.device):
        game = trained.game.to(torch_device(config.device))
        rounds = -(-config.n // (config.batch_size * here().size))
        drawn = shown(batches(game, config.n, config.seed, config.batch_size), rounds, "samples")
        if not here().first:
            deque(drawn, 0)  # draws its part of each batch for the first, which writes
        elif points:
            write_npz(out, (config.n, *trained.shape), np.dtype(np.float32), (batch.cpu().numpy() for batch in drawn))
        else:
            write_images(out, form, config.n, trained.shape, (_channels_last(batch) for batch in drawn))
        if not here().first:
            return
    size = " x ".join(map(str, trained.shape[1:] or trained.shape))
    kind = "points in dimension" if points else "images of"
    print(f"{config.n:,} {kind} {size} of {trained}, seed {config.seed}, in {printable(str(out))}", flush=True)


def _channels_last(batch: Tensor) -> np.ndarray:
    """Images [n, C, H, W] in [-1, 1] as uint8 [n, H, W, C]."""
    images: np.ndarray = to_uint8(batch).permute(0, 2, 3, 1).cpu().numpy()
    return images
