"""Generated images in files: a folder or an archive of them, or the field's npz; nothing is unpickled or resized."""

from __future__ import annotations

import io
import math
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from train.data.archives import ArchiveError, LeftOut, walk_images
from train.data.datasets import evenly_spaced
from train.data.decode import FORMATS, decode
from train.errors import printable
from train.run.memory import check_room

ARRAY = "arr_0"
PIECE = 2**20  # bytes that are read at once
SHOWN = 20  # unreadable images named one by one


def read_files(path: Path, n: int | None) -> Tensor:
    """n images of ``path``, evenly spaced by name or in the array, or all where n is None: uint8 [n, C, H, H].

    path: a folder, a tar or zip of images, or an npz. ValueError in one line for too few, or none of these.
    """
    images = read_npz(path) if path.suffix.lower() == ".npz" else read_images(path)
    if n is not None and n > len(images):
        raise ValueError(f"scores: n is {n}, but {printable(str(path))} has {len(images)} images")
    return images if n is None else evenly_spaced(images, n)


def read_images(path: Path) -> Tensor:
    """The images of a folder, tar or zip in the order of their names, all square and of one size: uint8 [M, 3, H, H].

    An image that cannot be read is named on stderr and left out. ValueError for images of several sizes.
    """
    found: dict[str, np.ndarray] = {}
    skipped: list[str] = []
    left_out = LeftOut()
    first = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for member in walk_images(path, left_out):
            try:
                data = member.read()
                size = _size(data)
                if size[0] == size[1]:
                    found[member.name] = decode(data, size[0])
            except ArchiveError:
                raise
            except Exception as error:  # a damaged image can raise nearly anything
                skipped.append(printable(f"{member.name}: {error}"))
                continue
            first = first or member.name
            side = found[first].shape[0] if first in found else 0
            if size != (side, side):
                raise ValueError(
                    f"scores: images must be square and of one size, got {size[0]} x {size[1]} pixels of "
                    f"{printable(member.name)}" + (f" and {side} x {side} of {printable(first)}" if side else "")
                )
    for line in [*(f"skipped {line}" for line in skipped[:SHOWN]), *left_out.lines(SHOWN)]:
        print(f"scores: {line}", file=sys.stderr)
    if not found:
        raise ValueError(f"scores: no image in {printable(str(path))} can be read")
    return torch.from_numpy(np.stack([found[name] for name in sorted(found)])).permute(0, 3, 1, 2)


def _size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.size


def read_npz(path: Path) -> Tensor:
    """The images ``arr_0``, uint8 [M, H, H, 1 or 3], of a file that numpy.savez wrote: uint8 [M, C, H, H].

    A view of the array as it was stored; no more memory is taken than that needs. What the header declares is checked
    first.
    """
    shown = f"{ARRAY} of {printable(str(path))}"
    with _array_file(path) as file:
        shape, fortran, dtype = _header(file)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or shape[1] != shape[2] or min(shape) < 1:
        raise ValueError(f"scores: {shown} must be uint8 [M, H, H, 1 or 3], got {dtype} {list(shape)}")
    count = math.prod(shape)
    check_room(f"scores: {shown}", count, "cpu")
    with _array_file(path) as file:
        _header(file)
        data = np.empty(count, np.uint8)
        got = _fill(file, data)
        more = bool(file.read(1))
    if got != count or more:
        raise ValueError(f"scores: {shown} must have {count} bytes, got {'more' if more else got}")
    return torch.from_numpy(data.reshape(shape, order="F" if fortran else "C").transpose(0, 3, 1, 2))


def _fill(file: Any, data: np.ndarray) -> int:
    """Read bytes into ``data`` [N] until it is full or the file ends; how many."""
    got = 0
    while got < len(data) and (some := file.readinto(data.data[got : got + PIECE])):
        got += some
    return got


@contextmanager
def _array_file(path: Path) -> Iterator[Any]:
    """The array as a file; what its bytes make a reader raise becomes one ValueError."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{ARRAY}.npy") as file:
            yield file
    except Exception as error:  # a zip's and a header's readers raise nearly anything
        shown = printable(str(path))
        raise ValueError(f"scores: {shown} is no npz with an array {ARRAY} that can be read: {error}") from error


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and dtype; ValueError for what numpy does not write."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
