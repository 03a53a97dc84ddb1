"""Which data set: the settings, and the set that they name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import ImageColor
from torch import Tensor

from models.config import check_fields
from train.data.datasets import ImageSet, PointSet, evenly_spaced
from train.data.distributions import ball3d, ring8
from train.data.folder import load_folder
from train.data.readers import fit, read_cifar10, read_digits, read_fashion_mnist
from train.run.memory import check_room

DataName = Literal["ring8", "ball3d", "digits", "fashion-mnist", "cifar10", "folder"]
MAX_SIZE = 4096  # pixels
DISTRIBUTIONS = {"ring8": ring8, "ball3d": ball3d}
NEEDS_PATH = {
    "fashion-mnist": "the folder of its idx files",
    "cifar10": "the folder that holds cifar-10-batches-py",
    "folder": "a folder, tar or zip of images",
}


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    name: DataName = "ring8"
    """ring8 and ball3d are generated; digits comes with scikit-learn; the others need a path."""
    path: str | None = None
    """fashion-mnist: folder of the idx files; cifar10: folder that holds cifar-10-batches-py;
    folder: a folder, tar or zip of images."""
    size: int = 32
    """Height and width of the images in pixels; generated points have none."""
    subset: str | None = None
    """folder: use only images below a folder of this name, such as train (default: all).
    fashion-mnist and cifar10: train (default) or test."""
    cache: str | None = None
    """Where decoded images of a folder are kept (default: otkernels in the user's cache folder)."""
    background: str = "white"
    """folder: the colour that transparent images are laid on, a name or #rrggbb."""
    limit: int | None = None
    """Use at most this many images, evenly spaced over the set in its order (sorted by name for folder).
    ring8 and ball3d: draw from a fixed set of this many points instead of drawing new ones (default: new ones)."""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        if not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"data: size must lie in 1..{MAX_SIZE} pixels, got {self.size}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"data: limit must be at least 1, got {self.limit}")
        try:
            ImageColor.getcolor(self.background, "RGB")
        except ValueError:
            raise ValueError(
                f"data: background must be a colour, by name or as #rrggbb, got {self.background!r}"
            ) from None
        for name in ("path", "cache"):  # a run may be resumed from another folder
            value = getattr(self, name)
            if value == "":
                raise ValueError(f"data: {name} must name a file or folder, got ''")
            if value is not None:
                object.__setattr__(self, name, os.path.abspath(_expanded(value)))


def load(config: DataConfig, device: torch.device | str = "cpu", seed: int = 0) -> PointSet | ImageSet:
    """The data set that ``config`` names, on ``device``; ValueError in one line for a wrong name, path or file."""
    if config.name in DISTRIBUTIONS:
        target = DISTRIBUTIONS[config.name]()
        if config.limit is not None:
            check_room(f"data: limit {config.limit}", 4 * config.limit * target.dim, device)
        return PointSet(target, device, seed, config.limit)
    return ImageSet(config.name, load_images(config).to(device), seed)


def load_images(config: DataConfig) -> Tensor:
    """All the images that ``config`` names, in their order, in the host's memory: uint8 [M, C, size, size].

    ValueError in one line for a wrong name, path or file, and for ring8 and ball3d, which have no images.
    """
    if config.name in DISTRIBUTIONS:
        raise ValueError(f"data: {config.name} has points, no images")
    images = _read_images(config)
    if config.limit is not None and config.limit < len(images):
        images = evenly_spaced(images, config.limit)
    return images


def _read_images(config: DataConfig) -> Tensor:
    if config.name == "digits":
        return fit(read_digits(), config.size, pad=True)
    if config.path is None:
        raise ValueError(f"data: {config.name} needs a path: {NEEDS_PATH[config.name]}")
    path = Path(config.path)
    if not path.exists():
        raise ValueError(f"data: there is no {path}")
    if config.name == "folder":
        return load_folder(path, config.size, subset=config.subset, cache=config.cache, background=config.background)
    subset = config.subset or "train"
    if subset not in ("train", "test"):
        raise ValueError(f"data: subset of {config.name} must be train or test, got {subset!r}")
    if config.name == "fashion-mnist":
        return fit(read_fashion_mnist(path, subset), config.size, pad=True)
    return fit(read_cifar10(path, subset), config.size, pad=False)


def _expanded(path: str) -> str:
    """With ~ as the user's home, where there is one."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        return path
