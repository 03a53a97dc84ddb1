"""What the experiments that train do first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from train.provenance import describe
from train.run.config import torch_device


def start(command: str, threads: int | None, device: str, out: str) -> tuple[Path, dict[str, Any]]:
    """Set PyTorch's threads and make the folder ``out``; that folder, and the machine that the numbers belong to."""
    if threads is not None:
        torch.set_num_threads(threads)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    machine = describe(command, "models", "train")
    if device != "cpu":
        machine["gpu"] = torch.cuda.get_device_name(torch_device(device))
    return folder, machine
