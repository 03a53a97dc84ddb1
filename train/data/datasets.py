"""Data sets as a loop's source sees them: batches on a device, and a position that a checkpoint can hold.

An image set is one uint8 tensor, on the device or ahead of it on the host, and a seeded permutation per epoch; toy
points are drawn on the fly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from train.data.ahead import Ahead
from train.data.distributions import GaussianMixture
from train.data.fingerprint import image_fingerprint

ALL = slice(None)


class Dataset(Protocol):
    """An endless, resumable stream of training samples."""

    name: str
    shape: tuple[int, ...]
    target: GaussianMixture | None

    @property
    def size(self) -> int | None:
        """The number of samples; None where they are drawn on the fly."""

    def with_seed(self, seed: int) -> Dataset:
        """The same set with the stream of another seed, at its start; this one's stream does not move."""

    def batch(self, n: int, own: slice = ALL) -> Tensor:
        """The next n samples [n, *shape], float32; images lie in [-1, 1]. own: those rows of them alone."""

    def preview(self, n: int) -> Tensor:
        """n samples, the same at each call, for pictures; the stream does not move."""

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream: numbers, strings and tensors only."""

    def load_state_dict(self, state: Mapping[str, Any], *, allow_other: bool = False) -> None:
        """Continue bit for bit where ``state`` was taken; ValueError if it belongs to another data set.

        allow_other: images that differ, but have the same shape, begin a new epoch instead.
        """


class PointSet:
    """Independent draws from a toy target; the position is the state of its random generator.

    limit: draw from a fixed set of that many points instead, each batch without repetition: a batch of ``limit`` points
    is the whole set.
    """

    def __init__(
        self, target: GaussianMixture, device: torch.device | str, seed: int, limit: int | None = None
    ) -> None:
        self.name = target.name
        self.shape: tuple[int, ...] = (target.dim,)
        self.target: GaussianMixture | None = target
        self._law = target
        self._seed = seed
        self._generator = torch.Generator(device).manual_seed(stream_seed(seed, 0))
        self.points = None if limit is None else self._fixed(2, limit)  # [limit, dim]

    @property
    def size(self) -> int | None:
        """See Dataset."""
        return None if self.points is None else len(self.points)

    def with_seed(self, seed: int) -> PointSet:
        """See Dataset."""
        return PointSet(self._law, self._generator.device, seed, self.size)

    def batch(self, n: int, own: slice = ALL) -> Tensor:
        """The next n points [n, dim], or the rows ``own`` of them."""
        _check_count("batch", n)
        if self.points is None:
            return self._law.sample(n, self._generator)[own]
        if n > len(self.points):
            raise ValueError(f"data: {self.name} is limited to {len(self.points)} points, a batch of {n} was asked for")
        order = torch.randperm(len(self.points), generator=self._generator, device=self._generator.device)
        return self.points[order[:n][own]]

    def preview(self, n: int) -> Tensor:
        """n points [n, dim] of a stream of their own."""
        _check_count("preview", n)
        return self._fixed(1, n)

    def _fixed(self, stream: int, n: int) -> Tensor:
        generator = torch.Generator(self._generator.device).manual_seed(stream_seed(self._seed, stream))
        return self._law.sample(n, generator)

    def state_dict(self) -> dict[str, Any]:
        """Name, number of fixed points, seed, the generator's state and the type of device it belongs to."""
        return {
            "name": self.name,
            "limit": self.size,
            "seed": self._seed,
            "device": self._generator.device.type,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, allow_other: bool = False) -> None:
        """See Dataset; a generator's state does not carry over from a CPU to a GPU."""
        ours = self.state_dict()
        for what in ("name", "device", "seed"):
            _check_same(what, ours[what], state.get(what))
        _check_same("limit", ours["limit"], state.get("limit", ours["limit"]))  # older states have none
        try:
            self._generator.set_state(state["generator"].cpu())
        except (KeyError, AttributeError, RuntimeError, TypeError) as error:
            raise ValueError("data: the saved state of the random generator is damaged") from error


class ImageSet:
    """Images [M, C, H, W] (uint8), each seen once per epoch in an order drawn from (seed, epoch).

    A batch may straddle two epochs. The permutation follows from seed and epoch, so the position is three integers.
    fingerprint: of the images in their order, by which a resumed run knows them (default: it is computed). device: of
    the batches (default: where the images are). Images that stay behind on the host are copied ahead of their use.
    """

    target: GaussianMixture | None = None

    def __init__(
        self,
        name: str,
        images: Tensor,
        seed: int,
        *,
        device: torch.device | str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(f"data: images must be uint8 [M > 0, C, H, W], got {images.dtype} {list(images.shape)}")
        self.name = name
        self.images = images
        self.shape: tuple[int, ...] = tuple(images.shape[1:])
        self.fingerprint = image_fingerprint(images) if fingerprint is None else fingerprint
        self._device = images.device if device is None else torch.device(device)
        self._ahead = None if images.device.type == self._device.type else Ahead(images, self._device)
        self._seed = seed
        self._epoch = self._position = 0
        self._orders: dict[int, Tensor] = {}

    @property
    def size(self) -> int:
        """See Dataset."""
        return len(self.images)

    def with_seed(self, seed: int) -> ImageSet:
        """See Dataset; the images are shared."""
        return ImageSet(self.name, self.images, seed, device=self._device, fingerprint=self.fingerprint)

    def batch(self, n: int, own: slice = ALL) -> Tensor:
        """The next n images [n, C, H, W], float32 in [-1, 1], or the rows ``own`` of them."""
        _check_count("batch", n)
        rows, self._epoch, self._position = self._walk(n)
        if self._ahead is None:
            return to_float(self.images[rows[own]])
        batch = to_float(self._ahead.take(rows[own]))
        self._ahead.start(self._walk(n)[0][own])
        return batch

    def _walk(self, n: int) -> tuple[Tensor, int, int]:
        """The next n rows [n] of the images, and the epoch and position after them; nothing moves."""
        epoch, position, pieces = self._epoch, self._position, []
        while n > 0:
            if position == len(self.images):
                epoch, position = epoch + 1, 0
            pieces.append(self._order(epoch)[position : position + n])
            position += len(pieces[-1])
            n -= len(pieces[-1])
        return torch.cat(pieces), epoch, position

    def _order(self, epoch: int) -> Tensor:
        """The permutation [M] of an epoch, where the images are; drawn on the CPU: one order for every device."""
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(stream_seed(self._seed, epoch))
            self._orders = {known: order for known, order in self._orders.items() if known == epoch - 1}
            self._orders[epoch] = torch.randperm(len(self.images), generator=generator).to(self.images.device)
        return self._orders[epoch]

    def preview(self, n: int) -> Tensor:
        """n images [n, C, H, W], evenly spaced over the set; n may not exceed the number of images."""
        _check_count("preview", n)
        if n > len(self.images):
            raise ValueError(f"data: {self.name} has {len(self.images)} images, a preview of {n} was asked for")
        return to_float(evenly_spaced(self.images, n).to(self._device))

    def state_dict(self) -> dict[str, Any]:
        """Name, the images' shape and fingerprint, seed, epoch and the position in the epoch."""
        return {
            "name": self.name,
            "images": list(self.images.shape),
            "fingerprint": self.fingerprint,
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, allow_other: bool = False) -> None:
        """See Dataset."""
        _check_same("name", self.name, state.get("name"))
        _check_same("seed", self._seed, state.get("seed"))
        shape: Any = state.get("images")
        epoch, position = (_count(state.get(name)) for name in ("epoch", "position"))
        sizes = isinstance(shape, list | tuple) and len(shape) == 4 and min(map(_count, shape)) >= 0
        if not sizes or epoch < 0 or not 0 <= position <= shape[0]:
            raise ValueError("data: the saved position is damaged")
        _check_same("images of shape", list(self.shape), list(shape[1:]))
        known = state.get("fingerprint", self.fingerprint)  # older states have none
        if len(self.images) == shape[0] and known == self.fingerprint:
            self._epoch, self._position = epoch, position
        elif allow_other:
            print(f"data: the run goes on with other images: {shape[0]} before, {self.size} now", flush=True)
            self._epoch, self._position = epoch + 1, 0
        else:
            raise ValueError(
                f"data: the run was trained on {shape[0]} other images than these {self.size}; --other-data goes on "
                "with these"
            )


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def evenly_spaced(images: Tensor, n: int) -> Tensor:
    """n of the M rows, the i-th being row floor(i M / n); n <= M. All of them are no copy."""
    if n == len(images):
        return images
    return images[torch.arange(n, device=images.device) * len(images) // n]


def stream_seed(seed: int, stream: int) -> int:
    """A 64-bit seed for one of the independent streams of ``seed``."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0])


def _check_count(what: str, n: int) -> None:
    if n < 1:
        raise ValueError(f"data: {what} needs n >= 1, got {n}")


def _count(value: object) -> int:
    """A whole number that is not negative; -1 for anything else."""
    return value if type(value) is int and value >= 0 else -1


def _check_same(what: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise ValueError(f"data: the saved position is for {what} {theirs}, this data set has {ours}")
