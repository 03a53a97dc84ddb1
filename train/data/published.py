"""The published image sets: what lies where in what their authors give away, unpacked or not, and the splits.

Nothing is unpacked to disk. A folder may be laid out as the authors' archive, or as torchvision leaves it.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from train.data.archives import LeftOut, read_file, walk_images
from train.data.cache import Source
from train.data.decode import Crop
from train.data.download import DamagedError, absent, check_whole, md5_of
from train.data.folder import Listing, Pictures, listing
from train.data.notes import Notes
from train.data.readers import fit, read_cifar_batch, read_idx_images
from train.errors import printable

SPLITS: dict[str, tuple[str, ...]] = {
    "fashion-mnist": ("train", "test"),
    "cifar10": ("train", "test"),
    "flowers102": ("all", "train", "val", "test"),
    "cub200": ("all", "train", "test"),
    "celeba": ("train", "val", "test", "all"),
}
"""Those of each set; the first is the default."""
FLOWERS = 8189  # images of flowers102
_CIFAR_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_CUB_TEXTS = ("images.txt", "train_test_split.txt", "bounding_boxes.txt")


@dataclass(frozen=True)
class Arrays:
    """Images that are stored as arrays, as a source of images [C, size, size]."""

    path: Path
    channels: int
    size: int
    key: tuple[Any, ...]
    files: tuple[Path, ...]
    read: Callable[[], Iterator[Tensor]]
    """uint8 [n, C, H, H] of some images at a time."""
    pad: bool = False
    """See ``train.data.readers.fit``."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """See Source."""
        return self.channels, self.size, self.size

    @property
    def settings(self) -> tuple[Any, ...]:
        """See Source."""
        return self.key

    def listing(self) -> Listing:
        """See Source."""
        return [entry for file in self.files for entry in listing(file)]

    def blocks(self, notes: Notes) -> Iterator[tuple[list[str], np.ndarray]]:
        """See Source."""
        count = 0
        for images in self.read():
            names = [f"{i:09d}" for i in range(count, count + len(images))]
            count += len(images)
            notes.saw(images.shape[3], images.shape[2], len(images))
            yield names, fit(images, self.size, pad=self.pad).numpy()


def split_of(name: str, subset: str | None) -> str:
    """The split that ``subset`` names; ValueError if the set has none of that name."""
    splits = SPLITS[name]
    if subset is None:
        return splits[0]
    if subset not in splits:
        *first, last = splits
        raise ValueError(f"data: subset of {name} must be {', '.join(first)} or {last}, got {subset!r}")
    return subset


def open_published(
    name: str, root: Path, subset: str | None, size: int, background: str, crop: int | None = None, boxes: bool = False
) -> Source:
    """The set ``name`` in ``root``: its folder, the one around it, or its archive; ValueError if it is not there.

    crop: the central square that is cut out, in pixels. boxes: cub200's bounding boxes are cut out.
    """
    split = split_of(name, subset)
    if name == "fashion-mnist":
        return _fashion_mnist(root, split, size)
    if name == "cifar10":
        return _cifar10(root, split, size)
    pictures = partial(Pictures, size=size, background=background, crop=crop, key=(name, split, boxes))
    if name == "flowers102":
        return _flowers102(root, split, pictures)
    if name == "celeba":
        return _celeba(root, split, pictures)
    return _cub200(root, split, pictures, boxes)


def _fashion_mnist(root: Path, split: str, size: int) -> Arrays:
    stem = {"train": "train", "test": "t10k"}[split] + "-images-idx3-ubyte"
    folders = (root, root / "FashionMNIST" / "raw")
    places = [folder / name for folder in folders for name in (stem, f"{stem}.gz")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise absent("fashion-mnist", f"{stem}.gz", root, stem)
    return Arrays(root, 1, size, (split,), (path,), lambda: iter([_drawings(path)]), pad=True)


def _drawings(path: Path) -> Tensor:
    """DamagedError if the file is: it has a checksum of its own, since it may have been packed by somebody else."""
    try:
        return read_idx_images(path)
    except ValueError as error:
        raise DamagedError(str(error)) from error


def _cifar10(root: Path, split: str, size: int) -> Arrays:
    names = [name for name in _CIFAR_MD5 if name.startswith("test" if split == "test" else "data")]
    archive = root if root.is_file() else root / "cifar-10-python.tar.gz"
    folder = root / "cifar-10-batches-py"
    if not folder.is_dir():
        folder = root
    files = tuple(folder / name for name in names)
    if files[0].is_file():  # the others are missed when they are read
        return Arrays(root, 3, size, (split,), files, lambda: map(_cifar_file, files))
    if not archive.is_file():
        raise absent("cifar10", "cifar-10-python.tar.gz", root, names[0])
    return Arrays(root, 3, size, (split,), (archive,), lambda: _cifar_archive(archive, names))


def _cifar_file(path: Path) -> Tensor:
    if not path.is_file():
        raise ValueError(f"data: there is no {path.name} in {printable(str(path.parent))}")
    images = read_cifar_batch(read_file(path), printable(str(path)))
    if md5_of(path) != _CIFAR_MD5[path.name]:
        print(f"data: {printable(str(path))} differs from the file that was published", file=sys.stderr)
    return images


def _cifar_archive(path: Path, names: list[str]) -> Iterator[Tensor]:
    if path.name != "cifar-10-python.tar.gz":
        raise ValueError(f"data: cifar10 is published as cifar-10-python.tar.gz, got {printable(str(path))}")
    check_whole("cifar10", path)
    batches = _texts(path, names)
    return (read_cifar_batch(batches[name], f"{name} in {printable(str(path))}") for name in names)


def _flowers102(root: Path, split: str, pictures: Callable[..., Pictures]) -> Pictures:
    found = _Found("flowers102", root, root / "flowers-102", "jpg", "102flowers.tgz", "jpg/")
    setid = found.folder / "setid.mat"
    if split != "all" and not setid.is_file():
        raise absent("flowers102", "setid.mat", found.folder)

    def chosen() -> dict[str, Crop]:
        found.check()
        return _every_flower() if split == "all" else _flowers_of(setid, split)

    beside = () if split == "all" else (setid,)
    return pictures(found.images, chosen=chosen, below=found.below, beside=beside)


def _every_flower() -> dict[str, Crop]:
    return {f"image_{i:05d}.jpg": None for i in range(1, FLOWERS + 1)}


def _flowers_of(setid: Path, split: str) -> dict[str, Crop]:
    from scipy.io import loadmat

    check_whole("flowers102", setid)
    numbers = loadmat(setid, squeeze_me=True)[{"train": "trnid", "val": "valid", "test": "tstid"}[split]]
    return {f"image_{int(i):05d}.jpg": None for i in np.atleast_1d(numbers)}


def _celeba(root: Path, split: str, pictures: Callable[..., Pictures]) -> Pictures:
    inner = "img_align_celeba"
    found = _Found("celeba", root, root / "celeba", inner, f"{inner}.zip", f"{inner}/")
    partition = found.folder / "list_eval_partition.txt"
    if not partition.is_file():
        raise absent("celeba", partition.name, found.folder)

    def chosen() -> dict[str, Crop]:
        found.check()
        return _faces_of(partition, split)

    return pictures(found.images, chosen=chosen, below=found.below, beside=(partition,))


def _faces_of(partition: Path, split: str) -> dict[str, Crop]:
    check_whole("celeba", partition)
    number = {"train": "0", "val": "1", "test": "2"}.get(split)
    rows = _table(read_file(partition), str(partition), 2)
    return {name: None for name, part in rows.items() if number in (None, part[0])}


def _cub200(root: Path, split: str, pictures: Callable[..., Pictures], boxes: bool) -> Pictures:
    inner = "CUB_200_2011"
    found = _Found("cub200", root, root / inner, "images", f"{inner}.tgz", f"{inner}/images/")
    beside = tuple(found.folder / name for name in _CUB_TEXTS) if found.images.is_dir() else ()
    missing = [file.name for file in beside if not file.is_file()]
    if missing:
        raise ValueError(f"data: cub200: there is no {missing[0]} in {printable(str(found.folder))}")

    def chosen() -> dict[str, Crop]:
        found.check()
        texts = {file.name: read_file(file) for file in beside} if beside else _texts(found.images, list(_CUB_TEXTS))
        return _birds_of(texts, str(found.folder if beside else found.images), split, boxes)

    return pictures(found.images, chosen=chosen, below=found.below, beside=beside)


def _birds_of(texts: Mapping[str, bytes], where: str, split: str, boxes: bool) -> dict[str, Crop]:
    """The images of a split, with their boxes if those are asked for; three tables number the images alike."""
    names, parts, places = (
        _table(texts[name], f"{name} in {where}", columns) for name, columns in zip(_CUB_TEXTS, (2, 2, 5), strict=True)
    )
    for table, name in ((parts, _CUB_TEXTS[1]), (places, _CUB_TEXTS[2])):
        if table.keys() != names.keys():
            odd = sorted(table.keys() ^ names.keys())[0]
            raise ValueError(f"data: {name} and images.txt in {printable(where)} differ in image {printable(odd)}")
    number = {"train": "1", "test": "0"}.get(split)
    return {names[i][0]: _box(places[i], i, where) if boxes else None for i in names if number in (None, parts[i][0])}


def _box(values: list[str], number: str, where: str) -> Crop:
    try:
        left, top, width, height = map(float, values)
    except ValueError:
        raise ValueError(
            f"data: bounding_boxes.txt in {printable(where)} has no four numbers for image {printable(number)}"
        ) from None
    return left, top, width, height


def _table(text: bytes, shown: str, columns: int) -> dict[str, list[str]]:
    """Rows of words by their first; ValueError if a row has another number of them, as the last of a cut file has."""
    rows: dict[str, list[str]] = {}
    for i, line in enumerate(text.decode("utf-8", "replace").splitlines()):
        words = line.split()
        if len(words) != columns:
            raise ValueError(f"data: line {i + 1} of {printable(shown)} has {len(words)} words, not {columns}")
        rows[words[0]] = words[1:]
    return rows


class _Found:
    """Where the images of a set lie below ``root``, which may be the set's folder, the one around it, or the archive.

    folder: the set's. inner: the images' folder in it. below: what the images' names begin with in the archive.
    """

    def __init__(self, name: str, root: Path, folder: Path, inner: str, archive: str, below: str) -> None:
        self._name, self._archive = name, archive
        self.folder = folder if folder.is_dir() else root
        if root.is_file():
            self.folder, places = root.parent, [root]
        else:
            places = [self.folder / inner, self.folder / archive, root / archive]
        found = [place for place in places if place.is_dir() or place.is_file()]
        if not found:
            raise absent(name, archive, root, inner)
        self.images = found[0]
        self.below = "" if self.images.is_dir() else below

    def check(self) -> None:
        """ValueError if the images are in an archive that is not the published one, whole."""
        if self.images.is_dir():
            return
        if self.images.name != self._archive:
            raise ValueError(f"data: {self._name} is published as {self._archive}, got {printable(str(self.images))}")
        check_whole(self._name, self.images)


def _texts(archive: Path, names: list[str]) -> dict[str, bytes]:
    """The files of these names in a folder of an archive; it is read until all are found."""
    found: dict[str, bytes] = {}

    def wanted(name: str) -> bool:
        parts = name.split("/")
        return len(parts) == 2 and parts[1] in names

    for member in walk_images(archive, LeftOut(), wanted):
        found[posixpath.basename(member.name)] = member.read()
        if len(found) == len(names):
            return found
    missing = [name for name in names if name not in found]
    raise ValueError(f"data: there is no {missing[0]} in {printable(str(archive))}")
