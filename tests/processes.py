"""Several gloo processes in a test: forked, so that none needs to import torch again."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def outcomes(work: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """What ``work(rank, *arguments)`` returns in each of ``count`` processes of one group, in order of rank."""
    mp.start_processes(_run, (work, count, str(folder), arguments), nprocs=count, start_method="fork")
    return [torch.load(folder / str(rank)) for rank in range(count)]


def _run(rank: int, work: Callable[..., Any], count: int, folder: str, arguments: tuple[Any, ...]) -> None:
    with _group(rank, count, folder):
        torch.save(work(rank, *arguments), f"{folder}/{rank}")


@contextmanager
def _group(rank: int, count: int, folder: str) -> Iterator[None]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    yield
    dist.destroy_process_group()


def unused_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])
