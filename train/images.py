"""A folder or archive of images as one uint8 tensor: decoded once, then read from a cache file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from train.members import ArchiveError, folder_files, walk_images

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no format that starts other programs
CACHE_VERSION = "1"  # raised when decoding changes
SHOWN = 20  # unreadable images named one by one
IN_FLIGHT = 256  # files read ahead of the decoders
SMALL_BYTES = 16 * 1024  # below this the interpreter's lock makes threads slower than none (0.6x at 32 x 32 pixels)


def load_folder(path: Path, size: int, *, subset: str | None = None, cache: str | None = None) -> Tensor:
    """The images below ``path`` (a folder, tar or zip), sorted by name: uint8 [M, 3, size, size], RGB.

    Each image is turned as its EXIF tag says, scaled (bicubic, antialiased) so that its shorter side has ``size``
    pixels, and cropped to its centre. subset keeps images that lie below a folder of that name. An unreadable image,
    or one beyond PIL's decompression limit, is named on stderr and skipped. Raises ValueError when there is no image.
    """
    file = _cache_folder(cache) / f"{path.name.split('.')[0]}-{size}px-{_key(path, subset)}.safetensors"
    images, skipped = _read_cache(file)
    if images is None:
        names, images, skipped = decode_all(path, size, subset)
        _warn_of_mixed_splits(names, subset)
        _write_cache(file, images, skipped)
    for line in skipped[:SHOWN]:
        print(f"data: skipped {line}", file=sys.stderr)
    more = f", {len(skipped):,} unreadable ones skipped" if skipped else ""
    print(f"data: {len(images):,} images of {size} x {size} pixels from {path}{more}; cache {file}", file=sys.stderr)
    return images


def decode_all(path: Path, size: int, subset: str | None) -> tuple[list[str], Tensor, list[str]]:
    """Names, images uint8 [M, 3, size, size] in the names' order, and one line for each image that was skipped."""
    decoded: list[tuple[str, np.ndarray]] = []
    skipped: list[str] = []
    folders: set[str] = set()
    for name, outcome in _decoded(path, size, subset, folders):
        if isinstance(outcome, Exception):
            skipped.append(f"{name}: {outcome}")
        else:
            decoded.append((name, outcome))
    if not decoded:
        raise ValueError(_why_empty(path, subset, folders, skipped))
    decoded.sort(key=lambda pair: pair[0])
    images = torch.empty(len(decoded), 3, size, size, dtype=torch.uint8)
    for row, (_, pixels) in zip(images, decoded, strict=True):
        row.copy_(torch.from_numpy(pixels).permute(2, 0, 1))
    return [name for name, _ in decoded], images, sorted(skipped)


def decode(data: bytes, size: int) -> np.ndarray:
    """One image file -> uint8 [size, size, 3]."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        image: Image.Image = opened
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # PIL would clip 16-bit grey at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError(f"its pixels have no fixed range (mode {image.mode})")
        image = image.convert("RGB")
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _decoded(
    path: Path, size: int, subset: str | None, folders: set[str]
) -> Iterator[tuple[str, np.ndarray | Exception]]:
    """Reads here, decodes large files in others, shows the progress, adds the folders it sees to ``folders``."""
    columns = (TextColumn("decoded {task.fields[count]:,} images"), BarColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    pending: list[tuple[str, Callable[[], np.ndarray]]] = []
    with progress, warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # odd metadata is no concern of ours
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        task = progress.add_task("", total=1.0, count=0)
        count = 0
        for member in walk_images(path):
            parents = PurePosixPath(member.name).parts[:-1]
            folders.update(parents)
            if subset is not None and subset not in parents:
                continue
            try:
                work = partial(decode, member.read(), size)
            except ArchiveError:
                raise
            except Exception as error:  # no permission, an encrypted or damaged member of a zip
                yield member.name, error
                continue
            pending.append((member.name, work if len(work.args[0]) < SMALL_BYTES else pool.submit(work).result))
            if len(pending) == IN_FLIGHT:
                yield from map(_outcome, pending)
                count += len(pending)
                pending.clear()
                progress.update(task, completed=member.done, count=count)
        yield from map(_outcome, pending)
        progress.update(task, completed=1.0, count=count + len(pending))


def _outcome(item: tuple[str, Callable[[], np.ndarray]]) -> tuple[str, np.ndarray | Exception]:
    name, result = item
    try:
        return name, result()
    except Exception as error:  # a damaged image can raise nearly anything
        return name, error


def _why_empty(path: Path, subset: str | None, folders: set[str], skipped: list[str]) -> str:
    if skipped:
        return f"data: none of the {len(skipped)} images in {path} is readable, the first being {skipped[0]}"
    if subset is not None and folders:
        return f"data: no images below a folder {subset!r} in {path}; its folders: {', '.join(sorted(folders)[:SHOWN])}"
    return f"data: no images in {path}"


def _warn_of_mixed_splits(names: list[str], subset: str | None) -> None:
    parts = {part for name in names for part in PurePosixPath(name).parts[:-1]}
    if subset is None and {"train", "test"} <= parts:
        print("data: train and test images are used together; subset=train keeps to the former", file=sys.stderr)


def _cache_folder(cache: str | None) -> Path:
    """The folder, made if need be; whether it can be written is asked before hours of decoding, not after."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "otkernels"
    folder = (Path(cache) if cache is not None else default).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission")
    except OSError as error:
        raise ValueError(f"data: the cache folder {folder} cannot be written: {error}") from error
    return folder


def _key(path: Path, subset: str | None) -> str:
    """Changes when decoding, the subset, or any file's name, size or modification time change."""
    if path.is_dir():
        files = [(name, (path / name).stat()) for name in folder_files(path)]
    else:
        files = [(path.name, path.stat())]
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
    text = json.dumps([CACHE_VERSION, str(path.resolve()), subset, listing])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_cache(file: Path) -> tuple[Tensor | None, list[str]]:
    """The cached images and skipped names, or None when there are none or the file is damaged."""
    if not file.is_file():
        return None, []
    try:
        with safe_open(file, framework="pt") as archive:
            images, notes = archive.get_tensor("images"), archive.metadata()
        intact = int(notes["crc32"]) == _checksum(images)
        skipped = json.loads(notes["skipped"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        intact = False
    if not intact:
        print(f"data: the cache {file} is damaged and will be made again", file=sys.stderr)
        return None, []
    return images, skipped


def _write_cache(file: Path, images: Tensor, skipped: list[str]) -> None:
    """Written beside its place and renamed, so that a cache is whole or absent."""
    notes = {"crc32": str(_checksum(images)), "skipped": json.dumps(skipped)}
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        save_file({"images": images}, unfinished, metadata=notes)
        unfinished.replace(file)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise ValueError(f"data: the cache {file} cannot be written: {error}") from error


def _checksum(images: Tensor) -> int:
    return zlib.crc32(images.numpy().data)
