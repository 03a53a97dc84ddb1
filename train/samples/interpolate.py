"""``python -m train interpolate``: what a generator makes of the noise between draws, as a grid or as a GIF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image
from torch import Tensor

from models.config import check_fields
from models.games import Game
from train.cli import parse_fields
from train.errors import printable
from train.report.plots import grid_picture
from train.run.config import torch_device
from train.run.files import write_atomically
from train.samples.draw import noise
from train.samples.source import Weights, check_counts, load_trained

FRAME_MILLISECONDS = 80


@dataclass(frozen=True)
class InterpolateConfig:
    """Show the way between samples of the run or the export SOURCE: a PNG grid, or a GIF that goes forth and back.

    The noise goes along a great circle, on which each point follows the law that the generator was trained on.
    """

    source: Annotated[str, tyro.conf.Positional] = ""
    """A run directory, or an export (a folder with model.safetensors and config.json)."""
    out: str = ""
    """FILE.png: a row for each way. FILE.gif: a tile for each way, all of which move."""
    rows: int = 8
    """Ways, each between two samples of its own."""
    steps: int = 10
    """Images of a way, with both of its ends."""
    seed: int = 0
    """Of the noise of the ends."""
    weights: Weights = "last"
    """Of a run, as for python -m train sample."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_fields(self, "interpolations")
        check_counts(self, "interpolations", "rows", "steps")
        if self.steps < 2:
            raise ValueError(f"interpolations: steps must be at least 2, got {self.steps}")


@torch.no_grad()
def interpolations(game: Game, rows: int, steps: int, seed: int) -> Tensor:
    """Samples [rows, steps, ...]: in row r from sample 2r of ``seed`` to sample 2r + 1, by ``Game.between``.

    game: in eval mode. See ``train.samples.draw`` for the samples of a seed. ValueError if samples are not finite.
    """
    ends = noise(game, 0, 2 * rows, seed)
    start, end = ends[::2], ends[1::2]
    shares = [step / (steps - 1) for step in range(steps)]
    samples = torch.stack([game.sample(game.between(start, end, share)) for share in shares], 1)
    if not samples.isfinite().all():
        raise ValueError("interpolations: the samples are not all finite")
    return samples


def interpolate_main(argv: Sequence[str]) -> None:
    """Write the picture; ValueError in one line for what cannot be done."""
    config = parse_fields(InterpolateConfig, InterpolateConfig(), argv, "python -m train interpolate")
    if not config.source:
        raise ValueError("interpolations: which run or export? give its folder")
    device, out = torch_device(config.device), Path(config.out)
    if out.suffix.lower() not in (".png", ".gif"):
        raise ValueError(f"interpolations: out must be FILE.png or FILE.gif, got {printable(config.out)!r}")
    trained = load_trained(config.source, config.weights)
    if len(trained.shape) != 3:
        raise ValueError(f"interpolations: {printable(config.source)} makes points; interpolations are of images")
    images = interpolations(trained.game.to(device), config.rows, config.steps, config.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    (write_gif if out.suffix.lower() == ".gif" else write_grid)(images, out)
    print(f"{config.rows} ways in {config.steps} steps of {trained}, seed {config.seed}, in {printable(str(out))}")


def write_grid(images: Tensor, path: Path) -> None:
    """A PNG with a row for each of ``images`` [rows, steps, C, H, W] in [-1, 1]."""
    picture = grid_picture(images.flatten(0, 1), columns=images.shape[1])
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


def write_gif(images: Tensor, path: Path) -> None:
    """A GIF without end, forth and back: a tile for each of ``images`` [rows, steps, C, H, W] in [-1, 1]."""
    columns = math.ceil(math.sqrt(len(images)))
    forth = [grid_picture(frame, columns=columns) for frame in images.unbind(1)]
    frames = [frame.quantize(256, dither=Image.Dither.NONE) for frame in [*forth, *forth[-2:0:-1]]]

    def write(temporary: Path) -> None:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=FRAME_MILLISECONDS, loop=0
        )

    write_atomically(path, write)
