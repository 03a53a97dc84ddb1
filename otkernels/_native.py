"""The compiled extension, or the reason why it is absent."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from torch import Tensor

extension: Any = None  # the module otkernels._C, or None with the reason below
missing_reason = ""

try:
    # torch comes first: its libgomp is then the one that the extension's OpenMP calls resolve to.
    importlib.import_module("torch")
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


def dense(tensor: Tensor) -> Tensor:
    """The tensor, copied unless all behind its first dimension is dense. An expanded (stride 0) batch is not copied."""
    if tensor.is_contiguous() or (tensor.dim() > 2 and tensor[:1].is_contiguous()):
        return tensor
    return tensor.contiguous()
