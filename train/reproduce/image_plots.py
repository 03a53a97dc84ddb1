"""The pictures of the tables on images: scores along the training, and strips of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from train.report.plots import COLOURS, DPI, save_figure
from train.run.files import write_atomically

Run = Sequence[tuple[float, float, float]]
FONT, LABEL_WIDTH, GAP = 15, 220, 8  # pixels


def score_curves(runs: Mapping[str, Sequence[Run]], path: Path, *, name: str = "FID") -> None:
    """A score against iterations and against minutes of training: label -> runs of (iteration, seconds, score).

    A line is the mean over the runs of a label, its band their standard error.
    """
    figure = Figure(figsize=(10, 4.2), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for label, colour in zip(runs, COLOURS * len(runs), strict=False):
        shown = np.array([run[: min(map(len, runs[label]))] for run in runs[label]])  # [R, K, 3]
        steps, minutes, scores = shown[:, :, 0].mean(0), shown[:, :, 1].mean(0) / 60, shown[:, :, 2]
        for axes, x in ((left, steps), (right, minutes)):
            axes.plot(x, scores.mean(0), color=colour, label=label, linewidth=1.8)
            if len(scores) > 1:
                error = scores.std(0, ddof=1) / len(scores) ** 0.5
                axes.fill_between(
                    x, scores.mean(0) - error, scores.mean(0) + error, color=colour, alpha=0.2, linewidth=0
                )
    _dress(left, "generator iterations")
    _dress(right, "minutes of training")
    left.set_ylabel(name)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    save_figure(figure, path)


def strips(pictures: Mapping[str, Path], path: Path) -> None:
    """Pictures of one width below each other, each with its label on the left; the file names are PNG files."""
    images = {label: Image.open(file).convert("RGB") for label, file in pictures.items()}
    width = LABEL_WIDTH + max(image.width for image in images.values())
    height = sum(image.height + GAP for image in images.values())
    canvas = Image.new("RGB", (width, height), "white")
    draw, font, top = ImageDraw.Draw(canvas), ImageFont.load_default(FONT), 0
    for label, image in images.items():
        draw.multiline_text((GAP, top + GAP), label.replace(", ", ",\n"), fill="black", font=font)
        canvas.paste(image, (LABEL_WIDTH, top))
        top += image.height + GAP
    small = canvas.quantize(256, dither=Image.Dither.NONE)
    write_atomically(path, partial(small.save, format="PNG", optimize=True))


def top_rows(grid: Path, path: Path, share: int = 4) -> None:
    """Write the upper part, one ``share``-th, of a picture of samples."""
    picture = Image.open(grid).convert("RGB")
    upper = picture.crop((0, 0, picture.width, picture.height // share))
    write_atomically(path, partial(upper.save, format="PNG", optimize=True))


def _dress(axes: Axes, x: str) -> None:
    axes.set_xlabel(x)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
