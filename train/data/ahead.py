"""Images that stay on the host, copied to the device before they are asked for."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from train.run.memory import available_bytes

SHARE = 0.5  # of the device's free memory that a whole set may take; the rest is for the game


def fits(images: Tensor, device: torch.device | str) -> bool:
    """Whether the images, as they are, should lie on the device as a whole."""
    return images.numel() * images.element_size() <= SHARE * available_bytes(device)


class Ahead:
    """Rows of ``images`` [M, ...] for ``device``, where those that will be asked for next can be told.

    A thread gathers them, so that a page of a mapped file that is not in memory delays nobody, into one of two buffers
    in pinned memory, and copies them on a stream of its own while the device computes.
    """

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self._images, self._device = images, device
        self._on_gpu = device.type == "cuda"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="copy-ahead")
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._buffers: list[tuple[Tensor, torch.cuda.Event | None]] = []
        self._next: tuple[Tensor, Future[tuple[Tensor, torch.cuda.Event | None]]] | None = None

    def start(self, rows: Tensor) -> None:
        """Begin to copy the images of these rows [n], which the next ``take`` will ask for."""
        self._next = rows, self._thread.submit(self._copy, rows)

    def take(self, rows: Tensor) -> Tensor:
        """The images [n, ...] of these rows [n], on the device, whether they were told before or not."""
        started, self._next = self._next, None
        if started is None or not torch.equal(started[0], rows):
            self.start(rows)
            return self.take(rows)
        batch, copied = started[1].result()
        if copied is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(copied)
            batch.record_stream(current)  # its memory is not given away while the current stream reads it
        return batch

    def _copy(self, rows: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """In the thread: the images of these rows on the device, and the event after which they are there."""
        buffer = self._buffer(len(rows))
        torch.index_select(self._images, 0, rows, out=buffer)
        if self._stream is None:
            return buffer, None
        with torch.cuda.stream(self._stream):
            batch = buffer.to(self._device, non_blocking=True)
            copied = self._stream.record_event()
        self._buffers.append((buffer, copied))
        return batch, copied

    def _buffer(self, n: int) -> Tensor:
        """Room for n images: pinned for a GPU, and the older of two that have been copied from."""
        if self._on_gpu and len(self._buffers) == 2:
            buffer, copied = self._buffers.pop(0)
            if len(buffer) == n and copied is not None:
                copied.synchronize()
                return buffer
        return torch.empty(n, *self._images.shape[1:], dtype=self._images.dtype, pin_memory=self._on_gpu)
