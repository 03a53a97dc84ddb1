"""Processes of one start find each other, whatever the processes of an earlier start have left in their store.

torchrun keeps one store of keys and values over its restarts. A process that reads there the address of a dead one
waits for it for ever or is refused, and torchrun's own count of restarts differs between nodes. So each start names
itself anew.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist

from train.errors import TrainingError

PATIENCE = timedelta(minutes=10)  # nodes of a cluster start minutes apart
_PAUSE = 0.01


def store(patience: timedelta = PATIENCE) -> tuple[dist.Store, int, int]:
    """A store that this start's processes alone use, this one's rank and their number, as the environment names them.

    TrainingError if another process is not there after ``patience``.
    """
    try:
        shared, rank, size = next(dist.rendezvous("env://", timeout=patience))
    except dist.DistError as error:
        rank, address, port = (os.environ[name] for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
        message = f"train: process {rank} has no connection to the first one at {address}:{port}"
        raise TrainingError(message) from error
    return dist.PrefixStore(agreed(shared, rank, size, patience), shared), rank, size


def agreed(shared: dist.Store, rank: int, size: int, patience: timedelta) -> str:
    """A name that the processes of this start agree on: a new one, whatever ``shared`` holds.

    Each other process writes a random greeting. The first one answers each with its own name and that greeting, and
    again if the greeting changes. A process accepts only an answer that repeats its own greeting, and confirms it.
    """
    own, until = uuid4().hex, time.monotonic() + patience.total_seconds()
    if rank > 0:
        shared.set(f"greeting/{rank}", own)
        while True:
            name, _, greeting = _read(shared, f"offer/{rank}").partition(" ")
            if greeting == own:
                shared.set(f"taken/{rank}", name)
                return name
            _pause(until, patience, "the first process has")
    missing = list(range(1, size))
    while True:
        missing = [other for other in missing if _read(shared, f"taken/{other}") != own]
        if not missing:
            return own
        for other in missing:
            shared.set(f"offer/{other}", f"{own} {_read(shared, f'greeting/{other}')}")
        _pause(until, patience, f"{len(missing)} of {size} processes, number {missing[0]} first, have")


def _read(shared: dist.Store, key: str) -> str:
    return shared.get(key).decode() if shared.check([key]) else ""


def _pause(until: float, patience: timedelta, who: str) -> None:
    if time.monotonic() > until:
        raise TrainingError(f"train: {who} not come within {patience.total_seconds():.0f} seconds")
    time.sleep(_PAUSE)
