"""Networks that turn images into features: Inception-v3, DINOv2 ViT-L/14 and EfficientNet-lite2."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.errors import printable
from train.scores.weights import read_weights

CPU_BATCH = 2  # layers that fit into the caches; more at once is up to a third slower


class Features(NamedTuple):
    """What an extractor sees in n images."""

    features: Tensor
    """float32 [n, D]."""
    logits: Tensor | None
    """float32 [n, classes] of the extractor's classifier, for the inception score; None where it has none."""


class Extractor:
    """A frozen network in eval mode on ``device``.

    name: as in ScoreConfig. digest: SHA-256 of the file of its weights. resize: how images reach its input size.
    dim: number of features. label: what its Frechet distance is called, which says so if the weights are not the
    published ones.
    """

    def __init__(
        self,
        kind: Kind,
        network: nn.Module,
        digest: str,
        device: torch.device,
        batch_size: int,
        *,
        other_weights: bool = False,
    ) -> None:
        self.name, self.resize = kind.name, kind.resize
        self.label = f"FID[{kind.name}, other weights]" if other_weights else kind.label
        self.dim, self.digest, self.device = kind.dim, digest, device
        self._batch = batch_size if device.type != "cpu" else CPU_BATCH
        self._network = network.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Features:
        """Features of uint8 images [n, 1 or 3, H, W] on any device; grey images are repeated as three channels.

        In float32 throughout. The result does not depend on how many images are passed at once, but for rounding.
        ValueError for other images.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
            raise ValueError(
                f"scores: images must be uint8 [n > 0, 1 or 3, H, W], got {images.dtype} {list(images.shape)}"
            )
        found = [self._pass(batch.to(self.device).expand(-1, 3, -1, -1)) for batch in images.split(self._batch)]
        logits = [part.logits for part in found if part.logits is not None]
        return Features(torch.cat([part.features for part in found]), torch.cat(logits) if logits else None)

    @torch.inference_mode()
    def _pass(self, images: Tensor) -> Features:
        with full_float32():
            features, logits = self._network(images)
        return Features(features.float(), None if logits is None else logits.float())


@dataclass(frozen=True)
class Kind:
    """What is known of an extractor before its weights are read.

    module: which has ``build(weights, path, device)``, the network that maps uint8 images [n, 3, H, W] to (features,
    logits or None), ``published()``, the path of the published weights, and ``SHA256``, theirs, or None where their
    authors give none. extra: the one that brings its packages.
    """

    name: str
    label: str
    module: str
    dim: int
    resize: str
    extra: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "inception",
            "FID",
            "train.scores.inception",
            2048,
            "bilinear to 299 px as TensorFlow 1 did, not antialiased (torch-fidelity)",
            "train",
        ),
        Kind(
            "dinov2",
            "FD-DINOv2",
            "train.scores.dinov2",
            1024,
            "bicubic to 224 px, antialiased, rounded to 8 bits",
            "train",
        ),
        Kind(
            "efficientnet-lite2",
            "FID[efficientnet-lite2]",
            "train.scores.efficientnet",
            1280,
            "bicubic to 260 px, antialiased, rounded to 8 bits",
            "scores",
        ),
    )
}


def load_extractor(
    name: str, weights: str | Path | None = None, device: torch.device | str = "cpu", batch_size: int = 64
) -> Extractor:
    """The extractor of that name, ready to use.

    weights: a file of its weights; None takes the published ones, whose SHA-256 is checked before they are read. Of a
    file with another SHA-256 stderr and the scores' names say so.
    ValueError in one line for a wrong name, a missing package, and weights that are missing, damaged or another
    network's.
    """
    if name not in KINDS:
        raise ValueError(f"scores: extractor must be one of {', '.join(KINDS)}, got {name!r}")
    kind = KINDS[name]
    try:
        module = importlib.import_module(kind.module)
    except ImportError as error:
        raise ValueError(f"scores: {name} needs {error.name}; pip install -e '.[{kind.extra}]' brings it") from error
    path: Path = module.published() if weights is None else Path(weights)
    published: str | None = module.SHA256
    tensors, digest = read_weights(path, published if weights is None else None)
    build: Callable[[dict[str, Tensor], Path, torch.device], nn.Module] = module.build
    place = torch.device(device)
    network, other = build(tensors, path, place).to(place), published not in (None, digest)
    extractor = Extractor(kind, network, digest, place, batch_size, other_weights=other)
    if other:
        print(
            f"scores: {printable(str(path))} is not the published file of {name}'s weights (its SHA-256 is another); "
            f"the scores are called {extractor.label} and compare with those of the same file alone",
            file=sys.stderr,
        )
    return extractor


def bicubic(images: Tensor, size: int) -> Tensor:
    """uint8 [n, C, H, W] -> float32 [n, C, size, size], 0..255, as PIL's bicubic resize of 8-bit images has it."""
    if images.shape[-2:] == (size, size):
        return images.float()
    resized = nn.functional.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255)


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and products in float32 on a GPU too, where PyTorch rounds convolutions to TF32 unless it is told
    not to, and products if it is told to."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
