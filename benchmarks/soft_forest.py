"""soft_forest against its definition in plain autograd, eager and compiled, with the sizes of POT-GAN on images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import otkernels
from otkernels.soft_forest import reference

from .contestants import OURS, Case, Contestant, Inputs, Run, Suite, Verdict

TREES, DEPTH, WIDTH = 18, 3, 128
SIZES = (64, 1024, 4096, 65536)
TOLERANCE = (
    1e-4  # of a tensor's largest entry: a leaf's gradient sums up to 65536 float32 terms, about sqrt(65536) 2^-24
)
BOTH = "forward + backward"


def timed(forward: Run, case: Case) -> Run:
    """The function to time: forward without autograd, or forward and the gradients of z, thresholds and leaves."""

    def infer(z: Tensor, thresholds: Tensor, leaves: Tensor, grad_out: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (forward(z, thresholds, leaves),)

    def differentiate(z: Tensor, thresholds: Tensor, leaves: Tensor, grad_out: Tensor) -> tuple[Tensor, ...]:
        out = forward(z, thresholds, leaves)
        return (out.detach(), *torch.autograd.grad(out, (z, thresholds, leaves), grad_out))

    return differentiate if case.mode == BOTH else infer


def definition(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    return reference.soft_forest(z[None], thresholds[None], leaves[None])[0]


def ours(case: Case) -> Run:
    return timed(otkernels.soft_forest, case)


def eager(case: Case) -> Run:
    return timed(definition, case)


def compiled(case: Case) -> Run:
    torch._dynamo.reset()  # one case at a time, so that no case is slowed by guards of the last
    return timed(torch.compile(definition, dynamic=False), case)


def draw(case: Case, number: int, device: str = "cpu") -> Inputs:
    """z [N, d], thresholds [T, 2^D - 1], leaves [T, 2^D, d_out], grad_out [N, d_out]."""
    generator = torch.Generator(device).manual_seed(number)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    shapes = ((case.n, WIDTH), (TREES, 2**DEPTH - 1), (TREES, 2**DEPTH, WIDTH))
    inputs = tuple(randn(*shape).requires_grad_(case.mode == BOTH) for shape in shapes)
    return (*inputs, randn(case.n, WIDTH))


def expect(inputs: Inputs, case: Case) -> Inputs:
    """The output, and the gradients if the case has them, computed in float64 and kept in float32."""
    wide = (tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in inputs)
    return tuple(tensor.float() for tensor in timed(definition, case)(*wide))


def judge(contestant: Contestant, case: Case, inputs: Inputs, result: Any, expected: Inputs) -> Verdict:
    """The largest difference in any output or gradient, relative to that tensor's largest entry."""
    pairs = zip(result, expected, strict=True)
    errors = torch.stack([(got - wanted).abs().max() / wanted.abs().max() for got, wanted in pairs])
    error = float(errors.max())  # NaN if any is, and then wrong
    return Verdict(error <= TOLERANCE, error)


ABOUT = (
    f"float32, T = {TREES}, D = {DEPTH}, d = d_out = {WIDTH}. Forward runs under no_grad; forward + backward takes the "
    "gradients of z, thresholds and leaves. Contestants: `otkernels.soft_forest`; the definition in plain PyTorch with "
    "autograd, eager and under `torch.compile(dynamic=False)`, compiled before it is timed. Error: the largest "
    "difference from float64 in any output or gradient, relative to that tensor's largest entry; timed only if within "
    f"{TOLERANCE:g}."
)

SUITE = Suite(
    op="soft_forest",
    cases=tuple(Case("soft_forest", n, 0, WIDTH, mode) for n in SIZES for mode in ("forward", BOTH)),
    quick=(Case("soft_forest", 1024, 0, WIDTH, BOTH),),
    contestants=(
        Contestant(OURS, ours),
        Contestant("eager", eager),
        Contestant("torch.compile", compiled, ("torch._dynamo", "torch._inductor.compile_fx"), compiled=True),
    ),
    draw=draw,
    expect=expect,
    judge=judge,
    error_name="error",
    about=ABOUT,
)
