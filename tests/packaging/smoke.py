"""What an installed otkernels must do without a compiler. Run by `make wheel` in a clean environment, not by pytest."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

import otkernels
from otkernels.nn import SoftForest

SEED = 7


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def nearest(impl: str) -> tuple[torch.Tensor, ...]:
    return otkernels.l2_argmin(randn(70, 20), randn(50, 20), randn(50), impl=impl)


def nearest_three(impl: str) -> tuple[torch.Tensor, ...]:
    return otkernels.l2_topk(randn(70, 20), randn(50, 20), 3, randn(50), impl=impl)


def matching(impl: str) -> tuple[torch.Tensor, ...]:
    x, y = randn(30, 20), randn(40, 20)
    found = otkernels.assign(x, y, potential=randn(40), impl=impl)
    return found.index, found.primal, found.dual


def forest(impl: str) -> tuple[torch.Tensor, ...]:
    inputs = [randn(*shape).requires_grad_() for shape in ((30, 6), (5, 7), (5, 8, 4))]
    out = otkernels.soft_forest(*inputs, impl=impl)
    return out.detach(), *torch.autograd.grad(out.square().sum(), inputs)


def transport(impl: str) -> tuple[torch.Tensor, ...]:
    leaves = randn(5, 8, 4)
    state = otkernels.AdamState.zeros_like(leaves)
    fitted = otkernels.fit_transport(randn(30, 4), randn(30, 6), randn(5, 7), leaves, state, iters=3, impl=impl)
    return *fitted, leaves, *state


def check(right: object, what: str) -> None:
    print(f"  {'ok  ' if right else 'FAIL'}  {what}")
    if not right:
        sys.exit(1)


def main() -> None:
    installed, files = Path(otkernels.__file__).resolve(), metadata.files("otkernels") or []
    check(installed.is_relative_to(Path(sys.prefix).resolve()), "the package in use is the one that was installed here")
    check("otkernels/py.typed" in map(str, files), "its types are declared")
    check({file.parts[0].split("-")[0] for file in files} <= {"otkernels", "otkernels.libs"}, "it is otkernels alone")
    check(not any(map(shutil.which, ("c++", "cc", "g++", "gcc", "clang", "clang++"))), "no compiler is on the PATH")
    calls = {"l2_argmin": nearest, "l2_topk": nearest_three, "assign": matching, "soft_forest": forest}
    calls["fit_transport"] = transport
    for name, call in calls.items():
        results = []
        for impl in ("cpu", "reference"):
            torch.manual_seed(SEED)
            results.append(call(impl))
        # float64: sums of at most 40 terms in another order, through three steps of Adam
        close = (torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*results, strict=True))
        check(all(close), f"{name}: the compiled kernels agree with the reference")
    check(SoftForest(6)(torch.zeros(3, 6)).isfinite().all(), "SoftForest runs")
    command = [sys.executable, "-m", "otkernels.info"]
    info = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    check("otkernels._C      present" in info, "python -m otkernels.info finds the compiled extension")
    libraries = re.search(r"OpenMP libraries +(.*)", info)
    check(libraries and "," not in libraries[1], f"one OpenMP library is loaded ({libraries and libraries[1]})")


if __name__ == "__main__":
    main()
