"""Which implementation of an op runs where. The only place that chooses.

`auto` takes the first row of an op's table that can run the call; a named implementation runs or raises with the
reason. OTKERNELS_IMPL, read at import, replaces `auto` (for debugging). Until both have been measured on a GPU, the
order of CUDA and Triton is that of a count of their instructions: soft_forest's Triton kernels use no tensor cores and
compute each sigmoid several times.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _native

ORDER: dict[str, tuple[str, ...]] = {
    "l2_argmin": ("cpu", "triton", "cuda", "reference"),
    "l2_topk": ("cpu", "triton", "reference"),
    "soft_forest": ("cpu", "cuda", "triton", "reference"),
    "fit_transport": ("cpu", "cuda", "reference"),
    "transport_cost": ("cpu", "cuda", "reference"),
    "assign": ("cpu", "cuda", "reference"),
}
HOST = ("assign",)  # whose compiled part runs on the host, wherever the tensors are
AUTO = os.environ.get("OTKERNELS_IMPL") or "auto"
_FOLDERS = {"transport_cost": "fit_transport"}  # of ops that share one
_MODULES = {"reference": "reference", "cpu": "native", "cuda": "native", "triton": "triton"}


def choose(op: str, impl: str, tensor: Tensor) -> tuple[str, ModuleType]:
    """The name and the module that run `op` on tensors like `tensor`; an error says why none does."""
    check(op, impl)
    setting, name = ("OTKERNELS_IMPL", AUTO) if impl == "auto" else ("impl", impl)
    return _choose(op, setting, name, tensor.device, tensor.dtype)


def check(op: str, impl: object) -> None:
    """Whether `impl`, or in place of auto the environment's choice, names an implementation of `op`."""
    if not isinstance(impl, str) or (impl != "auto" and impl not in ORDER[op]):
        raise ValueError(f"{op}: impl must be auto or one of {', '.join(ORDER[op])}, got {impl!r}")
    if impl == AUTO or impl != "auto" or AUTO in ORDER[op]:
        return
    raise ValueError(
        f"{op}: the environment variable OTKERNELS_IMPL must be auto or one of {', '.join(ORDER[op])}, got {AUTO!r}"
    )


@functools.cache
def _choose(op: str, setting: str, impl: str, device: torch.device, dtype: torch.dtype) -> tuple[str, ModuleType]:
    """`setting` is where `impl` was named, for the message."""
    if impl != "auto":
        reason = why_not(op, impl, device, dtype)
        if reason:
            raise RuntimeError(f"{op}: {setting}={impl!r} cannot run here: {reason}")
        return impl, module(op, impl)
    if device.type == "cuda" and (fault := fault_on(device)):
        _warn(fault)
    for name in ORDER[op]:
        if not why_auto_skips(op, name, device, dtype):
            return name, module(op, name)
    raise RuntimeError(f"{op}: no implementation runs on {device} with {dtype}")


def fault_on(device: torch.device) -> str:
    """Why CUDA kernels that were built cannot run on this GPU; the empty string when they can, or there are none."""
    if not _native.has_cuda() or not torch.cuda.is_available():
        return ""
    return _native.cuda_fault(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _warn(fault: str) -> None:
    warnings.warn(f"otkernels goes on without its compiled CUDA kernels: {fault}", RuntimeWarning, stacklevel=2)


def is_plain_call(*tensors: Tensor | None) -> bool:
    """Whether nothing traces, transforms or differentiates this call, so that torch's dispatcher has nothing to add."""
    # The compiler comes first: while it traces, a tensor stands for many and cannot be asked what it is.
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() != 0
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
    ):
        return False
    recording = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is None:
            continue
        # a negated view or a zero tensor is materialised by the dispatcher
        if (
            type(tensor) is not Tensor
            or (recording and tensor.requires_grad)
            or tensor.is_neg()
            or tensor._is_zerotensor()
        ):
            return False
    return True


def why_auto_skips(op: str, impl: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why `auto` does not consider `impl`; the empty string when it does."""
    if impl == "triton" and device.type != "cuda":  # only tests ask for it, by name; auto does not import it to see
        return "off CUDA Triton has its interpreter alone, which runs only by name"
    return why_not(op, impl, device, dtype)


def why_not(op: str, impl: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why `impl` cannot run `op` on this device and dtype; the empty string when it can."""
    if impl == "reference":
        return ""
    if impl in ("cpu", "cuda"):
        if device.type != impl:
            return f"the tensors are on {device}"
        if _native.extension is None:
            return _native.missing_reason
        if op in HOST:
            return ""
        if impl == "cuda" and not _native.has_cuda():
            return "otkernels was built without CUDA (OTKERNELS_CUDA)"
        if impl == "cuda" and dtype == torch.float64:
            return "float64 is not compiled for CUDA"
        if impl == "cuda" and not torch.cuda.is_available():
            return "PyTorch sees no CUDA device"
        if impl == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
            return f"the CUDA kernels need sm_80 or later, not {torch.cuda.get_device_name(device)}"
        return fault_on(device) if impl == "cuda" else ""
    try:
        return module(op, impl).supports(device, dtype)
    except ImportError as error:
        return f"Triton did not import ({error})"


def module(op: str, impl: str) -> ModuleType:
    return importlib.import_module(f"otkernels.{_FOLDERS.get(op, op)}.{_MODULES[impl]}")


def available_impls(op: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> list[str]:
    """Names of the implementations of an op that run here, in the order in which "auto" tries them.

    Args:
        op: "l2_argmin", "l2_topk", "assign", "soft_forest", "fit_transport" or "transport_cost".
        device: where the tensors would be.
        dtype: theirs.

    Raises:
        ValueError: there is no op of that name.
    """
    if op not in ORDER:
        raise ValueError(f"available_impls: op must be one of {', '.join(ORDER)}, got {op!r}")
    return [name for name in ORDER[op] if not why_not(op, name, torch.device(device), dtype)]
