"""Compiles every Triton kernel ahead of time, without a GPU, and prints registers, spills and shared memory.

    python -m benchmarks.triton_resources [--arch 80 90 100] [--op l2_argmin l2_topk soft_forest]

The ops' own host code is run on CPU tensors against a stand-in for Triton's driver, so kernels are compiled with just
the arguments and configurations that a GPU would get; nothing is launched. The exit code is 1 when a kernel uses local
memory (a spill or a stack frame) or more shared memory than a block may have.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

ARCHITECTURES = (80, 90, 100)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a block may ask for
_ROW = "{:<17}{:<44}{:>7}{:>7}{:>6}{:>7}{:>8} {}"
FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class Resources(NamedTuple):
    """One compiled kernel. registers and local bytes per thread, shared bytes per block."""

    kernel: str
    case: str
    arch: int
    warps: int
    registers: int
    local: int
    shared: int

    @property
    def fault(self) -> str:
        if self.local:
            return "SPILL"
        return "SHARED" if self.shared > SHARED_LIMIT[self.arch] else ""


class _Device:
    """Stands in for Triton's driver: a target to compile for, and nothing to run on."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch  # Triton caches kernels per device

    def get_current_stream(self, device: int) -> int:
        return 0


def l2_argmin_cases() -> Iterator[str]:
    from otkernels.l2_argmin.triton import l2_argmin

    precisions, sizes = ("exact", "tf32", "bf16"), (2, 16, 33, 64, 100, 128, 256)
    for (name, dtype), precision, d in itertools.product(FLOATS.items(), precisions, sizes):
        if (d == 2 and precision != "exact") or (name != "f32" and precision == "bf16"):
            continue  # the same kernel as with another precision
        for with_potential in (False, True):
            x, y = torch.zeros(1, 64, d, dtype=dtype), torch.zeros(1, 4096, d, dtype=dtype)
            l2_argmin(x, y, torch.zeros(1, 4096, dtype=dtype) if with_potential else None, precision)
            yield f"{name} {precision} D={d}{' potential' if with_potential else ''}"
    for n, m, d in itertools.product((1, 64), (1, 4096), (1, 9)):  # Triton makes constants of sizes that are 1
        l2_argmin(torch.zeros(1, n, d), torch.zeros(1, m, d), torch.zeros(1, m), "exact")
        yield f"f32 exact N={n} M={m} D={d}"


def l2_topk_cases() -> Iterator[str]:
    from otkernels.l2_topk.triton import l2_topk

    widths = [("f32", 33, k) for k in (2, 16, 64, 128)]  # of the lists
    widths += [("f32", d, 16) for d in (2, 128, 256)] + [("f32", d, 128) for d in (2, 128)]
    widths += [(name, d, 16) for name in ("f16", "bf16") for d in (2, 128)]  # which differ in loads alone
    for name, d, k in widths:
        x, y = torch.zeros(1, 64, d, dtype=FLOATS[name]), torch.zeros(1, 4096, d, dtype=FLOATS[name])
        l2_topk(x, y, k, torch.zeros(1, 4096, dtype=FLOATS[name]))
        if (name, k) == ("f32", 16):
            l2_topk(x, y, k, None)
        yield f"{name} D={d} k={k} potential"
    for n, d in itertools.product((1, 64), (1, 9)):  # Triton makes constants of sizes that are 1
        l2_topk(torch.zeros(1, n, d), torch.zeros(1, 4096, d), 2, torch.zeros(1, 4096))
        yield f"f32 N={n} D={d} k=2"


def soft_forest_cases() -> Iterator[str]:
    from otkernels.soft_forest.triton import soft_forest, soft_forest_backward

    sizes = ((4096, 16, 3, 2, 2), (4096, 18, 3, 128, 128), (4096, 4, 6, 64, 300), (4096, 2, 12, 128, 128))
    ones = ((1, 1, 1, 1, 1), (1, 1, 0, 1, 1), (64, 1, 1, 3, 3), (64, 1, 6, 1, 1))  # Triton makes constants of them
    for (name, dtype), (n, trees, depth, d, d_out) in itertools.product(FLOATS.items(), sizes + ones):
        if n < 4096 and name != "f32":
            continue
        z, grad_out = torch.zeros(1, n, d, dtype=dtype), torch.zeros(1, n, d_out, dtype=dtype)
        thresholds = torch.zeros(1, trees, 2**depth - 1, dtype=dtype)
        leaves = torch.zeros(1, trees, 2**depth, d_out, dtype=dtype)
        soft_forest(z, thresholds, leaves)
        soft_forest_backward(grad_out, z, thresholds, leaves)
        yield f"{name} N={n} T={trees} depth={depth} d={d} d_out={d_out}"


CASES = {"l2_argmin": l2_argmin_cases, "l2_topk": l2_topk_cases, "soft_forest": soft_forest_cases}


def measure(op: str, arch: int) -> Iterator[Resources]:
    """The resources of every distinct kernel that the cases of `op` need on one architecture."""
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: nothing would be compiled")
    compiled: list = []
    seen: set[str] = set()
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: object, grid: object, warmup: bool, **options: object) -> object:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        compiled.append(kernel)
        return kernel

    driver.set_active(_Device(arch))
    JITFunction.run = compile_only
    try:
        for case in CASES[op]():
            for kernel in compiled:
                if kernel.hash not in seen:
                    seen.add(kernel.hash)
                    yield _inspect(kernel, case, arch)
            compiled.clear()
    finally:
        JITFunction.run = run


def _inspect(kernel: object, case: str, arch: int) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        Path(cubin.name).write_bytes(kernel.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump said nothing of {kernel.name}: {text}")
    registers, stack, local = map(int, usage.groups())
    meta = kernel.metadata
    return Resources(kernel.name, case, arch, meta.num_warps, registers, stack + local, meta.shared)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--op", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    options = parser.parse_args()
    print(_ROW.format("kernel", "first case", "arch", "warps", "regs", "local", "shared", ""))
    faults = 0
    for op, arch in itertools.product(options.op, options.arch):
        for row in measure(op, arch):
            faults += bool(row.fault)
            print(_ROW.format(*row._replace(arch=f"sm_{row.arch}"), row.fault).rstrip(), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
