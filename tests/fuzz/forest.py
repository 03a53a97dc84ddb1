"""Random problems of soft_forest with its gradients and theirs, and whether an implementation solves them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from otkernels import soft_forest
from otkernels.soft_forest import reference
from tests.fuzz.draw import INF, NAN, SIZES, Choices, dense, laid_out, randn, same_bits, seldom, within
from tests.otkernels.forests import first_bounds, lost_to_underflow, second_bounds
from tests.otkernels.nearest import in_units

MOST_NUMBERS = 1 << 16  # of the [..., N, T, 2^D] weights that the judge forms
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65)
NAMES = (
    "out",
    "grad_z",
    "grad_thresholds",
    "grad_leaves",
    "grad_grad_out",
    "and of z",
    "and of thresholds",
    "and of leaves",
)


class Forest(NamedTuple):
    z: Tensor
    thresholds: Tensor
    leaves: Tensor
    grad_out: Tensor
    tangents: tuple[Tensor | None, ...]  # of the gradients to z, thresholds and leaves; None: not asked for
    impl: str

    def solve(self) -> list[Tensor]:
        """out, its three gradients, and the four of these."""
        inputs = [t.detach().requires_grad_() for t in self[:3]]
        weight = self.grad_out.detach().requires_grad_()
        out = soft_forest(*inputs, impl=self.impl)
        grads = torch.autograd.grad(out, inputs, weight, create_graph=True)
        given = [(grad, t) for grad, t in zip(grads, self.tangents, strict=True) if t is not None]
        second = torch.autograd.grad([g for g, _ in given], [weight, *inputs], [t for _, t in given])
        return [t.detach() for t in (out, *grads, *second)]


def draw(choices: Choices) -> Forest:
    lead = choices.pick("lead", ((), (), (1,), (3,), (2, 2), (0,)))
    many = choices.may_be_large and seldom(choices, "large", 250)
    n = choices.pick("n", (1500, 700) if many else (*SIZES, 0))
    depth = choices.pick("depth", (3, 4) if many else (0, 1, 2, 3, 4, 5, 6, 8))
    trees = choices.pick("trees", (1, 2, 3, 5, 8, 17))
    d, d_out = choices.pick("d", WIDTHS), choices.pick("d_out", (24, 33) if many else WIDTHS)
    rows = max(1, math.prod(lead))
    n, trees, _ = within(MOST_NUMBERS * (8 if many else 1) // rows, n, trees, 2**depth)
    trees = max(1, trees)
    own = lead if lead and choices.pick("forests", ("shared", "of each entry")) == "of each entry" else ()
    shapes = (*lead, n, d), (*own, trees, 2**depth - 1), (*own, trees, 2**depth, d_out)
    z, thresholds, leaves = (randn(choices, *shape) for shape in shapes)
    z = z * choices.pick("scale of z", (1.0, 1.0, 8.0, 100.0, 1e4, 0.0))
    leaves = leaves * choices.pick("scale of leaves", (1.0, 1.0, 1e-20, 1e4))
    grad_out = randn(choices, *lead, n, d_out) * choices.pick("scale of grad_out", (1.0, 1.0, 1e-10))
    tangents = [randn(choices, *shape) for shape in shapes]
    for k in range(choices.pick("special values", (0, 0, 0, 1, 2))):
        name = choices.pick(f"special {k} in", ("z", "thresholds", "leaves"))
        tensor = {"z": z, "thresholds": thresholds, "leaves": leaves}[name]
        values = {"z": (NAN, INF, -INF, -0.0), "thresholds": (NAN, INF), "leaves": (NAN,)}[name]
        if tensor.numel():
            at = choices.pick(f"special {k} at", range(tensor.numel()))
            tensor.view(-1)[at] = choices.pick(f"special {k}", values)
    impl = choices.pick("impl", ("cpu", "cpu", "auto", "reference"))
    dtypes = (torch.float32, torch.float64, *(() if impl == "reference" else (torch.float16, torch.bfloat16)))
    dtype = choices.pick("dtype", dtypes)
    tensors = {"z": z, "thresholds": thresholds, "leaves": leaves, "grad_out": grad_out}
    views = [laid_out(choices, name, tensor.to(dtype)) for name, tensor in tensors.items()]
    names = [f"tangent of {name}" for name in ("z", "thresholds", "leaves")]
    kept = choices.pick("tangents", ((0, 1, 2), (0,), (1,), (2,), (0, 2)))
    given = [
        laid_out(choices, name, t.to(dtype)) if k in kept else None
        for k, (name, t) in enumerate(zip(names, tangents, strict=True))
    ]
    return Forest(*views, tuple(given), impl)


def judge(p: Forest) -> float:
    """The worst error in units of its tolerance; AssertionError for what no rounding excuses."""
    results = p.solve()
    inputs = _in_one_batch(p)
    wide = [None if t is None else t.double() for t in inputs]
    wanted = [
        reference.soft_forest(*wide[4:]),
        *reference.soft_forest_backward(*wide[3:]),
        *reference.soft_forest_double_backward(*wide),
    ]
    dtype = p.z.dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    limits = [*first_bounds(*inputs[3:], dtype=compute), *second_bounds(*inputs, dtype=compute)]
    depth = p.leaves.shape[-2].bit_length() - 1
    lost = lost_to_underflow(depth, *(t for t in inputs if t is not None), dtype=compute)
    error = 0.0
    for name, got, want, limit in zip(NAMES, results, wanted, limits, strict=True):
        assert got.dtype == dtype, f"{name} is {got.dtype}"
        got = got.double().reshape(want.shape)
        assert torch.equal(got.isnan(), want.isnan()), f"{name}: NaN in other places than the definition's"
        limit = 1.01 * limit.nan_to_num() + lost  # 1.01 for what is of second order
        if compute != dtype:  # rounded once more, to a number that may be subnormal or overflow
            info = torch.finfo(dtype)
            limit = limit + info.eps / 2 * (want.abs() + limit) + info.smallest_normal * info.eps
            limit = limit.masked_fill(want.abs() + limit > info.max, INF)
        error = max(error, in_units((got - want).abs().nan_to_num(), limit))
    if p.impl != "reference":  # whose products torch sums in an order that follows the strides
        copies = [dense(t) for t in p[:4]]
        plain = Forest(*copies, tuple(dense(t) for t in p.tangents), p.impl)
        for name, a, b in zip(NAMES, results, plain.solve(), strict=True):
            assert same_bits([a], [b]), f"{name}: strides change the result"
    return error


def _in_one_batch(p: Forest) -> list[Tensor | None]:
    """dz, dthresholds, dleaves, grad_out, z, thresholds, leaves as a batch, of one entry where forests are shared."""
    if p.leaves.dim() == 3:
        parts = [(t if t is None else t.reshape(1, -1, t.shape[-1])) for t in (p.tangents[0], p.grad_out, p.z)]
        forests = [t if t is None else t[None] for t in (*p.tangents[1:], p.thresholds, p.leaves)]
    else:
        parts = [(t if t is None else t.flatten(0, -3)) for t in (p.tangents[0], p.grad_out, p.z)]
        forests = [
            t if t is None else t.flatten(0, -1 - kept)
            for t, kept in zip((*p.tangents[1:], p.thresholds, p.leaves), (2, 3, 2, 3), strict=True)
        ]
    return [parts[0], *forests[:2], *parts[1:], *forests[2:]]
