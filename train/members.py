"""The image files inside a folder, a tar (any compression Python knows) or a zip, one after another and in memory.

Nothing is ever unpacked to disk, and links inside archives are not followed.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"])
MAX_FILE_BYTES = 256 * 2**20  # a larger image file is taken for an attack on the memory


class ArchiveError(ValueError):
    """The archive is none, or ends too early."""


class Member(NamedTuple):
    """One image file. ``read`` must be called before the next member is asked for; ``done`` is the share of the walk
    that lies behind it, 0..1."""

    name: str
    read: Callable[[], bytes]
    done: float


def walk_images(path: Path) -> Iterator[Member]:
    """Every image file in ``path`` by its name there; ArchiveError if it is neither a folder, tar nor zip."""
    if path.is_dir():
        yield from _walk_folder(path)
        return
    with _damage_is_fatal(path):
        if zipfile.is_zipfile(path):
            yield from _walk_zip(path)
        elif tarfile.is_tarfile(path):
            yield from _walk_tar(path)
        else:
            raise ArchiveError(f"data: {path} is neither a folder nor a tar or zip archive")


def folder_files(path: Path) -> list[str]:
    """The image files below a folder as sorted relative names with slashes; links to folders are not entered."""
    names = []
    for folder, _, files in os.walk(path, followlinks=False):
        below = Path(folder).relative_to(path)
        names += [(below / file).as_posix() for file in files]
    return sorted(name for name in names if is_image_name(name))


def is_image_name(name: str) -> bool:
    """Whether the suffix is an image's and no part of the name is hidden (such as macOS's ._copies)."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _walk_folder(path: Path) -> Iterator[Member]:
    names = folder_files(path)
    for i, name in enumerate(names):
        yield Member(name, partial(_read_file, path / name), i / len(names))


def _read_file(file: Path) -> bytes:
    _check_bytes(file.stat().st_size)
    return file.read_bytes()


def _walk_tar(path: Path) -> Iterator[Member]:
    """A single pass, so that compressed archives are decompressed once."""
    size = path.stat().st_size
    with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*", tarinfo=_StrictTarInfo) as archive:
        for entry in archive:
            name = str(PurePosixPath(entry.name))  # drops a leading ./
            if entry.isreg() and is_image_name(name):
                yield Member(name, partial(_read_entry, path, archive, entry), raw.tell() / size)


def _read_entry(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """Damage inside a tar is the whole stream's: nothing after it can be trusted."""
    _check_bytes(entry.size)
    with _damage_is_fatal(path):
        file = archive.extractfile(entry)
        return file.read() if file is not None else b""


class _StrictTarInfo(tarfile.TarInfo):
    """Python takes a tar that was cut between two members for a shorter one; here only its end marker ends it."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(archive)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it has no end marker") from error


def _walk_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir() and is_image_name(entry.filename)]
        for i, entry in enumerate(entries):
            yield Member(entry.filename, partial(_read_zipped, archive, entry), i / len(entries))


def _read_zipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    _check_bytes(entry.file_size)
    return archive.read(entry)


@contextmanager
def _damage_is_fatal(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ArchiveError(f"data: {path} cannot be read to its end: {error}") from error


def _check_bytes(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(f"the file has {size} bytes, more than {MAX_FILE_BYTES}")
