"""Whether a run can fit into the memory, from figures, before anything is allocated."""

from __future__ import annotations

import math
import resource
from pathlib import Path
from typing import Any

import torch

from models.games import Game
from train.errors import gigabytes

COPIES = 4  # of each weight: itself, its gradient, Adam's two moments


def check_fits(kind: type[Game], config: Any, shape: tuple[int, ...], batch_size: int, device: torch.device) -> None:
    """ValueError if weights and one batch of samples alone need more memory than there is.

    A lower bound: what the layers keep for the backward pass comes on top. config: of the game, whose networks are
    built on the meta device, which has sizes and no memory.
    """
    with torch.device("meta"):
        game: Game = kind.build(config, shape)  # type: ignore[attr-defined]
    weights = COPIES * sum(weight.numel() * weight.element_size() for weight in game.parameters())
    batch = 4 * batch_size * (2 * math.prod(shape) + config.networks.noise_dim)  # real and generated samples, noise
    free = available_bytes(device)
    if weights + batch > free:
        raise ValueError(
            f"train: the networks need at least {gigabytes(weights)} and a batch of {batch_size} at least "
            f"{gigabytes(batch)} of memory, {gigabytes(free)} are free; batch_size or the game's sizes must be smaller"
        )


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that this process may still take: a GPU's free memory, or what system, container and limits leave."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [_system(), _container()]
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        limits.append(most - _pages("/proc/self/statm"))
    return max(0, min(limits))


def _system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 2**62  # unknown


def _container() -> int:
    """What the control group leaves, in its second version; the first has other files and is left out."""
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return 2**62


def _pages(path: str) -> int:
    try:
        return int(Path(path).read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0
