"""What a GPU's numbers must carry: the GPU, its driver, versions, and its own rates measured in the same run."""

from __future__ import annotations

import shutil
import statistics
import subprocess
from typing import Any

import torch

from train import provenance

from .device import Cuda

PACKAGES = ("triton", "flash-kmeans", "flash-sinkhorn", "pykeops")
PRODUCT = 8192  # rows, columns and depth
MOST_COPY = 2 << 30  # bytes
WARM_UP, SAMPLES = 20, 10


def describe(command: str) -> dict[str, Any]:
    """The machine and the software that the numbers belong to."""
    properties = torch.cuda.get_device_properties(0)
    return {
        **provenance.describe(command),
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": int(properties.L2_cache_size),
        "memory_bytes": int(properties.total_memory),
        "driver": driver(),
        "cuda": torch.version.cuda,
        **{name: provenance.version(name) for name in PACKAGES},
        "roofline": roofline(Cuda()),
    }


def driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = run.stdout.split()
    return lines[0] if run.returncode == 0 and lines else "unknown"


def roofline(device: Cuda) -> dict[str, Any]:
    """Medians of a bf16 product on normal data, and of a float32 copy: bytes read and written."""
    shape = (PRODUCT, PRODUCT)
    left, right = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    product = sampled(device, lambda: torch.matmul(left, right, out=out))
    floats = min(MOST_COPY, device.free_bytes() // 8) // 4
    source = torch.randn(floats, device="cuda")
    target = torch.empty_like(source)
    copy = sampled(device, lambda: target.copy_(source))
    return {
        "product_size": PRODUCT,
        "product_tflops": 2e-12 * PRODUCT**3 / product,
        "copy_bytes": 4 * floats,
        "copy_gbps": 8e-9 * floats / copy,
    }


def sampled(device: Cuda, call: Any) -> float:
    """The median of single calls, in seconds, after the clocks had time to rise."""
    for _ in range(WARM_UP):
        call()
    return statistics.median(device.time([call]) for _ in range(SAMPLES))
