"""Readers of what is not an image file: idx, CIFAR-10's pickles, scikit-learn's digits; all as uint8 [M, C, H, W]."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.entry import INSTALL

MAX_PADDING = 4  # pixels in all; a wider gap is closed by resizing
MAX_BYTES = 2**30  # of one file; the largest of these sets, EMNIST, has 0.64e9
IDX_UBYTE_IMAGES = 0x00000803  # unsigned bytes, three dimensions


def fit(images: Tensor, size: int, *, pad: bool) -> Tensor:
    """uint8 [M, C, H, W] -> uint8 [M, C, size, size]: unchanged, padded with black or resized (bicubic, antialiased).

    pad: add up to 4 black pixels per dimension instead of resizing, right for drawings on black such as 28 -> 32.
    """
    gap = size - images.shape[-1]
    if gap == 0:
        return images
    if pad and 0 < gap <= MAX_PADDING:
        before, after = gap // 2, gap - gap // 2
        return F.pad(images, (before, after, before, after))
    chunks = []
    for chunk in images.split(4096):  # bounds the float copy
        resized = F.interpolate(chunk.float(), size=(size, size), mode="bicubic", antialias=True)
        chunks.append(resized.round_().clamp_(0, 255).to(torch.uint8))  # bicubic overshoots at edges
    return torch.cat(chunks)


def read_digits() -> Tensor:
    """scikit-learn's 1,797 handwritten digits: uint8 [1797, 1, 8, 8], grey values 0..16 scaled to 0..255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(f"data: digits come with scikit-learn, which is not installed: {INSTALL} brings it") from error
    grey = load_digits().images * (255 / 16)
    return torch.from_numpy(grey.round().astype(np.uint8))[:, None]


def read_idx_images(path: Path) -> Tensor:
    """An idx file of square unsigned byte images, plain or gzip: uint8 [M, 1, H, H].

    No more is read than the header declares, and that may be ``MAX_BYTES``: a small gzip file may hold gigabytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(16)
            if len(header) < 16:
                raise ValueError(f"data: {path} is too short for an idx file ({len(header)} bytes)")
            magic, count, height, width = struct.unpack(">IIII", header)
            if magic != IDX_UBYTE_IMAGES:
                raise ValueError(f"data: {path} is no idx file of byte images (magic number {magic:#010x})")
            declared = count * height * width
            if declared > MAX_BYTES:
                raise ValueError(f"data: {path} declares {declared} bytes of images, more than {MAX_BYTES}")
            data = bytearray(file.read(declared + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"data: cannot read {path}: {error}") from error
    if len(data) != declared or height != width or count == 0 or height == 0:
        found = f"more than {declared}" if len(data) > declared else len(data)
        raise ValueError(f"data: {path} promises {count} images of {height} x {width} in {found} bytes")
    return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(count, 1, height, width))


def read_cifar_batch(data: bytes, shown: str) -> Tensor:
    """A batch of CIFAR-10 in its python format: uint8 [M, 3, 32, 32]. shown: its name in messages."""
    try:
        pixels = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()[b"data"]
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"data: {shown} is no CIFAR-10 batch: {error}") from error
    right = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2
    if not right or pixels.shape[1] != 3072 or len(pixels) == 0:
        raise ValueError(f"data: {shown} holds no uint8 images [M, 3072]")
    return torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain Python values and numpy arrays, and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct = np.empty(0).__reduce__()[0]  # numpy has moved this function between modules
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode_latin1,  # how Python 3 writes bytes at protocol 2
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[module, name]


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")
