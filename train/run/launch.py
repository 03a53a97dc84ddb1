"""Several processes of one command, as torchrun starts them: each takes its GPU, the first one speaks and writes files.

What any process might see otherwise than the others, such as a file that the first has just made, is decided by the
first for all: processes that do not play the same steps wait for each other for ever.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from models.processes import here
from train.errors import TrainingError
from train.run import rendezvous

# The first process scores, draws and writes alone meanwhile. One that dies is noticed at once, by its connections.
TIMEOUT = timedelta(hours=2)


@contextmanager
def launched(device: str) -> Iterator[None]:
    """Join torchrun's other processes within the block, if there are any; ``device``: cpu or cuda.

    Each process takes the GPU of its number on its node. What others than the first print goes nowhere; the error that
    ends one of them is said. ValueError for a device of another form, and if a process has no GPU; TrainingError if
    another process is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if ":" in device:
        raise ValueError(f"train: device must be cpu or cuda over several processes, got {device}")
    if device == "cuda":
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise ValueError(f"train: device cuda: process {local} of this node has no GPU of its own, it has {count}")
        torch.cuda.set_device(local)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    store, rank, size = rendezvous.store()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        with open(os.devnull, "w") as nowhere:
            out, err = (sys.stdout, sys.stderr) if here().first else (nowhere, nowhere)
            with redirect_stdout(out), redirect_stderr(err):  # an error is said after the block
                yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(
            f"train: process {here().rank} lost its connection to another one, which has ended"
        ) from error
    finally:
        dist.destroy_process_group()


def may_restart() -> bool:
    """Whether torchrun may start these processes anew."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def restarted() -> bool:
    """Whether torchrun has started these processes anew. A node counts its own losses alone, so all are asked."""
    return greatest([float(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))])[0] > 0


def wait() -> None:
    """Until every process is here."""
    decided(None)


def decided(value: Any) -> Any:
    """The first process's ``value``, in every process, all of which have come here."""
    if here().size == 1:
        return value
    values: list[Any] = [None] * here().size
    dist.all_gather_object(values, value if here().first else None)
    return values[0]


@contextmanager
def in_turn() -> Iterator[None]:
    """Within the block one process of each node goes first, and the others find the files that it made."""
    later = here().size > 1 and os.environ.get("LOCAL_RANK", "0") != "0"
    if later:
        wait()
    yield
    if not later:
        wait()


def greatest(values: list[float]) -> list[float]:
    """The greatest of each of ``values`` among all processes."""
    return _reduced(values, dist.ReduceOp.MAX)


def mean(values: list[float]) -> list[float]:
    """The mean of each of ``values`` over all processes."""
    return [value / here().size for value in _reduced(values, dist.ReduceOp.SUM)]


class Heard:
    """Numbers that any process may say, 0 for nothing, and all hear at one and the same call, the next one.

    A call does not wait for the others: it brings what was said at the call before.
    """

    def __init__(self) -> None:
        self._said: tuple[torch.Tensor, Any] | None = None

    def say(self, number: int) -> int:
        """Say ``number``; the greatest that was said at the call before. One process alone hears itself at once."""
        if here().size == 1:
            return number
        said, before = torch.tensor(number), self._said
        self._said = said, dist.all_reduce(said, dist.ReduceOp.MAX, async_op=True)
        if before is None:
            return 0
        before[1].wait()
        return int(before[0])


def _reduced(values: list[float], operation: Any) -> list[float]:
    if here().size == 1:
        return values
    found = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(found, operation)
    return found.tolist()
