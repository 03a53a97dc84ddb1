"""Decoded images kept on disk, by source, size, subset and background; ``python -m train data --cache``."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from train.errors import amount, printable
from train.run.files import sweep, write_atomically

CACHE_VERSION = "2"  # raised when decoding changes
SUFFIX = ".safetensors"
USAGE = "usage: python -m train data --cache [--clear [NAME ...]]"


class Notes(NamedTuple):
    """What is said of a set each time it is used."""

    skipped: list[str]
    """A line for each image that could not be read."""
    left_out: list[str]
    """A line for each kind of file that is no image."""
    transparent: int
    """Images that were laid on the background."""


def cache_folder(cache: str | None) -> Path:
    """The folder, made if need be; whether it can be written is asked before hours of decoding, not after."""
    folder = Path(cache) if cache is not None else _default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission")
    except OSError as error:
        raise ValueError(
            f"data: the cache folder {printable(str(folder))} cannot be written: {error}; --data.cache names another"
        ) from error
    return folder


def _default_folder() -> Path:
    """otkernels in the user's cache folder, or in the one for temporary files where the user has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # others are to be ignored, as its specification says
        return Path(given) / "otkernels"
    try:
        return Path.home() / ".cache" / "otkernels"
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"otkernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(f"data: {folder} is another user's, and there is no home folder; --data.cache names a folder")
    print(f"data: there is no home folder: decoded images are kept in {folder}", file=sys.stderr)
    return folder


def cache_file(folder: Path, path: Path, settings: Sequence[Any], listing: object) -> Path:
    """The file for images of ``path`` decoded with ``settings``; another one when its ``listing`` changes."""
    source = _digest([CACHE_VERSION, str(path.resolve()), *settings], 8)
    stem = printable(path.name.split(".")[0])[:40] or "images"
    return folder / f"{stem}-{settings[0]}px-{source}-{_digest(listing, 16)}{SUFFIX}"


def read_cache(file: Path, size: int) -> tuple[Tensor, Notes] | None:
    """The images and what was said of them, or None when there are none or the file is damaged."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as archive:
            images, notes = archive.get_tensor("images"), archive.metadata()
        stored = json.loads(notes["notes"])
        found = Notes(list(map(str, stored[0])), list(map(str, stored[1])), int(stored[2]))
        right = images.dtype == torch.uint8 and images.shape[1:] == (3, size, size) and len(images) > 0
        if right and int(notes["crc32"]) == _checksum(images):
            return images, found
    except (SafetensorError, OSError, LookupError, TypeError, ValueError):
        pass
    print(f"data: the cache {printable(str(file))} is damaged and will be made again", file=sys.stderr)
    return None


def write_cache(file: Path, source: Path, images: Tensor, notes: Notes) -> None:
    """Whole or absent; then removes what was kept of earlier states of the same source, and what killed writers left.

    A process that still reads a removed file keeps it until it is done.
    """
    metadata = {"crc32": str(_checksum(images)), "notes": json.dumps(notes), "source": str(source.resolve())}
    try:
        write_atomically(file, lambda temporary: save_file({"images": images}, temporary, metadata=metadata))
    except OSError as error:
        raise ValueError(f"data: the cache {printable(str(file))} cannot be written: {error}") from error
    for known in file.parent.glob(f"*{SUFFIX}"):
        if known != file and known.name.rpartition("-")[0] == file.name.rpartition("-")[0]:
            known.unlink(missing_ok=True)
    sweep(file.parent)


def cache_main(argv: Sequence[str]) -> None:
    """List what is kept, or remove all or some of it; ValueError for a wrong command line."""
    if argv[:1] != ["--cache"] or (len(argv) > 1 and argv[1] != "--clear"):
        raise ValueError(f"data: {USAGE}, got {' '.join(argv) or 'nothing'}")
    folder, named = cache_folder(None), argv[2:]
    files = sorted(folder.glob(f"*{SUFFIX}"))
    unknown = [name for name in named if name not in [file.name for file in files]]
    if unknown:
        raise ValueError(f"data: no {', '.join(unknown)} in {folder}; python -m train data --cache lists what there is")
    if len(argv) > 1:
        removed = [file for file in files if not named or file.name in named]
        freed = sum(file.stat().st_size for file in removed)
        for file in removed:
            file.unlink(missing_ok=True)
        print(f"{len(removed)} files removed from {folder}, {amount(freed)}")
        return
    for file in files:
        days = (time.time() - file.stat().st_mtime) / 86400
        print(f"{printable(file.name)}  {amount(file.stat().st_size)}  {_described(file)}  {days:.0f} days old")
    print(f"{len(files)} files in {folder}, {amount(sum(file.stat().st_size for file in files))}")


def _described(file: Path) -> str:
    try:
        with safe_open(file, framework="pt") as archive:
            count = archive.get_slice("images").get_shape()[0]
            source = (archive.metadata() or {}).get("source", "an unknown source")
    except (SafetensorError, OSError, LookupError):
        return "damaged"
    return f"{count:,} images of {printable(source)}"


def _digest(value: object, letters: int) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:letters]


def _checksum(images: Tensor) -> int:
    return zlib.crc32(images.numpy().data)
