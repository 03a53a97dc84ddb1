"""Every op's GPU implementations on small ragged shapes, to be run under compute-sanitizer.

    compute-sanitizer --tool memcheck python -m benchmarks.sanitize [--impl cuda triton]

Inputs are drawn on the CPU, so that hardly a kernel but ours runs. Results are not looked at: the tests do that.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

import otkernels

IMPLS = ("cuda", "triton")
NEAREST = ((1, 1, 1), (65, 129, 17), (130, 257, 128))  # n, m, d
# large enough for tensor cores: rows of one chunk, of several, and of more than stay in shared memory; the last points
# are so close to each other that rows give up, and see the second stage and differences
PRODUCTS = ((1500, 1500, 64, 1.0), (900, 1100, 200, 1.0), (700, 700, 300, 1.0), (1500, 1500, 64, 1e-6))  # and spread
FORESTS = ((5, 3, 0, 4, 3), (130, 18, 3, 128, 128), (33, 2, 6, 4, 40))  # n, trees, depth, d, d_out
FITS = ((64, 18, 3, 128), (37, 3, 2, 5), (256, 16, 3, 2))  # n, trees, depth, d


def randn(*shape: int, device: str) -> Tensor:
    return torch.randn(*shape).to(device)


def l2_argmin(impl: str, device: str) -> Iterator[str]:
    for n, m, d in NEAREST:
        x, y, potential = (randn(2, *shape, device=device) for shape in ((n, d), (m, d), (m,)))
        for precision in ("exact", "tf32", "bf16"):
            otkernels.l2_argmin(x[0], y[0], precision=precision, impl=impl)
            otkernels.l2_argmin(x, y, potential, precision=precision, impl=impl)
            yield f"{n} x {m} x {d} {precision}, one and a batch of two with a potential"
    for n, m, d, spread in PRODUCTS:
        x, y = randn(n, d, device=device), randn(2, d, device=device)[torch.arange(m) % 2]
        y = y + spread * randn(m, d, device=device)
        for precision in ("exact", "tf32", "bf16") if spread == 1 else ("exact",):
            otkernels.l2_argmin(x, y, precision=precision, impl=impl)
            yield f"{n} x {m} x {d} {precision}, spread {spread:g}"


def l2_topk(impl: str, device: str) -> Iterator[str]:
    for n, m, d in (*NEAREST[1:], (65, 300, 3)):
        x, y, potential = (randn(2, *shape, device=device) for shape in ((n, d), (m, d), (m,)))
        for k in (2, 16, 128):
            otkernels.l2_topk(x, y, k, potential, impl=impl)
            otkernels.l2_topk(1000 + x, 1000 + y, k, impl=impl)  # bounds do not decide these
            yield f"{n} x {m} x {d} k = {k}, a batch of two with a potential, and far from the origin"


def soft_forest(impl: str, device: str) -> Iterator[str]:
    for n, trees, depth, d, d_out in FORESTS:
        shapes = (n, d), (trees, 2**depth - 1), (trees, 2**depth, d_out)
        inputs = [randn(*shape, device=device).requires_grad_() for shape in shapes]
        out = otkernels.soft_forest(*inputs, impl=impl)
        torch.autograd.grad(out, inputs, randn(n, d_out, device=device), allow_unused=True)
        yield f"N = {n}, T = {trees}, D = {depth}, d = {d}, d_out = {d_out}"


def fit_transport(impl: str, device: str) -> Iterator[str]:
    for (n, trees, depth, d), pairing in itertools.product(FITS, ("cover", "literal")):
        z_r, z_g, thresholds = (randn(*shape, device=device) for shape in ((n, d), (n, d), (trees, 2**depth - 1)))
        leaves, *moments = (torch.randn(trees, 2**depth, d).abs().to(device) for _ in range(3))
        state = otkernels.AdamState(*moments, torch.zeros(()).to(device))
        otkernels.fit_transport(z_r, z_g, thresholds, leaves, state, iters=2, pairing=pairing, impl=impl)
        yield f"N = {n}, T = {trees}, D = {depth}, d = {d}, {pairing}"


OPS = {"l2_argmin": l2_argmin, "l2_topk": l2_topk, "soft_forest": soft_forest, "fit_transport": fit_transport}


def main(argv: Sequence[str] | None = None) -> int:
    """1 if an implementation that was asked for runs no op here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", nargs="+", default=IMPLS)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.sanitize: torch sees no CUDA device on this machine")
        return 1
    torch.manual_seed(0)
    count = dict.fromkeys(options.impl, 0)
    for (op, cases), impl in itertools.product(OPS.items(), options.impl):
        if impl not in otkernels.available_impls(op, options.device):
            print(f"{op} {impl}: does not run here", flush=True)
            continue
        for case in cases(impl, options.device):
            if options.device == "cuda":
                torch.cuda.synchronize()
            print(f"{op} {impl} {case}", flush=True)
            count[impl] += 1
    print("; ".join(f"{impl}: {cases} cases" for impl, cases in count.items()))
    return int(min(count.values()) == 0)


if __name__ == "__main__":
    sys.exit(main())
