"""``python -m train data``: what a data set is, with a picture; and the decoded images that are kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from safetensors import SafetensorError, safe_open

from train.data.cache import STATISTICS, SUFFIX, Kept, cache_folder, remove
from train.data.config import DISTRIBUTIONS, DataConfig, DataName, load_kept
from train.data.datasets import evenly_spaced, to_float
from train.data.published import SPLITS
from train.errors import amount, printable

USAGE = (
    "usage: python -m train data --cache [--clear [NAME ...]], or "
    "python -m train data NAME --info [--out FILE.png] [--data.FIELD VALUE ...]"
)
PICTURED = 64  # images in the picture


@dataclass(frozen=True)
class InfoConfig:
    """A data set: how many images there are, of what sizes, and a picture of some of them."""

    data: DataConfig = field(default_factory=DataConfig)
    """The set."""
    out: str | None = None
    """The picture's file (default: beside the cached images)."""


def main(argv: Sequence[str]) -> None:
    """Run the command line ``argv``; ValueError for a wrong one."""
    if argv[:1] == ["--cache"] and (len(argv) == 1 or argv[1] == "--clear"):
        return clear(argv[2:]) if len(argv) > 1 else show_cache()
    if not argv or argv[0] not in get_args(DataName) or "--info" not in argv:
        raise ValueError(f"data: {USAGE}, got {' '.join(argv) or 'nothing'}")
    from train.cli import parse_fields

    name = next(name for name in get_args(DataName) if name == argv[0])
    rest = [word for word in argv[1:] if word != "--info"]
    config = parse_fields(InfoConfig, InfoConfig(DataConfig(name)), rest, f"python -m train data {name} --info")
    if name in DISTRIBUTIONS or config.data.name != name:
        raise ValueError(f"data: --info describes sets of images, by their name after data, not {config.data.name}")
    describe(config)


def describe(config: InfoConfig) -> None:
    """Print the counts, the sizes and the files of a set, for each of its splits, and draw some of its images."""
    data = config.data
    splits: Sequence[str | None] = [data.subset]
    if data.subset is None:
        splits = SPLITS.get(data.name, (None,))
    sets = [load_kept(replace(data, subset=split)) for split in splits]
    for split, kept in zip(splits, sets, strict=True):
        print("\n".join(_lines(data.name, split, kept)))
    count, path = draw(config, sets[0])
    print(f"picture of {count} images, evenly spaced: {printable(str(path))}")


def _lines(name: str, split: str | None, kept: Kept) -> list[str]:
    notes, images = kept.notes, kept.images
    count, channels, height, width = images.shape
    lines = [
        f"{name}{'' if split is None else f', {split}'}: {count:,} images",
        f"  before  widths {_range(notes.widths)}, heights {_range(notes.heights)} pixels",
        f"  after   {channels} x {height} x {width}, {amount(images.numel())} as uint8",
    ]
    if notes.splits:
        lines.append("  below   " + ", ".join(f"{part}: {number:,}" for part, number in notes.splits.items()))
    if notes.unreadable:
        lines.append(f"  skipped {notes.unreadable:,} that cannot be read")
    if kept.file is not None:
        lines.append(f"  cache   {printable(str(kept.file))}")
    return lines


def _range(spread: tuple[int, int, int]) -> str:
    least, median, largest = spread
    return f"{least}" if least == largest else f"{least} to {largest} (median {median})"


def draw(config: InfoConfig, kept: Kept) -> tuple[int, Path]:
    """A grid of some of the images; how many, and the file."""
    from train.report.plots import image_grid

    if config.out is not None:
        path = Path(config.out)
    elif kept.file is not None:
        path = kept.file.with_suffix(".png")
    else:
        path = cache_folder(config.data.cache) / f"{config.data.name}-{config.data.size}px.png"
    images = evenly_spaced(kept.images, min(PICTURED, len(kept.images)))
    image_grid(to_float(images), path)
    return len(images), path


def kept_files() -> dict[str, Path]:
    """What the cache folder holds, by the names that the user sees: decoded images, then statistics for scores."""
    folder = cache_folder(None)
    files = [*sorted(folder.glob(f"*{SUFFIX}")), *sorted((folder / STATISTICS).glob(f"*{SUFFIX}"))]
    return {file.relative_to(folder).as_posix(): file for file in files}


def show_cache() -> None:
    """List what is kept."""
    files = kept_files()
    for name, file in files.items():
        days = (time.time() - file.stat().st_mtime) / 86400
        print(f"{printable(name)}  {amount(file.stat().st_size)}  {_described(file)}  {days:.0f} days old")
    total = sum(file.stat().st_size for file in files.values())
    print(f"{len(files)} files in {cache_folder(None)}, {amount(total)}")


def clear(named: Sequence[str]) -> None:
    """Remove what is kept, or the files named; ValueError if one of those is not there."""
    folder, files = cache_folder(None), kept_files()
    unknown = [name for name in named if name not in files]
    if unknown:
        raise ValueError(f"data: no {', '.join(unknown)} in {folder}; python -m train data --cache lists what there is")
    removed = [file for name, file in files.items() if not named or name in named]
    freed = sum(file.stat().st_size for file in removed)
    for file in removed:
        remove(file)
    print(f"{len(removed)} files removed from {folder}, {amount(freed)}")


def _described(file: Path) -> str:
    try:
        with safe_open(file, framework="pt") as archive:
            of_images = "images" in archive.keys()  # noqa: SIM118 - no mapping
            count = archive.get_slice("images" if of_images else "features").get_shape()[0]
            metadata = archive.metadata() or {}
    except (SafetensorError, OSError, LookupError):
        return "damaged"
    if of_images:
        return f"{count:,} images of {printable(metadata.get('source', 'an unknown source'))}"
    return (
        f"statistics of {count:,} images, for scores with {printable(metadata.get('extractor', 'an unknown network'))}"
    )
