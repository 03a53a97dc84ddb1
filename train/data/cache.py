"""Decoded images kept on disk, by source, size and crop, and read by mapping the file into memory.

A file is in the safetensors format, with what there is to say of the images in its header. Beside it lies a stamp: the
size and time that it had when its checksum was last found right, so that a run does not read a large set to start.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from train.data.fingerprint import image_fingerprint, start_fingerprint
from train.data.notes import Notes
from train.errors import ResourceError, printable, resource_message
from train.run.files import sweep, write_atomically, write_json

CACHE_VERSION = "3"  # raised when decoding changes
SUFFIX = ".safetensors"
STAMP = ".json"
STATISTICS = "scores"  # the folder, in the cache's, of what scores keep of real images
ROWS = 1024  # copied at once


class Source(Protocol):
    """Where images come from, and what they become."""

    @property
    def path(self) -> Path:
        """The folder or file that the cache is named after."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def settings(self) -> Sequence[Any]:
        """Whatever else the pixels depend on, as JSON can hold it."""

    def listing(self) -> object:
        """What tells a changed source from an unchanged one, as JSON can hold it."""

    def blocks(self, notes: Notes) -> Iterator[tuple[list[str], np.ndarray]]:
        """Names and images, uint8 [n, *shape], of some at a time, in any order; notes hears of the others."""


class Kept(NamedTuple):
    """A set of decoded images."""

    images: Tensor
    """uint8 [M, C, H, W], a view of the file."""
    notes: Notes
    fingerprint: str
    """As ``train.data.fingerprint`` has it."""
    file: Path | None
    """None if the source changed while it was read."""


def keep(source: Source, cache: str | None) -> Kept:
    """The images of ``source``, from the cache folder ``cache``, where they are put first if they are not there.

    The folder must be writable only then; that is asked before hours of decoding, not after. Of several processes that
    want the same images one decodes them, and the others wait.
    """
    folder, listing = cache_folder(cache), source.listing()
    file = cache_file(folder, source.path, [*source.shape, *source.settings], listing)
    known = read_cache(file, source.shape)
    if known is not None:
        return known
    _check_writable(folder)
    with _alone(file):
        known = read_cache(file, source.shape)  # another process may have made it since the first look
        return _decode(source, listing, file) if known is None else known


def _decode(source: Source, listing: object, file: Path) -> Kept:
    notes = Notes()
    with _Stage(file.parent, source.shape) as stage:
        for names, images in source.blocks(notes):
            stage.add(names, images)
        if not stage.names:
            raise ValueError(notes.why_empty(source.path))
        notes.close(stage.names)
        if _unchanged(source, listing):
            return write_cache(file, source.path, stage, notes)
        return Kept(torch.from_numpy(stage.in_order()), notes, "", None)


def _unchanged(source: Source, before: object) -> bool:
    try:
        return source.listing() == before
    except (OSError, ValueError):  # it went away as a whole
        return False


def cache_folder(cache: str | None) -> Path:
    """The folder, made if need be."""
    folder = Path(cache) if cache is not None else _default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise _unwritable(folder, "no permission")


def _unwritable(folder: Path, reason: object) -> ValueError:
    return ValueError(
        f"data: the cache folder {printable(str(folder))} cannot be written: {reason}; --data.cache names another"
    )


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
    """The file for images of ``path`` decoded with ``settings``, the size as the second; another one when its
    ``listing`` changes."""
    source = _digest([CACHE_VERSION, str(path.resolve()), *settings], 8)
    stem = printable(path.name.split(".")[0])[:40] or "images"
    return folder / f"{stem}-{settings[1]}px-{source}-{_digest(listing, 16)}{SUFFIX}"


def read_cache(file: Path, shape: Sequence[int]) -> Kept | None:
    """The images of that shape [C, H, W] and what was said of them; None if there are none or the file is damaged.

    Its checksum is computed unless the file is as it was when that was last found right.
    """
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as archive:
            images, header = archive.get_tensor("images"), archive.metadata()
        notes, known = Notes.from_json(header["notes"]), header["fingerprint"]
        if images.dtype == torch.uint8 and tuple(images.shape[1:]) == tuple(shape) and len(images) > 0:
            stamp = _stamp(file, known)
            if _read_stamp(file) == stamp:
                return Kept(images, notes, known, file)
            if image_fingerprint(images) == known:
                with contextlib.suppress(OSError, ResourceError):  # a cache that others keep need not be writable
                    write_json(file.with_suffix(STAMP), stamp)
                return Kept(images, notes, known, file)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError):
        pass
    print(f"data: the cache {printable(str(file))} is damaged and will be made again", file=sys.stderr)
    return None


def write_cache(file: Path, source: Path, stage: _Stage, notes: Notes) -> Kept:
    """Whole or absent; then removes what was kept of earlier states of the same source, and what killed writers left.

    A process that still reads a removed file keeps it until it is done.
    """
    fingerprints: list[str] = []
    try:
        write_atomically(file, lambda path: fingerprints.append(stage.write(path, source, notes)))
        write_json(file.with_suffix(STAMP), _stamp(file, fingerprints[0]))
    except OSError as error:
        raise ValueError(f"data: the cache {printable(str(file))} cannot be written: {error}") from error
    for known in file.parent.glob(f"*{SUFFIX}"):
        if known != file and known.name.rpartition("-")[0] == file.name.rpartition("-")[0]:
            remove(known)
    sweep(file.parent)
    made = read_cache(file, stage.shape)
    if made is None:
        raise ValueError(f"data: the cache {printable(str(file))} went away while it was written")
    return made


def remove(file: Path) -> None:
    """A file of the cache, and what lies beside it."""
    for path in (file, file.with_suffix(STAMP), file.with_suffix(".png")):
        path.unlink(missing_ok=True)


class _Stage:
    """Images on their way into a file: in a nameless one, as they come, so that they need no memory."""

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.shape, self.names = shape, list[str]()
        self._folder = folder
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - __exit__ closes it
        except OSError as error:
            raise _unwritable(folder, error) from error

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written is not missed
            self._file.close()

    def add(self, names: list[str], images: np.ndarray) -> None:
        """images: uint8 [n, *shape]."""
        self.names += names
        with self._no_room_is_said():
            self._file.write(np.ascontiguousarray(images).data)

    def in_order(self) -> np.ndarray:
        """The images sorted by name, in memory."""
        return np.concatenate(list(self._sorted()))

    def write(self, path: Path, source: Path, notes: Notes) -> str:
        """The images sorted by name, in the safetensors format; their fingerprint."""
        shape = (len(self.names), *self.shape)
        digest = start_fingerprint(shape)
        with path.open("wb") as file:
            file.write(_header(shape, source, notes, "0" * len(digest.hexdigest())))
            for images in self._sorted():
                digest.update(images.data)
                file.write(images.data)
            file.seek(0)
            file.write(_header(shape, source, notes, digest.hexdigest()))
        return digest.hexdigest()

    def _sorted(self) -> Iterator[np.ndarray]:
        with self._no_room_is_said():
            self._file.flush()
        images = np.memmap(self._file, np.uint8, "r", shape=(len(self.names), *self.shape))
        order = np.array(sorted(range(len(self.names)), key=self.names.__getitem__))
        for start in range(0, len(order), ROWS):
            yield images[order[start : start + ROWS]]

    @contextlib.contextmanager
    def _no_room_is_said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = printable(str(self._folder))
            raise ResourceError(
                f"data: the decoded images cannot be kept in {where}: {resource_message(error) or error}; free space "
                "there, or --data.cache names another folder"
            ) from error


def _header(shape: Sequence[int], source: Path, notes: Notes, digest: str) -> bytes:
    """Of a safetensors file that holds uint8 ``images`` alone."""
    told = {"notes": notes.to_json(), "source": printable(str(source.resolve())), "fingerprint": digest}
    ends = [0, int(np.prod(shape, dtype=np.int64))]
    text = json.dumps({"__metadata__": told, "images": {"dtype": "U8", "shape": shape, "data_offsets": ends}}).encode()
    text += b" " * (-len(text) % 8)  # the images begin at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text


def _stamp(file: Path, digest: str) -> dict[str, Any]:
    status = file.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "fingerprint": digest}


def _read_stamp(file: Path) -> Any:
    try:
        return json.loads(file.with_suffix(STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none, or a damaged one
        return None


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Within the block no other process makes ``file``, where the file system has locks."""
    path = file.with_name(f".{file.name}.lock")
    with path.open("a") as lock:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("data: another process decodes these images; waiting for it", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # who waits for it finds the images, or decodes them again


def _digest(value: object, letters: int) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:letters]
