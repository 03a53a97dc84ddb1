"""Where each implementation is tested: on the CPU always, on CUDA under `make gpu`."""

from __future__ import annotations

import pytest


def devices_and_impls(op: str) -> list[object]:
    """(device, impl) pairs for `op`. Triton on the CPU has tests of its own: the interpreter is slow."""
    on_gpu = {
        "l2_argmin": ("reference", "triton", "cuda"),
        "l2_topk": ("reference", "triton"),
        "soft_forest": ("reference", "triton", "cuda"),
        "fit_transport": ("reference", "cuda"),
        "transport_cost": ("reference", "cuda"),
        "assign": ("reference", "cuda"),
    }[op]
    gpu = [pytest.param("cuda", impl, marks=pytest.mark.gpu, id=f"cuda-{impl}") for impl in on_gpu]
    return [pytest.param("cpu", "reference", id="cpu-reference"), pytest.param("cpu", "cpu", id="cpu-cpu"), *gpu]
