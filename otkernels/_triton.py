"""What the Triton implementations share: where they run, and how a launch fills the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
import triton

INTERPRETED = triton.knobs.runtime.interpret  # TRITON_INTERPRET=1 in the environment at import
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_UNSEEN_DEVICE_CORES = 4  # in the interpreter: small, so that small tests also split their work


def supports(device: torch.device, dtype: torch.dtype) -> str:
    """Why the Triton kernels cannot run there; the empty string when they can."""
    if dtype not in _DTYPES:
        return f"the Triton kernels take float32, float16 and bfloat16, not {dtype}"
    if device.type == "cuda" and not INTERPRETED:
        return ""
    if device.type == "cpu" and INTERPRETED:
        return ""
    if INTERPRETED:
        return f"TRITON_INTERPRET=1 is for tensors on the CPU, not on {device}"
    return f"the tensors are on {device}; Triton needs CUDA, or TRITON_INTERPRET=1 for tests"


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device: make it the tensors' one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def cores(device: torch.device) -> int:
    """Streaming multiprocessors of the device."""
    if device.type != "cuda":
        return _UNSEEN_DEVICE_CORES
    return torch.cuda.get_device_properties(device).multi_processor_count


def parts(programs: int, most: int, device: torch.device) -> int:
    """Into how many parts each of `programs` pieces of work is cut to give every core two, at most `most`."""
    return max(1, min(most, triton.cdiv(2 * cores(device), max(1, programs))))
