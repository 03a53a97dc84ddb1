"""Files of weights: found or downloaded, known by their SHA-256, and read without running anything in them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from train.data.download import patience
from train.errors import printable


@dataclass(frozen=True)
class Published:
    """Weights as their authors give them out. sha256: None where they publish no hash."""

    url: str
    sha256: str | None

    @property
    def path(self) -> Path:
        """Where PyTorch's hub keeps them."""
        return Path(torch.hub.get_dir(), "checkpoints", self.url.rpartition("/")[2])

    def fetch(self) -> Path:
        """The file, downloaded if it is missing; ValueError if that fails."""
        if not self.path.is_file():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with patience():
                    torch.hub.download_url_to_file(self.url, str(self.path), hash_prefix=self.sha256)
            except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the hash of what came is another
                raise ValueError(
                    f"scores: {self.url} cannot be downloaded: {error}; put the file at {self.path}, or name it by "
                    "weights"
                ) from error
        return self.path


def read_weights(path: Path, expected: str | None) -> tuple[dict[str, Tensor], str]:
    """The tensors of a safetensors or PyTorch file by name, and the SHA-256 of its bytes in hexadecimal.

    expected: the SHA-256 that the file must have; None allows any. A file is never unpickled beyond tensors. ValueError
    in one line if it is missing, another one or damaged.
    """
    shown = printable(str(path))
    if not path.is_file():
        raise ValueError(f"scores: there is no file of weights {shown}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if expected is not None and digest != expected:
        raise ValueError(f"scores: {shown} has the SHA-256 {digest}, but the published weights have {expected}")
    try:
        if path.suffix == ".safetensors":
            found = load_safetensors(content)
        else:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no weights make a reader raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        advice = "remove it if it is a download that was cut"
        raise ValueError(f"scores: {shown} holds no weights that can be read: {printable(reason)}; {advice}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"scores: {shown} must hold tensors by name")
    return {str(name): value for name, value in found.items()}, digest


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """ValueError if the weights from ``path`` do not fit the network that they are given to within the block."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"scores: {printable(str(path))} holds the weights of another network: {reason}") from error


def check_finite(network: nn.Module, path: Path) -> None:
    """ValueError if a weight of ``network``, from ``path``, is NaN or infinite."""
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ValueError(f"scores: {printable(str(path))} holds NaN or infinite weights")
