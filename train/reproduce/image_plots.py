"""Strips of samples, one for each row of a table on images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from train.run.files import write_atomically

GRID_ROWS = 8  # of a run's pictures of samples
FONT, LABEL_WIDTH, GAP = 15, 220, 8  # pixels


def strips(pictures: Mapping[str, Path], path: Path, *, rows: int | None = None) -> None:
    """Pictures of one width below each other, each with its label on the left.

    pictures: label -> PNG file, a grid of eight rows if ``rows`` says how many of them to show (default: the whole).
    """
    images = {label: _upper(file, rows) for label, file in pictures.items()}
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


def top_rows(grid: Path, path: Path, rows: int = 2) -> None:
    """Write the first of the eight rows of a picture of samples."""
    upper = _upper(grid, rows)
    write_atomically(path, partial(upper.save, format="PNG", optimize=True))


def _upper(grid: Path, rows: int | None) -> Image.Image:
    picture = Image.open(grid).convert("RGB")
    return picture if rows is None else picture.crop((0, 0, picture.width, picture.height * rows // GRID_ROWS))
