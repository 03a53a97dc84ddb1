"""The compiled extension, or the reason why it is absent.

The CPU kernels run on torch's number of OpenMP threads; in a forked child (multiprocessing's "fork", a DataLoader's
worker) on one, because the parent's threads do not exist there. PyTorch's own ops know no such rule: once the parent
has used several threads, an op of PyTorch's that wants several may hang in the child. Use the start methods "spawn" or
"forkserver", or call torch.set_num_threads(1) before forking. A child must not be the first to import otkernels.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

import torch
from torch import Tensor

extension: Any = None  # the module otkernels._C, or None with the reason below
missing_reason = ""

try:
    # torch came first: its libgomp is then the one that the extension's OpenMP calls resolve to.
    extension = importlib.import_module("otkernels._C")
except ImportError as error:
    missing_reason = f"the compiled extension otkernels._C did not import ({error})"
    warnings.warn(
        f"otkernels runs on its reference implementations: {missing_reason}. "
        "Install a C++20 compiler and reinstall for the fast ones.",
        RuntimeWarning,
        stacklevel=2,
    )


def has_cuda() -> bool:
    """Whether the extension was built with its CUDA sources."""
    return extension is not None and extension.built_with_cuda()


@functools.cache
def cuda_fault(index: int) -> str:
    """Why the compiled CUDA kernels cannot run on GPU number `index`, in one line; the empty string when they can."""
    built, torchs = extension.cuda_built_version() // 1000, int((torch.version.cuda or "0").split(".")[0])
    if built != torchs:
        whose = f"PyTorch for CUDA {torch.version.cuda}" if torchs else "PyTorch without CUDA"
        return f"the CUDA kernels were built with CUDA {built}, {whose}: build otkernels with an nvcc of that version"
    return str(extension.cuda_fault(index))


def dense(tensor: Tensor) -> Tensor:
    """The tensor, copied unless all behind its first dimension is dense. An expanded (stride 0) batch is not copied."""
    if tensor.is_contiguous() or (tensor.dim() > 2 and tensor[:1].is_contiguous()):
        return tensor
    return tensor.contiguous()


def suffix(tensor: Tensor) -> str:
    """What names of CPU functions end in: f32 or f64."""
    return "f32" if tensor.dtype == torch.float32 else "f64"


def workspace(size: int, device: torch.device) -> Tensor:
    """`size` bytes for a kernel on the current stream. May be freed after the launch: memory is reused in order."""
    return torch.empty(size, dtype=torch.uint8, device=device)


def stream(device: torch.device) -> int:
    """The address of PyTorch's current stream on `device`."""
    return torch.cuda.current_stream(device).cuda_stream
