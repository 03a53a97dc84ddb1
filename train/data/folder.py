"""A folder or archive of images as one uint8 tensor: decoded once, then read from a cache file."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from train.data.archives import IMAGE_SUFFIXES, ArchiveError, LeftOut, folder_files, walk_images
from train.data.cache import Notes, cache_file, cache_folder, read_cache, write_cache
from train.data.decode import decode, decode_on
from train.errors import printable
from train.run.memory import check_room

SHOWN = 20  # unreadable images named one by one
IN_FLIGHT = 256  # files read ahead of the decoders
IN_FLIGHT_BYTES = 64 * 2**20  # and what they may take together
SMALL_BYTES = 16 * 1024  # below this the interpreter's lock makes threads slower than none (0.6x at 32 x 32 pixels)
Decoded = tuple[np.ndarray, bool]
__all__ = ["decode", "decode_all", "listing", "load_folder"]


@dataclass
class Found:
    """What was met on the way through a folder or an archive."""

    folders: set[str] = field(default_factory=set)
    left_out: LeftOut = field(default_factory=LeftOut)


def load_folder(
    path: Path, size: int, *, subset: str | None = None, cache: str | None = None, background: str = "white"
) -> Tensor:
    """The images below ``path`` (a folder, tar or zip), sorted by name: uint8 [M, 3, size, size], RGB.

    Each image is decoded as ``train.data.decode`` says. subset keeps images that lie below a folder of that name. An
    unreadable image, or one beyond PIL's decompression limit, is named on stderr and skipped; what is no image is
    counted and named there, too. ValueError when there is no image.
    """
    settings = (size, subset, background)
    folder, before = cache_folder(cache), listing(path)
    file = cache_file(folder, path, settings, before)
    known = read_cache(file, size)
    if known is None:
        names, images, notes = decode_all(path, size, subset, background)
        _warn_of_mixed_splits(names, subset)
        if _is_as_before(path, before):
            write_cache(file, path, images, notes)
            kept = f"; cache {printable(str(file))}"
        else:
            kept = "; the files changed while they were read, so nothing is cached"
    else:
        images, notes = known
        kept = f"; cache {printable(str(file))}"
    for line in [*(f"skipped {line}" for line in notes.skipped[:SHOWN]), *notes.left_out]:
        print(f"data: {line}", file=sys.stderr)
    if notes.transparent:
        print(f"data: {notes.transparent:,} images with transparency, laid on {background}", file=sys.stderr)
    more = f", {len(notes.skipped):,} unreadable ones skipped" if notes.skipped else ""
    print(
        f"data: {len(images):,} images of {size} x {size} pixels from {printable(str(path))}{more}{kept}",
        file=sys.stderr,
    )
    return images


def listing(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time of every image file of a folder, or of the archive."""
    if not path.is_dir():
        status = path.stat()
        return [(path.name, status.st_size, status.st_mtime_ns)]
    files = []
    for name in folder_files(path, LeftOut()):
        try:
            status = (path / name).stat()
        except OSError:  # it went away
            continue
        files.append((name, status.st_size, status.st_mtime_ns))
    return files


def _is_as_before(path: Path, before: list[tuple[str, int, int]]) -> bool:
    try:
        return listing(path) == before
    except OSError:  # the folder or the archive went away as a whole
        return False


def decode_all(path: Path, size: int, subset: str | None, background: str) -> tuple[list[str], Tensor, Notes]:
    """Names, images uint8 [M, 3, size, size] in the names' order, and what was left out."""
    decoded: list[tuple[str, np.ndarray]] = []
    skipped: list[str] = []
    transparent = 0
    found = Found()
    for name, outcome in _decoded(path, size, subset, background, found):
        if isinstance(outcome, Exception):
            skipped.append(printable(f"{name}: {outcome}"))
        else:
            decoded.append((name, outcome[0]))
            transparent += outcome[1]
    notes = Notes(sorted(skipped), found.left_out.lines(SHOWN), transparent)
    if not decoded:
        raise ValueError(_why_empty(path, subset, found.folders, notes))
    decoded.sort(key=lambda pair: pair[0])
    check_room(f"data: {len(decoded)} images of {size} x {size} pixels", len(decoded) * 3 * size**2, "cpu")
    images = torch.empty(len(decoded), 3, size, size, dtype=torch.uint8)
    for row, (_, pixels) in zip(images, decoded, strict=True):
        row.copy_(torch.from_numpy(pixels).permute(2, 0, 1))
    return [name for name, _ in decoded], images, notes


def _decoded(
    path: Path, size: int, subset: str | None, background: str, found: Found
) -> Iterator[tuple[str, Decoded | Exception]]:
    """Reads here, decodes large files in others, shows the progress, tells ``found`` what it meets."""
    columns = (TextColumn("decoded {task.fields[count]:,} images"), BarColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    pending: list[tuple[str, Callable[[], Decoded]]] = []
    with progress, warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # odd metadata is no concern of ours
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        task = progress.add_task("", total=1.0, count=0)
        count = held = 0
        for member in walk_images(path, found.left_out):
            parents = PurePosixPath(member.name).parts[:-1]
            found.folders.update(parents)
            if subset is not None and subset not in parents:
                continue
            try:
                data = member.read()
            except ArchiveError:
                raise
            except Exception as error:  # no permission, an encrypted or damaged member of a zip
                yield member.name, error
                continue
            work = partial(decode_on, data, size, background)
            pending.append((member.name, work if len(data) < SMALL_BYTES else pool.submit(work).result))
            held += len(data)
            del data, work  # or a file that is refused would stay in memory beside the next one
            if len(pending) == IN_FLIGHT or held > IN_FLIGHT_BYTES:
                yield from map(_outcome, pending)
                count, held = count + len(pending), 0
                pending.clear()
                progress.update(task, completed=member.done, count=count)
        yield from map(_outcome, pending)
        progress.update(task, completed=1.0, count=count + len(pending))


def _outcome(item: tuple[str, Callable[[], Decoded]]) -> tuple[str, Decoded | Exception]:
    name, result = item
    try:
        return name, result()
    except Exception as error:  # a damaged image can raise nearly anything
        link: BaseException | None = error
        while link is not None:  # frames of the error, and of what it was raised from, hold the file
            link.__traceback__ = None
            link = link.__cause__ or link.__context__
        return name, error


def _why_empty(path: Path, subset: str | None, folders: set[str], notes: Notes) -> str:
    shown = printable(str(path))
    if notes.skipped:
        return f"data: none of the {len(notes.skipped)} images in {shown} is readable, the first: {notes.skipped[0]}"
    if subset is not None and folders:
        names = ", ".join(map(printable, sorted(folders)[:SHOWN]))
        return f"data: no images below a folder {subset!r} in {shown}; its folders: {names}"
    suffixes = f"images end in {' '.join(sorted(IMAGE_SUFFIXES))}"
    return "; ".join([f"data: no images in {shown}", *notes.left_out, suffixes])


def _warn_of_mixed_splits(names: list[str], subset: str | None) -> None:
    parts = {part for name in names for part in PurePosixPath(name).parts[:-1]}
    if subset is None and {"train", "test"} <= parts:
        print("data: train and test images are used together; subset=train keeps to the former", file=sys.stderr)
