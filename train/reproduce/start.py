"""What the experiments that train do first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from train.config import torch_device
from train.provenance import describe


class Settings(Protocol):
    """What ``start`` reads of an experiment's settings."""

    @property
    def threads(self) -> int | None: ...

    @property
    def device(self) -> str: ...

    @property
    def out(self) -> str: ...


def start(config: Settings, argv: Sequence[str], prog: str) -> tuple[Path, dict[str, Any]]:
    """Set PyTorch's threads and make the folder ``out``; that folder, and the machine that the numbers belong to."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    machine = describe(shlex.join([*prog.split(), *argv]), "models", "train")
    if config.device != "cpu":
        machine["gpu"] = torch.cuda.get_device_name(torch_device(config.device))
    return out, machine
