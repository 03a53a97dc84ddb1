"""What the Triton implementations share: where they run, and how a launch fills the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
import triton
from torch import Tensor

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


def strides(tensor: Tensor) -> tuple[int, ...]:
    """The tensor's strides, that of a batch of one as 0: a value that does not change with the other sizes.

    Triton compiles a kernel again where an integer argument is 1, or becomes or ceases to be a multiple of 16, unless
    the kernel says do_not_specialize. Sizes that change from call to call (rows, columns, batches) are declared so.
    Strides are not, where Triton learns from them which loads can be joined. So a batch of several whose points have no
    multiple of 16 coordinates compiles twice, for numbers of points that are a multiple of 16 and that are not.
    """
    first, *others = tensor.stride()
    return (first if tensor.shape[0] > 1 else 0, *others)


@cache
def cores(device: torch.device) -> int:
    """Streaming multiprocessors of the device."""
    if device.type != "cuda":
        return _UNSEEN_DEVICE_CORES
    return torch.cuda.get_device_properties(device).multi_processor_count


def parts(programs: int, most: int, device: torch.device) -> int:
    """Into how many parts each of `programs` pieces of work is cut to give every core two, at most `most`."""
    return max(1, min(most, triton.cdiv(2 * cores(device), max(1, programs))))
