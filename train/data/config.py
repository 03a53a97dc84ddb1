"""Which data set: the settings, and the set that they name."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import ImageColor
from torch import Tensor

from models.config import check_fields
from train.data.ahead import fits
from train.data.cache import Kept, Source, cache_folder, keep
from train.data.datasets import ImageSet, PointSet, evenly_spaced
from train.data.distributions import ball3d, ring8
from train.data.download import FILES, DamagedError, download
from train.data.folder import Pictures, load_pictures
from train.data.notes import Notes
from train.data.published import SPLITS, open_published, split_of
from train.data.readers import fit, read_digits
from train.errors import amount, printable
from train.run.memory import check_room

DataName = Literal["ring8", "ball3d", "digits", "fashion-mnist", "cifar10", "flowers102", "cub200", "celeba", "folder"]
MAX_SIZE = 4096  # pixels
DISTRIBUTIONS = {"ring8": ring8, "ball3d": ball3d}


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    name: DataName = "ring8"
    """ring8 and ball3d are generated; digits comes with scikit-learn; the others are files."""
    path: str | None = None
    """folder: a folder, tar or zip of images. fashion-mnist, cifar10, flowers102, cub200 and celeba: the folder that
    holds their files, as they are published or as torchvision unpacks them (with --data.download: in the cache)."""
    download: bool = False
    """Fetch the files of a published set that are not there; each is checked by its MD5."""
    size: int = 32
    """Height and width of the images in pixels; generated points have none."""
    crop: str = "centre"
    """What is cut out before scaling: centre, the largest central square; N, the central square of N pixels of the
    file (such as 108 or 140 for celeba); box, the square around the bounding box of cub200. It says nothing for
    digits, fashion-mnist and cifar10, which are square."""
    subset: str | None = None
    """folder: use only images below a folder of this name, such as train (default: all).
    fashion-mnist and cifar10: train (default) or test. flowers102: all (default), train, val or test. cub200: all
    (default), train or test. celeba: train (default), val, test or all."""
    cache: str | None = None
    """Where decoded images are kept (default: otkernels in the user's cache folder)."""
    background: str = "white"
    """The colour that transparent images are laid on, a name or #rrggbb."""
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
        boxes = self.crop == "box" and self.name == "cub200"
        if self.crop != "centre" and not boxes and re.fullmatch(r"[1-9][0-9]{0,7}", self.crop) is None:
            raise ValueError(f"data: crop must be centre, a number of pixels, or box for cub200, got {self.crop!r}")
        for name in ("path", "cache"):  # a run may be resumed from another folder
            value = getattr(self, name)
            if value == "":
                raise ValueError(f"data: {name} must name a file or folder, got ''")
            if value is not None:
                object.__setattr__(self, name, os.path.abspath(_expanded(value)))


def split_name(config: DataConfig) -> str | None:
    """The split, or a folder's part, that ``config`` takes; None for a set that is not divided."""
    return split_of(config.name, config.subset) if config.name in SPLITS else config.subset


def load(config: DataConfig, device: torch.device | str = "cpu", seed: int = 0) -> PointSet | ImageSet:
    """The data set that ``config`` names, on ``device``; ValueError in one line for a wrong name, path or file."""
    if config.name in DISTRIBUTIONS:
        target = DISTRIBUTIONS[config.name]()
        if config.limit is not None:
            check_room(f"data: limit {config.limit}", 4 * config.limit * target.dim, device)
        return PointSet(target, device, seed, config.limit)
    kept = load_kept(config)
    images, known = _limited(kept.images, config.limit), kept.fingerprint
    device = torch.device(device)
    if device.type != "cpu" and fits(images, device):
        images = images.to(device)
    elif device.type != "cpu":
        size = amount(images.numel())
        print(f"data: the images ({size}) stay in the host's memory and are copied ahead", file=sys.stderr)
    whole = known and len(images) == len(kept.images)
    return ImageSet(config.name, images, seed, device=device, fingerprint=known if whole else None)


def load_images(config: DataConfig) -> Tensor:
    """All the images that ``config`` names, in their order: uint8 [M, C, size, size], on the host.

    They are a view of a file, which needs memory only while it is read. ValueError in one line for a wrong name, path
    or file, and for ring8 and ball3d, which have no images.
    """
    return _limited(load_kept(config).images, config.limit)


def load_kept(config: DataConfig) -> Kept:
    """The set that ``config`` names without its limit, and what there is to say of it; errors as ``load_images``."""
    name = config.name
    if name in DISTRIBUTIONS:
        raise ValueError(f"data: {name} has points, no images")
    if name == "digits":
        if config.subset is not None:
            raise ValueError(f"data: digits has no subset {config.subset!r}; it is one set")
        images, notes = read_digits(), Notes()
        notes.saw(images.shape[3], images.shape[2], len(images))
        notes.close([])
        return Kept(fit(images, config.size, pad=True), notes, "", None)
    try:
        return _kept(_source(config), config.cache)
    except DamagedError:
        folder = _download_folder(config)
        if not config.download or folder.is_file():  # the archive itself was named
            raise
        download(name, folder)
        return _kept(_source(config), config.cache)


def _kept(source: Source, cache: str | None) -> Kept:
    return load_pictures(source, cache) if isinstance(source, Pictures) else keep(source, cache)


def _download_folder(config: DataConfig) -> Path:
    return cache_folder(config.cache) / "downloads" / config.name if config.path is None else Path(config.path)


def _source(config: DataConfig) -> Source:
    crop = int(config.crop) if config.crop.isdecimal() else None
    if config.name == "folder":
        if config.path is None:
            raise ValueError("data: folder needs a path: a folder, tar or zip of images")
        return Pictures(_existing(config.path), config.size, config.background, crop, config.subset)
    split_of(config.name, config.subset)  # a wrong one is said before anything is fetched

    def opened(root: Path) -> Source:
        boxes = config.crop == "box"
        return open_published(config.name, root, config.subset, config.size, config.background, crop, boxes)

    if not config.download:
        if config.path is None:
            files = ", ".join(file.name for file in FILES[config.name])
            raise ValueError(
                f"data: {config.name} needs a path: the folder that holds {files} or what is in it; or --data.download"
            )
        return opened(_existing(config.path))
    root = _download_folder(config)
    try:
        return opened(root)
    except ValueError:
        download(config.name, root)
        return opened(root)


def _existing(path: str) -> Path:
    if not Path(path).exists():
        raise ValueError(f"data: there is no {printable(path)}")
    return Path(path)


def _limited(images: Tensor, limit: int | None) -> Tensor:
    return images if limit is None or limit >= len(images) else evenly_spaced(images, limit)


def _expanded(path: str) -> str:
    """With ~ as the user's home, where there is one."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        return path
