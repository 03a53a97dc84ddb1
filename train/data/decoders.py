"""Image files decoded on all cores: by processes, since the interpreter's lock holds threads back.

Each decoder is a plain child process that imports Pillow and NumPy alone. It is neither forked from a process that
holds PyTorch's threads or a GPU, nor does it run the parent's main module again, as multiprocessing's would.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from train.data.archives import ArchiveError
from train.data.decode import Crop, Decoded
from train.data.worker import READY, Outcome, attempt, strict
from train.errors import TrainingError

START_AFTER = 0.2  # seconds of decoding here before processes are started, which takes about as long
MOST_FILES = 128  # that one request holds
PIPE_BYTES = 2**20  # so that a decoder need not wait until its reply is read
MOST_BYTES = 2 * 2**20  # of a request and its reply, after which it takes no further file
MOST_BYTES_AHEAD = 64 * 2**20  # of requests that are not answered and their replies, after which none is read
_ROOT = Path(__file__).resolve().parents[2]
_COMMAND = "import sys; sys.path[0] = sys.argv[1]; from train.data.worker import main; main()"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Item(NamedTuple):
    """An image file to decode: ``read`` gives its bytes, as reading ``file`` does where it has one."""

    name: str
    read: Callable[[], bytes]
    file: str | None = None
    crop: Crop = None


Request = list[tuple[Item, bytes | str | None]]  # with the bytes, or why there are none, of what lies in no file


def decode_items(items: Iterable[Item], size: int, background: str) -> Iterator[tuple[str, Outcome]]:
    """Each item's name with its image or why it cannot be read, in their order.

    Items are asked for a bounded number of bytes ahead. An image that kills its decoder is one that cannot be read; in
    the first moments, before there are decoders, and on one core it takes this process with it.
    """
    cores = _cores()
    pool: _Pool | None = None
    started = time.monotonic()
    pending: deque[tuple[list[str], int, Future[list[Outcome]]]] = deque()
    try:
        pixels = 3 * size * size
        for request in _requests(items, pixels):
            if pool is None and cores > 1 and time.monotonic() - started >= START_AFTER:
                pool = _Pool(cores, size, background)
            if pool is None:
                with strict():
                    outcomes = [_here(item, data, size, background) for item, data in request]
                names = [item.name for item, _ in request]
                del request  # or its files would stay in memory beside the next ones
                yield from zip(names, outcomes, strict=True)
                continue
            pending.append(([item.name for item, _ in request], _held(request, pixels), pool.submit(request)))
            del request
            while len(pending) > 2 * cores or sum(held for _, held, _ in pending) > MOST_BYTES_AHEAD:
                yield from _answers(pending)
        while pending:
            yield from _answers(pending)
    finally:
        if pool is not None:
            pool.close()


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _requests(items: Iterable[Item], pixels: int) -> Iterator[Request]:
    """Items in growing groups, so that the first images, which may be large, do not keep one core for long.

    pixels: bytes of a decoded image.
    """
    request: Request = []
    most, held = 1, 0
    for item in items:
        data = None if item.file is not None else _read(item)
        request.append((item, data))
        held += pixels + (0 if data is None else len(data))
        del data
        if len(request) == most or held >= MOST_BYTES:
            yield request
            request, most, held = [], min(MOST_FILES, 2 * most), 0
    if request:
        yield request


def _read(item: Item) -> bytes | str:
    try:
        return item.read()
    except ArchiveError:
        raise
    except Exception as error:  # no permission, an encrypted or damaged member of a zip
        return str(error) or type(error).__name__


def _held(request: Request, pixels: int) -> int:
    """Bytes of a request and of its reply."""
    return sum(pixels + (len(data) if isinstance(data, bytes) else 0) for _, data in request)


def _here(item: Item, data: bytes | str | None, size: int, background: str) -> Outcome:
    if isinstance(data, str):
        return data
    return attempt(item.read if data is None else lambda: data, size, background, item.crop)


def _answers(pending: deque[tuple[list[str], int, Future[list[Outcome]]]]) -> Iterator[tuple[str, Outcome]]:
    """Those of the oldest request, which is pending no more."""
    names, _, answer = pending.popleft()
    yield from zip(names, answer.result(), strict=True)


class _Died(Exception):  # noqa: N818 - it says what happened
    """The decoder is gone."""


def _ignore_ctrl_c() -> None:
    """In this thread and, from their first instruction on, in the processes that it starts: Ctrl-C is the parent's."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


class _Pool:
    """Decoders, and for each a thread that asks it and waits."""

    def __init__(self, count: int, size: int, background: str) -> None:
        self._how = (size, background)
        self._closed = False
        self._own = threading.local()
        self._decoders: set[_Decoder] = set()
        self._threads = ThreadPoolExecutor(count, initializer=_ignore_ctrl_c)

    def submit(self, request: Request) -> Future[list[Outcome]]:
        return self._threads.submit(self._ask, request)

    def close(self) -> None:
        """End the decoders, whatever they are at."""
        self._closed = True
        for decoder in list(self._decoders):
            decoder.end()
        self._threads.shutdown(cancel_futures=True)
        for decoder in list(self._decoders):  # started meanwhile
            decoder.end()

    def _ask(self, request: Request) -> list[Outcome]:
        readable = [(item, data) for item, data in request if not isinstance(data, str)]
        answers = iter(self._decoded(readable))
        return [data if isinstance(data, str) else next(answers) for _, data in request]

    def _decoded(self, request: Sequence[tuple[Item, Any]]) -> list[Outcome]:
        """What the thread's decoder says; if it dies, one image after another, to find the one that kills it."""
        if not hasattr(self._own, "decoder"):
            self._own.decoder = _Decoder()
            self._decoders.add(self._own.decoder)
        try:
            return self._own.decoder.ask(request, *self._how)
        except _Died:
            how = self._own.decoder.end(patience=1.0)
            self._decoders.discard(self._own.decoder)
            del self._own.decoder
            if self._closed:
                raise
            if len(request) == 1:
                return [f"its decoder died ({how})"]
            return [outcome for part in request for outcome in self._decoded([part])]


class _Decoder:
    """A process that runs ``train.data.worker``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
            pipesize=PIPE_BYTES,
        )
        self._to, self._back = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        if self._back.readline() != READY:
            raise TrainingError(f"data: a decoder could not be started ({self.end(patience=1.0)})")

    def ask(self, request: Sequence[tuple[Item, bytes | None]], size: int, background: str) -> list[Outcome]:
        """_Died if the decoder dies of it."""
        asked = [
            (item.file if data is None else None, 0 if data is None else len(data), item.crop) for item, data in request
        ]
        try:
            self._to.write(json.dumps([size, background, asked]).encode() + b"\n")
            for _, data in request:
                if data is not None:
                    self._to.write(data)
            self._to.flush()
        except OSError as error:
            raise _Died from error
        line = self._back.readline()
        if not line.endswith(b"\n"):
            raise _Died
        facts = json.loads(line)
        shape = (sum(not isinstance(fact, str) for fact in facts), size, size, 3)
        pixels = self._back.read(math.prod(shape))
        if len(pixels) < math.prod(shape):
            raise _Died
        rows = iter(np.frombuffer(pixels, np.uint8).reshape(shape))
        return [fact if isinstance(fact, str) else Decoded(next(rows), *fact) for fact in facts]

    def end(self, patience: float = 0.0) -> str:
        """End the process, if it does not end by itself within so many seconds; how it ended."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
        status = self._process.wait()
        for pipe in (self._to, self._back):
            with contextlib.suppress(OSError):  # what could not be written
                pipe.close()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"
