"""Statistics of real images, computed once and kept on disk beside the decoded images."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from train.data.cache import STATISTICS, cache_folder
from train.data.datasets import evenly_spaced
from train.errors import ResourceError, printable
from train.run.files import sweep, write_atomically
from train.scores.extractors import Extractor, full_float32
from train.scores.metrics import Moments, moments, root
from train.scores.neighbours import Cloud, Radii, radii
from train.scores.progress import shown
from train.scores.protocol import COMPARED

PASS = 256  # images between two looks at the clock
KEY = ("definition", "extractor", "weights sha256", "resize", "reference", "neighbours", "fingerprint", "size")


class RealStatistics(NamedTuple):
    """What scores need of the real images; on the extractor's device."""

    features: Tensor
    """float32 [M, D]."""
    moments: Moments
    """Of all M."""
    root: Tensor
    """F [D, D] with F F^T the covariance."""
    radii: Radii
    """Of evenly spaced ones, as many as the protocol's "neighbours"."""


def real_statistics(
    images: Tensor, extractor: Extractor, protocol: Mapping[str, Any], cache: str | None
) -> RealStatistics:
    """Statistics of the protocol's "reference" evenly spaced ones of uint8 images [N, C, H, W].

    They are read from the cache folder, or computed and put there. Files are whole or absent, so processes may compute
    the same at once; a damaged file is made again. Where none can be written, which is said, they are computed anew
    each time.
    """
    key = json.dumps([*(protocol[name] for name in KEY), *(protocol["versions"][name] for name in COMPARED)])
    file = cache_folder(cache) / STATISTICS / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    known = _read(file, key)
    if known is None:
        writable = _is_writable(file.parent)  # asked before the long part
        print(f"scores: {protocol['reference']:,} real images pass through {extractor.name}, once", file=sys.stderr)
        some = evenly_spaced(images, protocol["reference"])
        known = {name: value.contiguous() for name, value in _computed(some, extractor, protocol["neighbours"]).items()}
        if writable:
            _write(file, known, {"key": key, "extractor": extractor.name})
    tensors = {name: value.to(extractor.device) for name, value in known.items()}
    return RealStatistics(
        tensors["features"],
        Moments(tensors["mean"], tensors["covariance"]),
        tensors["root"],
        Radii(tensors["third"], tensors["fifth"]),
    )


def _computed(images: Tensor, extractor: Extractor, neighbours: int) -> dict[str, Tensor]:
    batches = shown(images.split(PASS), -(-len(images) // PASS), "real images")
    features = torch.cat([extractor.features(batch).features for batch in batches])
    with _one_thread(), full_float32():
        gaussian = moments(features)
        some = evenly_spaced(features, neighbours)
        found = radii(Cloud(some, some.double().mean(0).float()))
        return {  # contiguous, as they will be when they are read: the scores are the same bit for bit
            "features": features,
            "mean": gaussian.mean,
            "covariance": gaussian.covariance,
            "root": root(gaussian.covariance).contiguous(),
            "third": found.third,
            "fifth": found.fifth,
        }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order: whoever makes the statistics, however many threads it has, they are the same bit for bit.

    A run has all threads when it begins and its own number when it is resumed, and perhaps has to make them anew.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(file: Path, key: str) -> dict[str, Tensor] | None:
    """The tensors in ``file``, or None when it is missing or damaged."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as archive:
            found = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - no mapping
            described = archive.metadata()
        if described["key"] == key and described["sha256"] == _digest(found):
            return found
    except (SafetensorError, OSError, LookupError, TypeError, ValueError):
        pass
    print(f"scores: the cache {printable(str(file))} is damaged and will be made again", file=sys.stderr)
    return None


def _is_writable(folder: Path) -> bool:
    """Whether statistics can be kept in ``folder``; if not, it is said."""
    try:
        folder.mkdir(exist_ok=True)
        if os.access(folder, os.W_OK):
            return True
        reason = "no permission"
    except OSError as error:
        reason = str(error)
    _not_kept(folder, reason)
    return False


def _not_kept(path: Path, reason: object) -> None:
    print(f"scores: statistics of real images are not kept in {printable(str(path))}: {reason}", file=sys.stderr)


def _write(file: Path, tensors: Mapping[str, Tensor], described: Mapping[str, str]) -> None:
    kept = {name: value.cpu() for name, value in tensors.items()}
    metadata = {**described, "sha256": _digest(kept)}
    try:
        write_atomically(file, lambda temporary: save_file(kept, temporary, metadata=metadata))
        sweep(file.parent)
    except (OSError, ResourceError) as error:  # hours of work need not be lost for want of a cache
        _not_kept(file, error)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()
