"""`python -m otkernels.info`: what a bug report needs to know of a machine, as plain text."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from . import _dispatch, _native
from ._version import __version__

Rows = Iterable[tuple[str, str]]
PREFIXES = ("OTKERNELS_", "OMP_", "GOMP_", "TRITON_", "CUDA_VISIBLE_DEVICES")
DRIVER = r"Kernel Module.*?\s(\d+\.[\d.]+)"


def report() -> str:
    """Versions, machine, compiled extension, what `auto` chooses and why, threads, environment."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    sections: dict[str, Rows] = {"versions": versions(), "machine": machine(), "compiled extension": extension()}
    for op in _dispatch.ORDER:
        for device in devices:
            sections[f"{op} in float32 on {device}, impl='auto'"] = choices(op, torch.device(device))
    sections |= {"threads": threads(), "environment": environment()}
    return "\n\n".join("\n".join((title, *aligned(rows))) for title, rows in sections.items())


def aligned(rows: Rows) -> Iterator[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    yield from (f"  {name:<{width}}  {value}".rstrip() for name, value in rows)


def versions() -> Rows:
    yield "otkernels", __version__
    yield "torch", torch.__version__
    yield "triton", installed("triton", "pytorch-triton", "pytorch-triton-rocm")
    yield "numpy", installed("numpy")
    yield "python", f"{platform.python_version()} ({platform.python_implementation()})"


def installed(*names: str) -> str:
    """The version of the first of these distributions that is there."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def machine() -> Rows:
    yield "system", platform.platform()
    yield "cpu", found(Path("/proc/cpuinfo"), r"^model name.*: (.+)$") or platform.processor() or "unknown"
    yield "cpu features", f"{torch.backends.cpu.get_cpu_capability()} (as PyTorch names them)"
    if not torch.cuda.is_available():
        built = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "was built without CUDA"
        yield "gpu", f"none that PyTorch sees; it {built}"
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield f"cuda:{index}", f"{device.name}, compute capability {device.major}.{device.minor}, {memory}"
    driver = found(Path("/proc/driver/nvidia/version"), DRIVER)
    yield "driver", f"{driver or 'unknown'}; PyTorch was built for CUDA {torch.version.cuda}"


def found(file: Path, pattern: str) -> str:
    """The first group of the pattern's first match in the file; empty if there is none."""
    match = re.search(pattern, file.read_text(), re.MULTILINE) if file.exists() else None
    return match[1] if match else ""


def extension() -> Rows:
    if _native.extension is None:
        yield "otkernels._C", f"absent: {_native.missing_reason}"
        return
    if not hasattr(_native.extension, "build_info"):  # an editable install whose sources have moved on
        yield "otkernels._C", "present, but older than these sources: build it again"
        return
    built = _native.extension.build_info()
    yield "otkernels._C", f"present, compiled by {built['compiler']}"
    yield "cpu kernels for", built["cpu"]
    try:
        yield "used here", _native.extension.cpu_isa()
    except RuntimeError as error:  # OTKERNELS_CPU names none
        yield "used here", f"none: {error}"
    yield "OpenMP", built["openmp"] or "no: the CPU kernels run on one thread"
    yield "cuda kernels for", built["cuda"] or "none: built without CUDA (OTKERNELS_CUDA)"
    if torch.cuda.is_available() and _native.has_cuda():
        for index in range(torch.cuda.device_count()):
            yield f"cuda kernels on cuda:{index}", _native.cuda_fault(index) or "can run"


def choices(op: str, device: torch.device) -> Rows:
    """Every implementation in the order of `auto`: chosen, or why not."""
    try:
        chosen, _ = _dispatch.choose(op, "auto", torch.empty(0, device=device))
    except (RuntimeError, ValueError) as error:  # OTKERNELS_IMPL names one that cannot run
        chosen = ""
        yield "error", str(error)
    for name in _dispatch.ORDER[op]:
        reason = _dispatch.why_auto_skips(op, name, device, torch.float32)
        after = f"can run; auto takes {chosen}" if chosen else "can run"
        yield name, "chosen" if name == chosen else reason or after


def threads() -> Rows:
    yield "torch.get_num_threads", f"{torch.get_num_threads()} (the CPU kernels use as many)"
    yield "cores allowed", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    maps = Path("/proc/self/maps")
    loaded = re.findall(r"/\S*lib(?:gomp|iomp5|omp)\b\S*", maps.read_text()) if maps.exists() else []
    names = sorted(Path(path).name for path in set(loaded))  # two of them are two pools of threads
    yield "OpenMP libraries", ", ".join(names) or "none seen"


def environment() -> Rows:
    rows = [(name, value) for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES)]
    return rows or [("none", f"of {', '.join(PREFIXES)} is set")]


if __name__ == "__main__":
    print(report())
