"""The image files inside a folder, a tar (any compression Python knows) or a zip, one after another and in memory.

Nothing is ever unpacked to disk, and links inside archives are not followed. Whatever a header declares, no more is
read than is there and than ``MAX_FILE_BYTES`` of one file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from train.errors import printable

_SUFFIXES = ".jpg .jpeg .jpe .jfif .jfi .png .apng .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm"
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
MAX_FILE_BYTES = 256 * 2**20  # a larger image file is taken for an attack on the memory
MOST_LINKS = 8  # links to folders on the way to a file
Wanted = Callable[[str], bool]
_PIECE = 2**20
_COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


class ArchiveError(ValueError):
    """The archive is none, or ends too early."""


class Member(NamedTuple):
    """One image file. ``read`` must be called before the next member is asked for; ``done`` is the share of the walk
    that lies behind it, 0..1; ``file`` is where another process may read it instead, as it does with ``read_file``."""

    name: str
    read: Callable[[], bytes]
    done: float
    file: str | None = None


class LeftOut:
    """What a walk passed over, by reason, in the order in which it was met."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self._names.setdefault(reason, []).append(name)

    def lines(self, shown: int) -> list[str]:
        """A line per reason, with up to ``shown`` names."""
        return [
            f"left out {len(names):,} {reason}: {', '.join(map(printable, names[:shown]))}"
            + (f" and {len(names) - shown:,} more" if len(names) > shown else "")
            for reason, names in self._names.items()
        ]


def is_image_name(name: str) -> bool:
    """Whether the suffix is an image's and no part of the name is hidden (such as macOS's ._copies)."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    # Names are split by hand: pathlib took a fifth of the time that a small image takes.
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in name.split("/"))


def walk_images(path: Path, left_out: LeftOut, wanted: Wanted = is_image_name) -> Iterator[Member]:
    """Every image file in ``path`` by its name there; ArchiveError if it is neither a folder, tar nor zip.

    left_out hears of every other file and of folders that cannot be entered. wanted: which files inside an archive are
    taken, by their names, instead of the images.
    """
    if path.is_dir():
        yield from _walk_folder(path, left_out)
        return
    if not path.is_file():  # a pipe would be waited for
        raise ArchiveError(f"data: {printable(str(path))} is neither a folder nor a file")
    with _damage_is_fatal(path):
        if zipfile.is_zipfile(path):
            yield from _walk_zip(path, left_out, wanted)
        else:
            yield from _walk_tar(path, left_out, wanted)


def folder_files(path: Path, left_out: LeftOut) -> list[str]:
    """The image files below a folder as sorted relative names with slashes.

    Links are followed, to folders too, unless they lead back to a folder that they lie in. Only regular files count.
    """
    names: list[str] = []
    pending = [(str(path), "", frozenset([_identity(path.stat())]), 0)]
    while pending:
        folder, below, around, links = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            left_out.add(f"folders that cannot be read ({error.strerror})", below or ".")
            continue
        for entry in entries:
            name = f"{below}{entry.name}"
            if _is_hidden(entry.name):
                left_out.add("hidden files or folders", name)
                continue
            try:
                status = entry.stat()
            except OSError:
                left_out.add("links that lead nowhere, or files that went away", name)
                continue
            if stat.S_ISDIR(status.st_mode):
                followed = links + entry.is_symlink()
                if _identity(status) in around or followed > MOST_LINKS:
                    left_out.add("links that lead in a circle", name)
                else:
                    pending.append((entry.path, f"{name}/", around | {_identity(status)}, followed))
            elif not stat.S_ISREG(status.st_mode):
                left_out.add("pipes, devices or sockets", name)
            elif is_image_name(entry.name):
                names.append(name)
            else:
                left_out.add("files with other suffixes", name)
    return sorted(names)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _walk_folder(path: Path, left_out: LeftOut) -> Iterator[Member]:
    names = folder_files(path, left_out)
    for i, name in enumerate(names):
        file = os.path.join(path, name)
        yield Member(name, partial(read_file, file), i / len(names), file)


def read_file(file: Path | str) -> bytes:
    """What a regular file holds; ValueError if it is none, or larger than ``MAX_FILE_BYTES``."""
    # It may have become a pipe since it was listed: opening one would wait for a writer.
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        return _read_bounded(opened, status.st_size)


def _read_bounded(file: Any, declared: int) -> bytes:
    """What is left in ``file``, piece by piece, so that memory follows what is there and not what is declared."""
    data = bytearray()
    while piece := file.read(min(declared + 1, _PIECE)):  # room for a whole piece costs more than a small file
        data += piece
        _check_bytes(len(data))
    return bytes(data)


def _walk_tar(path: Path, left_out: LeftOut, wanted: Wanted) -> Iterator[Member]:
    """A single pass, so that compressed archives are decompressed once."""
    size = path.stat().st_size
    with path.open("rb") as raw:
        start = raw.read(8)
        raw.seek(0)
        unpack = next((unpack for magic, unpack in _COMPRESSED.items() if start.startswith(magic)), None)
        stream = _Forward(raw if unpack is None else unpack(raw), seekable=unpack is None)
        try:
            archive = tarfile.TarFile(fileobj=stream, tarinfo=_StrictTarInfo)  # nothing to close but ``raw``
        except tarfile.TarError as error:
            raise ArchiveError(_why_no_archive(path, start, packed=unpack is not None, error=error)) from error
        while (entry := archive.next()) is not None:
            name = posixpath.normpath(entry.name) if entry.name.startswith("./") else entry.name
            if entry.isreg() and not _leads_out(name) and wanted(name):
                yield Member(name, partial(_read_entry, path, archive, stream, entry), raw.tell() / size)
            elif not entry.isdir():
                _leave_out(left_out, name, entry.isreg())
            archive.members = []  # type: ignore[attr-defined]  # a million headers are not kept


def _why_no_archive(path: Path, start: bytes, *, packed: bool, error: Exception) -> str:
    shown = f"data: {printable(str(path))}"
    if not start:
        return f"{shown} is empty"
    if start.startswith(b"PK\x03\x04"):
        return f"{shown} cannot be read to its end: it begins as a zip archive and has no end record; was it cut?"
    if packed:
        return f"{shown} cannot be read to its end, or is no tar archive inside: {error}"
    if start.lstrip().startswith(b"<"):
        return f"{shown} is neither a folder nor a tar or zip archive, but a web page"
    return f"{shown} is neither a folder nor a tar or zip archive"


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _leave_out(left_out: LeftOut, name: str, regular: bool) -> None:
    if _leads_out(name):
        left_out.add("names that lead out of the archive", name)
    elif _is_hidden(name):
        left_out.add("hidden files or folders", name)
    else:
        left_out.add("files with other suffixes" if regular else "links, pipes or devices", name)


def _read_entry(path: Path, archive: tarfile.TarFile, stream: _Forward, entry: tarfile.TarInfo) -> bytes:
    """Damage inside a tar is the whole stream's: nothing after it can be trusted."""
    _check_bytes(entry.size)
    with _damage_is_fatal(path):
        if entry.issparse():
            file = archive.extractfile(entry)
            return _read_bounded(file, entry.size) if file is not None else b""
        stream.seek(entry.offset_data)  # a third of the time that extractfile takes for a small file
        data = stream.read(entry.size)
        if len(data) < entry.size:
            raise tarfile.ReadError("unexpected end of data")
        return data


class _Forward(io.RawIOBase):
    """A stream that tarfile takes for a file. It is read in pieces, and goes forward or one byte back: no header can
    make it allocate what is not there, or walk in a circle."""

    def __init__(self, raw: Any, *, seekable: bool) -> None:
        self._raw, self._seekable = raw, seekable
        self._at, self._last, self._again = 0, b"", b""

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_FILE_BYTES:
            raise tarfile.ReadError(f"a header declares {size} bytes")
        data = bytearray(self._again[:size])
        self._again = b""
        while len(data) < size and (piece := self._raw.read(min(_PIECE, size - len(data)))):
            data += piece
        self._at, self._last = self._at + len(data), bytes(data[-1:]) or self._last
        return bytes(data)

    def seek(self, position: int, whence: int = 0) -> int:
        if position < self._at - 1 or (position < self._at and not self._last):
            raise tarfile.ReadError("a header leads backwards")
        if position < self._at:
            self._at, self._again = position, self._last
        elif position > self._at and self._seekable:
            self._at, self._again = self._raw.seek(position), b""
        else:
            while self._at < position and self.read(min(_PIECE, position - self._at)):
                pass
        return self._at


class _StrictTarInfo(tarfile.TarInfo):
    """Python takes a tar that was cut between two members for a shorter one; here only its end marker ends it."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(archive)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it has no end marker") from error
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]  # Python takes it for the end, too
            if archive.offset == 0:
                raise
            raise tarfile.ReadError("a header is damaged") from error
        except (ValueError, OverflowError, RecursionError, MemoryError) as error:  # numbers that are none, or huge
            raise tarfile.ReadError(f"a header is damaged ({error or type(error).__name__})") from error


def _walk_zip(path: Path, left_out: LeftOut, wanted: Wanted) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        for i, entry in enumerate(entries):
            regular = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)  # 0: written where there are no kinds
            if regular and not _leads_out(entry.filename) and wanted(entry.filename):
                yield Member(entry.filename, partial(_read_zipped, archive, entry), i / len(entries))
            else:
                _leave_out(left_out, entry.filename, regular)


def _read_zipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    _check_bytes(entry.file_size)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without bound
        raise ValueError("its compression is neither stored nor deflated")
    with archive.open(entry) as file:
        return _read_bounded(file, entry.file_size)


@contextmanager
def _damage_is_fatal(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ArchiveError(f"data: {printable(str(path))} cannot be read to its end: {error}") from error


def _check_bytes(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(f"the file has {size} bytes or more, more than {MAX_FILE_BYTES}")
