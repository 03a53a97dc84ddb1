"""Samples as files, whole or absent: a folder of PNG files, a tar of them, or an npz with one array."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from train.errors import printable
from train.run.files import new_folder, write_atomically

Array = np.ndarray
Form = Literal["folder", "npz", "tar"]
OTHER_FILES = (".zip", ".gz", ".tgz", ".xz", ".bz2", ".npy", ".pt", ".safetensors", ".png", ".jpg", ".jpeg", ".gif")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip archive can say


def form_of(out: Path) -> Form:
    """What ``out`` is to become, by its suffix; ValueError if that is another file's, or if something is there."""
    shown, suffix = printable(str(out)), out.suffix.lower()
    if suffix in OTHER_FILES:
        raise ValueError(f"samples: out must be a folder, FILE.npz or FILE.tar, got {shown}")
    form: Form = "npz" if suffix == ".npz" else "tar" if suffix == ".tar" else "folder"
    if form == "folder" and out.is_dir() and not out.is_symlink():
        if any(out.iterdir()):
            raise ValueError(f"samples: out: the folder {shown} is not empty; choose another one")
    elif out.exists() or out.is_symlink():
        raise ValueError(f"samples: out: {shown} exists; choose another name")
    return form


def write_images(out: Path, form: Form, n: int, shape: tuple[int, ...], images: Iterable[Array]) -> None:
    """Write n images of ``shape`` (C, H, W), given as uint8 batches [any, H, W, C], to ``out``.

    folder and tar: PNG files whose names sort by number, 000000.png and so on. tar: the same bytes for the same images.
    npz: see ``write_npz``. Memory is that of a batch.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    channels, height, width = shape
    if form == "npz":
        write_npz(out, (n, height, width, channels), np.dtype(np.uint8), images)
    elif form == "tar":
        write_atomically(out, lambda temporary: _write_tar(temporary, _named_pngs(n, images)))
    else:
        _write_folder(out, _named_pngs(n, images))


def write_npz(out: Path, shape: tuple[int, ...], dtype: np.dtype, batches: Iterable[Array]) -> None:
    """Write ``batches``, which joined are an array of ``shape``, as ``arr_0`` of an npz, as numpy.savez would.

    Uncompressed, and the same bytes for the same numbers.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}

    def write(temporary: Path) -> None:
        name = zipfile.ZipInfo("arr_0.npy", EPOCH)
        with zipfile.ZipFile(temporary, "w") as archive, archive.open(name, "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            for batch in batches:
                entry.write(np.ascontiguousarray(batch, dtype).data)

    write_atomically(out, write)


def _named_pngs(n: int, images: Iterable[Array]) -> Iterator[tuple[str, bytes]]:
    digits = max(6, len(str(n - 1)))
    number = 0
    for batch in images:
        for image in batch:
            file = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG")
            yield f"{number:0{digits}d}.png", file.getvalue()
            number += 1


def _write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """No dates, owners or modes of the moment."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            archive.members = []  # type: ignore[attr-defined]  # headers that are written are not kept


def _write_folder(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """The folder gets its name when the last file is in it."""
    with new_folder(path) as folder:
        for name, content in files:
            (folder / name).write_bytes(content)
