"""The files that a published set is made of: where they are, and whether they are whole."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from train.errors import ResourceError, amount, printable
from train.run.files import write_atomically

PATIENCE = 30.0  # seconds without an answer


class File(NamedTuple):
    """A file as its authors publish it."""

    name: str
    md5: str
    url: str
    """Where a person, or this module, gets it."""
    drive: str = ""
    """Its number at Google Drive, which needs the package gdown."""


FILES: dict[str, tuple[File, ...]] = {
    "fashion-mnist": tuple(
        File(name, md5, f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}")
        for name, md5 in (
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        )
    ),
    "cifar10": (
        File(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
    ),
    "flowers102": tuple(
        File(name, md5, f"https://www.robots.ox.ac.uk/~vgg/data/flowers/102/{name}")
        for name, md5 in (
            ("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
            ("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
        )
    ),
    "cub200": (
        File(
            "CUB_200_2011.tgz",
            "97eceeb196236b17998738112f37df78",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        ),
    ),
    "celeba": tuple(
        File(name, md5, "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", drive)
        for name, md5, drive in (
            ("img_align_celeba.zip", "00d2c5bc6d35e252742224ab0c1e8fcb", "0B7EVK8r0v71pZjFTYXZWM3FlRnM"),
            ("list_eval_partition.txt", "d32c9cbf5e040fd4025c592c306e6668", "0B7EVK8r0v71pY0NSMzRuSXJEVkk"),
        )
    ),
}


class DamagedError(ValueError):
    """A published file is cut or changed."""


def absent(name: str, file: str, folder: Path, unpacked: str = "") -> ValueError:
    """The error that ``file`` of the set ``name`` is not in ``folder``, with what to do about it.

    unpacked: what would do as well.
    """
    missing = f"{unpacked} or {file}" if unpacked else file
    return ValueError(
        f"data: {name}: there is no {missing} in {printable(str(folder))}: put {file} from "
        f"{_published(name, file).url} there, or add --data.download"
    )


def download(name: str, folder: Path) -> None:
    """Fetch the files of a set into ``folder``, but for those that are there and whole; each is checked by its MD5.

    ValueError in one line, naming the file and where to put it, if that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"data: {printable(str(folder))} cannot be made: {error.strerror}") from error
    for file in FILES[name]:
        path = folder / file.name
        if path.is_file() and md5_of(path) == file.md5:
            continue
        print(f"data: fetching {file.name} into {printable(str(folder))}", file=sys.stderr)
        try:
            with patience():
                write_atomically(path, lambda part, file=file: _fetch(file, part))  # type: ignore[misc]
        except ResourceError:  # the disk is full
            raise
        except Exception as error:  # urllib, torchvision and gdown each have their own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"data: {file.name} of {name} cannot be fetched ({printable(reason)}); put the file from {file.url} "
                f"into {printable(str(folder))}"
            ) from error


def check_whole(name: str, path: Path) -> None:
    """DamagedError if the published file at ``path`` is not what its authors published, as a cut download is not."""
    found, wanted = md5_of(path), _published(name, path.name).md5
    if found != wanted:
        raise DamagedError(
            f"data: {printable(str(path))} is cut or damaged: {amount(path.stat().st_size)} with the MD5 {found}, not "
            f"{wanted}; fetch it again, with --data.download or by hand"
        )


def md5_of(path: Path) -> str:
    """In hexadecimal; the sets are published with their MD5, which is no guard against malice."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _published(name: str, file: str) -> File:
    return next(known for known in FILES[name] if known.name == file)


def _fetch(file: File, path: Path) -> None:
    from torchvision.datasets import utils

    if file.drive:
        utils.download_file_from_google_drive(file.drive, path.parent, path.name, file.md5)
    else:
        utils.download_url(file.url, path.parent, path.name, file.md5)


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Within the block a server that does not answer for PATIENCE seconds is given up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
