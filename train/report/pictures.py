"""Pictures inside a page: small, and as many as a reader can use."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from train.report.page import Frame

MOST_FRAMES = 20  # of a slider
MOST_BYTES = 1_500_000  # of a slider: a page with two or three stays below 5 MB
MOST_PIXELS = 1100  # width of a picture; the files beside the page keep theirs
QUALITY = 82  # WebP's, of one picture of many; a single one is exact


def embedded(path: Path, alt: str, *, when: str = "", exact: bool = True) -> Frame:
    """The picture in ``path`` as WebP inside a data: URI; OSError if it cannot be read.

    exact: all its pixels as they are; else it may be a tenth of the size, which the eye hardly sees.
    """
    with Image.open(path) as opened:
        shown = opened.convert("RGB")
    if shown.width > MOST_PIXELS:
        shown = shown.resize((MOST_PIXELS, round(shown.height * MOST_PIXELS / shown.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="WEBP", lossless=exact, quality=QUALITY, method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Frame(uri, shown.width, shown.height, alt, when)


def by_step(folder: Path) -> dict[int, Path]:
    """The pictures <step>.png in ``folder``, by step in rising order; none if there is no such folder."""
    found = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdecimal()}
    return dict(sorted(found.items()))


def frames(pictures: Mapping[int, Path], alt: str) -> list[Frame]:
    """At most 20 of ``pictures`` evenly spaced, the first and the last among them, for a slider of at most 1.5 MB.

    What cannot be read is left out, and so is every picture that equals the one before it.
    """
    made: list[Frame] = []
    for step in chosen(list(pictures)):
        try:
            frame = embedded(pictures[step], f"{alt} at iteration {step:,}", when=f"{step:,}", exact=False)
        except Exception:  # whatever a parser raises on damaged bytes, the picture is left out
            continue
        if not made or made[-1].uri != frame.uri:
            made.append(frame)
    size = sum(len(frame.uri) for frame in made)
    return [made[i] for i in chosen(range(len(made)), max(2, len(made) * MOST_BYTES // size))] if made else []


def chosen(steps: Sequence[int], most: int = MOST_FRAMES) -> list[int]:
    """At most ``most`` of ``steps``, evenly spaced, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]
