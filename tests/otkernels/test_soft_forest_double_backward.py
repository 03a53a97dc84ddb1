"""The double backward of soft_forest against its definition, differentiated twice in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from otkernels import soft_forest
from otkernels.soft_forest import reference
from tests.otkernels.cases import devices_and_impls
from tests.otkernels.forests import second_bounds

everywhere = pytest.mark.parametrize(("device", "impl"), devices_and_impls("soft_forest"))
double_backward = torch.ops.otkernels.soft_forest_double_backward
NAMES = ("dz", "dthresholds", "dleaves")
SIZES = [  # batch, n, trees, depth, d, d_out
    (1, 0, 2, 3, 4, 3),
    (1, 1, 1, 0, 1, 1),
    (2, 5, 3, 0, 4, 3),
    (1, 7, 3, 1, 2, 2),
    (3, 40, 2, 3, 5, 7),
    (1, 64, 16, 3, 2, 2),
    (1, 130, 18, 3, 128, 128),
    (2, 33, 2, 6, 4, 40),
    (1, 600, 5, 4, 20, 17),
    (1, 19, 1, 12, 5, 3),
]


def draw(size, randn, dtype=torch.float32, device="cpu") -> list[Tensor]:
    """dz, dthresholds, dleaves, grad_out, z, thresholds, leaves."""
    batch, n, trees, depth, d, d_out = size
    z, thresholds, leaves = (batch, n, d), (batch, trees, 2**depth - 1), (batch, trees, 2**depth, d_out)
    shapes = z, thresholds, leaves, (batch, n, d_out), z, thresholds, leaves
    return [randn(*shape, dtype=dtype, device=device) for shape in shapes]


def by_autograd(*inputs: Tensor | None) -> tuple[Tensor, ...]:
    """The definition's forward pass, differentiated twice by autograd in float64."""
    tangents = inputs[:3]
    primals = [t.double().detach().requires_grad_() for t in inputs[3:]]  # grad_out, z, thresholds, leaves
    out = reference.soft_forest(*primals[1:])
    grads = torch.autograd.grad(out, primals[1:], primals[0], create_graph=True, allow_unused=True)
    pairs = [(g, t.double()) for g, t in zip(grads, tangents, strict=True) if g is not None and t is not None]
    total = sum((g * t).sum() for g, t in pairs)
    found = torch.autograd.grad(total, primals, allow_unused=True)
    return tuple(torch.zeros_like(p) if g is None else g for g, p in zip(found, primals, strict=True))


def assert_within_bounds(got: tuple[Tensor, ...], *inputs: Tensor | None) -> None:
    exact = by_autograd(*inputs)
    limits = second_bounds(*inputs, dtype=got[0].dtype)
    for name, result, want, limit in zip(("grad_out", "z", "thresholds", "leaves"), got, exact, limits, strict=True):
        assert result.shape == want.shape
        # 1.01 for what is of second order; the last term where products of weights underflow
        assert ((result.double() - want).abs() <= 1.01 * limit + 1e-30).all(), name


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_autograd_twice_in_float64(size, dtype, device, impl, randn):
    if device == "cuda" and impl != "reference":
        dtype = torch.float32
    inputs = draw(size, randn, dtype, device)
    assert_within_bounds(double_backward(*inputs, impl), *inputs)


@everywhere
@pytest.mark.parametrize("given", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], ids=str)
def test_absent_cotangents_are_zeros(given, device, impl, randn):
    inputs = draw((2, 37, 3, 3, 5, 9), randn, device=device)
    absent = [t if k in given or k > 2 else None for k, t in enumerate(inputs)]
    zeros = [torch.zeros_like(t) if a is None else t for a, t in zip(absent, inputs, strict=True)]
    got = double_backward(*absent, impl)
    assert_within_bounds(got, *absent)
    assert_within_bounds(double_backward(*zeros, impl), *absent)
    if impl == "cpu":
        assert all(torch.equal(a, b) for a, b in zip(got, double_backward(*zeros, impl), strict=True))


@everywhere
def test_gradient_penalty_reaches_every_input(device, impl, randn):
    """|d f(F(z)) / dz|^2 differentiated: in float64 where the implementation has it."""
    dtype = torch.float64 if device == "cpu" or impl == "reference" else torch.float32
    inputs = [t[0].requires_grad_() for t in draw((1, 50, 4, 3, 6, 5), randn, dtype, device)[4:]]
    mix = randn(5, 5, dtype=dtype, device=device)

    def penalty(out: Tensor, z: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad((out @ mix.to(out.dtype)).tanh().sum(), z, create_graph=True)
        return slope.square().sum()

    got = torch.autograd.grad(penalty(soft_forest(*inputs, impl=impl), inputs[0]), inputs)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    out = reference.soft_forest(*(t[None] for t in exact))[0]
    want = torch.autograd.grad(penalty(out, exact[0]), exact)
    # a chain of forward, backward and double backward: below (D + 2)(X + 12) + 3 K + n, on CUDA 17 K + 8 n, u each
    limit = (3 if dtype == torch.float64 else 9) * 400 * torch.finfo(dtype).eps / 2
    for a, b in zip(got, want, strict=True):
        assert (a.double() - b).norm() <= limit * b.norm()


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_gradcheck_of_the_gradients_once_and_twice(depth, impl, randn):
    inputs = [t.requires_grad_() for t in draw((1, 3, 2, depth, 2, 2), randn, torch.float64)[3:]]

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.otkernels.soft_forest_backward(*tensors, impl)

    assert torch.autograd.gradcheck(gradients, inputs)
    assert torch.autograd.gradgradcheck(gradients, inputs)


@everywhere
def test_saturated_deep_trees_stay_finite_and_hard(device, impl, randn):
    """At |z| = 1000 nothing moves: a soft tree is a hard one, and only dleaves reach grad_out."""
    inputs = draw((1, 20, 1, 12, 12, 2), randn, device=device)
    inputs[4], inputs[5] = 1000 * inputs[4].sign(), torch.zeros_like(inputs[5])
    grad_grad_out, *others = double_backward(*inputs, impl)
    torch.testing.assert_close(grad_grad_out, soft_forest(inputs[4], inputs[5], inputs[2], impl=impl))
    assert not any(other.any() for other in others)


@everywhere
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_deep_trees_keep_their_digits(scale, device, impl, randn):
    inputs = draw((1, 30, 1, 12, 7, 2), randn, device=device)
    inputs[4] *= scale  # reaches down to the smallest floats
    got = double_backward(*inputs, impl)
    assert all(result.isfinite().all() for result in got)
    assert_within_bounds(got, *inputs)


@everywhere
def test_one_forest_for_a_batch_equals_copies(device, impl, randn):
    inputs = draw((3, 45, 3, 2, 5, 4), randn, device=device)
    shared = [t[:1].expand_as(t) if k > 4 else t for k, t in enumerate(inputs)]
    copies = [t.contiguous() for t in shared]
    for a, b in zip(double_backward(*shared, impl), double_backward(*copies, impl), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert_within_bounds(double_backward(*shared, impl), *copies)


@everywhere
def test_views_are_read_as_they_are(device, impl, randn):
    inputs = draw((2, 12, 3, 2, 5, 4), randn, device=device)
    views = [t.mT.contiguous().mT for t in inputs]
    for a, b in zip(double_backward(*views, impl), double_backward(*inputs, impl), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@everywhere
def test_the_same_bits_every_time(device, impl, randn):
    inputs = draw((1, 13_000, 4, 3, 9, 6), randn, device=device)  # enough work for several threads
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3, threads):
            torch.set_num_threads(count)
            runs.append(double_backward(*inputs, impl))
    finally:
        torch.set_num_threads(threads)
    if impl != "reference":  # PyTorch's own sums depend on the number of threads
        assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


@everywhere
def test_nan_stays_in_its_row(device, impl, randn):
    inputs = draw((1, 70, 3, 2, 7, 4), randn, device=device)
    inputs[4][0, 40] = math.nan
    grad_grad_out, grad_z, *_ = double_backward(*inputs, impl)
    bad = torch.arange(70, device=device) == 40
    assert torch.equal(grad_grad_out[0].isnan().any(1), bad)
    assert torch.equal(grad_z[0].isnan().any(1), bad)


@everywhere
@pytest.mark.parametrize("absent", [(), (1, 2)], ids=str)
def test_vmap_equals_the_loop(absent, device, impl, randn):
    parts = [draw((2, 20, 3, 2, 5, 4), randn, device=device) for _ in range(3)]
    inputs = [torch.stack(tensors, 1) for tensors in zip(*parts, strict=True)]
    given = [k for k in range(7) if k not in absent]

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        filled = dict(zip(given, tensors, strict=True))
        return double_backward(*(filled.get(k) for k in range(7)), impl)

    batched = torch.vmap(call, in_dims=1)(*(inputs[k] for k in given))
    shared = torch.vmap(lambda t: call(t, *(inputs[k][:, 0] for k in given[1:])), in_dims=1)(inputs[0])
    for b in range(3):
        alone = call(*(inputs[k][:, b] for k in given))
        mixed = call(inputs[0][:, b], *(inputs[k][:, 0] for k in given[1:]))
        for got, want in zip([t[b] for t in (*batched, *shared)], (*alone, *mixed), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@everywhere
def test_compiles_whole(device, impl, randn):
    inputs = draw((1, 12, 3, 2, 5, 4), randn, device=device)

    def call(*tensors: Tensor) -> Tensor:
        return sum(result.square().sum() for result in double_backward(*tensors, impl))

    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(*inputs), call(*inputs))


@everywhere
@pytest.mark.parametrize("absent", [(), (1, 2)], ids=str)
def test_opcheck(absent, device, impl, randn):
    inputs = draw((1, 6, 2, 2, 3, 2), randn, device=device)
    inputs = [None if k in absent else t.requires_grad_() for k, t in enumerate(inputs)]
    torch.library.opcheck(double_backward.default, (*inputs, impl))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_widened_and_rounded_once(dtype, randn):
    inputs = draw((1, 33, 3, 2, 5, 4), randn, dtype)
    wide = double_backward(*(t.float() for t in inputs), "cpu")
    for got, want in zip(double_backward(*inputs, "cpu"), wide, strict=True):
        assert torch.equal(got, want.to(dtype))
