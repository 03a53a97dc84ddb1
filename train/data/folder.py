"""The images of a folder or an archive: decoded once, then read from a cache file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from train.data.archives import LeftOut, folder_files, walk_images
from train.data.cache import Kept, keep
from train.data.decode import Crop
from train.data.decoders import Item, decode_items
from train.data.notes import Notes
from train.errors import printable

BLOCK, BLOCK_BYTES = 256, 64 * 2**20  # images, and bytes of them, that are handed on together
Listing = list[tuple[str, int, int]]


def load_folder(
    path: Path, size: int, *, subset: str | None = None, cache: str | None = None, background: str = "white"
) -> Tensor:
    """The images below ``path`` (a folder, tar or zip), sorted by name: uint8 [M, 3, size, size], RGB.

    Each image is decoded as ``train.data.decode`` says. subset keeps images that lie below a folder of that name. An
    unreadable image, or one beyond PIL's decompression limit, is named on stderr and skipped; what is no image is
    counted and named there, too. ValueError when there is no image.
    """
    return load_pictures(Pictures(path, size, background, subset=subset), cache).images


def load_pictures(source: Pictures, cache: str | None) -> Kept:
    """The images of ``source``, and on stderr what there is to say of them."""
    kept = keep(source, cache)
    images, notes = kept.images, kept.notes
    notes.say(source.background)
    if source.chosen is None and source.subset is None and {"train", "test"} <= set(notes.splits):
        print("data: train and test images are used together; subset=train keeps to the former", file=sys.stderr)
    more = f", {notes.unreadable:,} unreadable ones skipped" if notes.unreadable else ""
    where = "; the files changed while they were read, so nothing is cached"
    if kept.file is not None:
        where = f"; cache {printable(str(kept.file))}"
    print(
        f"data: {len(images):,} images of {source.size} x {source.size} pixels from {printable(str(source.path))}"
        f"{more}{where}",
        file=sys.stderr,
    )
    return kept


@dataclass(frozen=True)
class Pictures:
    """Image files in a folder, tar or zip, as a source of images [3, size, size]."""

    path: Path
    size: int
    background: str = "white"
    crop: int | None = None
    """The central square that is kept, in pixels of the file; None for the largest one."""
    subset: str | None = None
    """Only images below a folder of this name."""
    chosen: Callable[[], Mapping[str, Crop]] | None = None
    """Only these images, by their names below ``below``, with their crops; asked when they are decoded."""
    below: str = ""
    """The folder of an archive that they lie in, with a slash at its end."""
    beside: tuple[Path, ...] = ()
    """Other files that ``chosen`` reads."""
    key: tuple[Any, ...] = ()
    """What ``chosen`` depends on beside files."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """See Source."""
        return 3, self.size, self.size

    @property
    def settings(self) -> tuple[Any, ...]:
        """See Source."""
        return self.subset, self.background, self.crop, *self.key

    def listing(self) -> Listing:
        """See Source."""
        return [*listing(self.path), *(entry for file in self.beside for entry in listing(file))]

    def blocks(self, notes: Notes) -> Iterator[tuple[list[str], np.ndarray]]:
        """See Source; it shows the progress."""
        left_out, folders = LeftOut(), set[str]()
        chosen = None if self.chosen is None else dict(self.chosen())
        names: list[str] = []
        rows: list[np.ndarray] = []
        columns = (TextColumn("decoded {task.fields[count]:,} images"), BarColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task, done = progress.add_task("", total=1.0, count=0), 0
            items = self._items(chosen, left_out, folders, lambda done: progress.update(task, completed=done))
            for name, outcome in decode_items(items, self.size, self.background):
                if isinstance(outcome, str):
                    notes.skip(name, outcome)
                    continue
                names.append(name)
                rows.append(outcome.pixels)
                notes.saw(outcome.width, outcome.height)
                notes.transparent += outcome.transparent
                notes.frames += outcome.frames
                if len(names) == BLOCK or len(names) * outcome.pixels.nbytes >= BLOCK_BYTES:
                    yield names, np.stack(rows).transpose(0, 3, 1, 2)
                    done += len(names)
                    progress.update(task, count=done)
                    names, rows = [], []
        if names:
            yield names, np.stack(rows).transpose(0, 3, 1, 2)
        if chosen is None:
            notes.passed(left_out, folders, self.subset)
        else:
            for name in chosen:
                notes.skip(name, "it is not there")

    def _items(
        self,
        chosen: dict[str, Crop] | None,
        left_out: LeftOut,
        folders: set[str],
        progress: Callable[[float], None],
    ) -> Iterator[Item]:
        """What is to be decoded; those of ``chosen`` are removed from it."""
        for i, member in enumerate(walk_images(self.path, left_out)):
            if i % BLOCK == 0:
                progress(member.done)
            crop: Crop = self.crop
            if chosen is not None:
                name = member.name.removeprefix(self.below)
                if name not in chosen:
                    continue
                crop = chosen.pop(name) or self.crop
            else:
                parents = member.name.split("/")[:-1]
                folders.update(parents)
                if self.subset is not None and self.subset not in parents:
                    continue
            yield Item(member.name, member.read, member.file, crop)


def listing(path: Path) -> Listing:
    """Name, size and modification time of every image file of a folder, or of the archive."""
    if not path.is_dir():
        status = path.stat()
        return [(path.name, status.st_size, status.st_mtime_ns)]
    files = []
    for name in folder_files(path, LeftOut()):
        try:
            status = os.stat(os.path.join(path, name))
        except OSError:  # it went away
            continue
        files.append((name, status.st_size, status.st_mtime_ns))
    return files
