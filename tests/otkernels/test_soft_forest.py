"""soft_forest against its definition in float64, on every implementation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from otkernels import soft_forest
from tests.otkernels.cases import devices_and_impls

everywhere = pytest.mark.parametrize(("device", "impl"), devices_and_impls("soft_forest"))
SIZES = [  # n, trees, depth, d, d_out
    (1, 1, 0, 1, 1),
    (5, 3, 0, 4, 3),
    (7, 3, 1, 2, 2),
    (40, 2, 3, 5, 7),
    (64, 16, 3, 2, 2),
    (130, 18, 3, 128, 128),
    (33, 2, 6, 4, 40),
    (9, 1, 10, 3, 5),
    (600, 5, 4, 20, 17),
]


def forest(n, trees, depth, d, d_out, randn, dtype=torch.float32, device="cpu"):
    shapes = (n, d), (trees, 2**depth - 1), (trees, 2**depth, d_out)
    return [randn(*shape, dtype=dtype, device=device).requires_grad_() for shape in shapes]


def by_hand(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """SPEC section 1 leaf by leaf, in float64: the path to a leaf is its number's bits, high bit first, 0 is left."""
    z, thresholds, leaves = z.double(), thresholds.double(), leaves.double()
    trees, width, d_out = leaves.shape
    depth, nodes = int(math.log2(width)), width - 1
    out = torch.zeros(*z.shape[:-1], d_out, dtype=torch.float64, device=z.device)
    for t in range(trees):
        for leaf in range(width):
            mu, node = torch.ones_like(out[..., 0]), 0
            for level in range(depth):
                logit = z[..., (t * nodes + node) % z.shape[-1]] - thresholds[t, node]
                right = leaf >> (depth - 1 - level) & 1
                mu = mu * (-logit if right else logit).sigmoid()
                node = 2 * node + 1 + right
            out = out + mu[..., None] * leaves[t, leaf]
    return out / trees


def forest_bound(leaves: Tensor, depth: int, dtype: torch.dtype) -> float:
    """Error of an output: a convex combination of leaves, so the weights' relative errors times the largest leaf.

    A share errs by at most 8 u (its argument's rounding, relative to the share, 3 ulp of exp, a sum and a quotient) for
    logits up to 4 or so, `depth` shares multiply, and at most T 2^D <= 2^11 terms are added: 2^11 u in the worst order,
    but the terms sum to one leaf, so a blocked sum stays below 64 u. Half precisions round the result: 1 u of theirs.
    """
    compute = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    u = torch.finfo(compute).eps / 2
    rounding = torch.finfo(dtype).eps if compute != dtype else 0.0
    return ((8 * depth + 64) * u + rounding) * leaves.double().abs().max().item()


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_the_sum_over_paths(size, dtype, device, impl, randn):
    if dtype == torch.float64 and device == "cuda" and impl != "reference":
        dtype = torch.float32
    z, thresholds, leaves = forest(*size, randn, dtype=dtype, device=device)
    out = soft_forest(z, thresholds, leaves, impl=impl)
    assert out.dtype == dtype
    bound = forest_bound(leaves, size[2], dtype)
    if impl == "reference" and dtype in (torch.float16, torch.bfloat16):
        bound *= 8 * max(1, size[2])  # the definition rounds each step to the half precision
    assert (out.double() - by_hand(z, thresholds, leaves)).abs().max().item() <= bound


@everywhere
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gradients_match_float64_autograd(size, device, impl, randn):
    inputs = forest(*size, randn, device=device)
    grad_out = randn(size[0], size[4], device=device)
    grads = torch.autograd.grad(soft_forest(*inputs, impl=impl), inputs, grad_out, allow_unused=True)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact = torch.autograd.grad(by_hand(*exact_inputs), exact_inputs, grad_out.double(), allow_unused=True)
    for got, want in zip(grads, exact, strict=True):
        if want is None:  # a forest of depth 0 reads nothing
            assert got is None or not got.any()
        elif want.numel():
            # sums of n d_out or T 2^D products: relative to the norm of the gradient, sqrt(terms) u < 300 u = 2e-5
            assert (got.double() - want).norm() <= 2e-5 * want.norm()


@everywhere
@pytest.mark.parametrize("depth", [1, 3, 12])
def test_equal_leaves_give_the_leaf(depth, device, impl, randn):
    """Routing weights of a tree sum to one, also where they saturate."""
    z, thresholds, _ = forest(50, 3, depth, 7, 2, randn, device=device)
    leaf = torch.tensor([3.0, -5.0], device=device)
    out = soft_forest(100 * z, thresholds, leaf.expand(3, 2**depth, 2), impl=impl)
    assert ((out - leaf).abs() <= 5 * (8 * depth + 64) * 2.0**-24).all()


@everywhere
def test_saturated_deep_trees_stay_finite_and_hard(device, impl, randn):
    """At |z| = 1000 a soft tree is a hard one: the output is one leaf, the gradients are zero, nothing is NaN."""
    depth = 12
    signs = torch.where(randn(20, depth, device=device) > 0, 1.0, -1.0)
    leaves = randn(1, 2**depth, 2, device=device)
    z = (1000 * signs).requires_grad_()
    out = soft_forest(z, torch.zeros(1, 2**depth - 1, device=device), leaves, impl=impl)
    for row in range(20):
        node = 0
        for _ in range(depth):
            node = 2 * node + (1 if signs[row, node % depth] > 0 else 2)
        torch.testing.assert_close(out[row], leaves[0, node - (2**depth - 1)], atol=0, rtol=1e-6)
    (grad,) = torch.autograd.grad(out.sum(), z)
    assert not grad.any()


@everywhere
def test_left_is_child_zero(device, impl):
    """Fig. 2: leaf 0 holds p0 p1 p3, written out."""
    z = torch.tensor([[0.3, -0.7, 1.1, 0.2, 0.5, -0.4, 0.9]], device=device)
    leaves = torch.zeros(1, 8, 1, device=device)
    leaves[0, 0] = 1
    p = z[0].sigmoid()
    out = soft_forest(z, torch.zeros(1, 7, device=device), leaves, impl=impl)
    torch.testing.assert_close(out[0, 0], p[0] * p[1] * p[3], rtol=1e-6, atol=0)
    leaves = leaves.roll(5, 1)  # leaf 5 = right, left, right: nodes 0, 2, 5
    out = soft_forest(z, torch.zeros(1, 7, device=device), leaves, impl=impl)
    torch.testing.assert_close(out[0, 0], (1 - p[0]) * p[2] * (1 - p[5]), rtol=1e-6, atol=0)


@everywhere
def test_one_forest_per_batch_entry(device, impl, randn):
    parts = [forest(45, 3, 2, 5, 4, randn, device=device) for _ in range(3)]
    together = [torch.stack([part[k] for part in parts]).detach().requires_grad_() for k in range(3)]
    grad_out = randn(3, 45, 4, device=device)
    out = soft_forest(*together, impl=impl)
    grads = torch.autograd.grad(out, together, grad_out)
    for b, part in enumerate(parts):
        alone = soft_forest(*part, impl=impl)
        torch.testing.assert_close(out[b], alone, rtol=1e-6, atol=1e-6)
        for grad, want in zip(grads, torch.autograd.grad(alone, part, grad_out[b]), strict=True):
            torch.testing.assert_close(grad[b], want, rtol=1e-5, atol=1e-5)


@everywhere
def test_leading_dimensions_are_rows(device, impl, randn):
    z, thresholds, leaves = forest(24, 3, 2, 5, 4, randn, device=device)
    out = soft_forest(z.view(2, 3, 4, 5), thresholds, leaves, impl=impl)
    assert torch.equal(out.view(24, 4), soft_forest(z, thresholds, leaves, impl=impl))


@everywhere
def test_nothing_in_nothing_out(device, impl, randn):
    z, thresholds, leaves = forest(0, 3, 2, 5, 4, randn, device=device)
    out = soft_forest(z, thresholds, leaves, impl=impl)
    grads = torch.autograd.grad(out.sum(), (z, thresholds, leaves))
    assert out.shape == (0, 4)
    assert not grads[1].any()
    assert not grads[2].any()


@everywhere
def test_nan_stays_in_its_row(device, impl, randn):
    z, thresholds, leaves = forest(70, 3, 2, 7, 4, randn, device=device)
    z = z.detach()
    z[40] = math.nan
    out = soft_forest(z, thresholds, leaves, impl=impl)
    bad = torch.arange(70, device=device) == 40
    assert torch.equal(out.isnan().any(1), bad)


@everywhere
def test_views_are_read_as_they_are(device, impl, randn):
    z, thresholds, leaves = randn(10, 33, device=device), randn(14, 3, device=device), randn(4, 8, 3, device=device)
    views = z.T[:, ::2], thresholds.T[:, ::2], leaves.permute(2, 1, 0)
    out = soft_forest(*views, impl=impl)
    assert (out.double() - by_hand(*views)).abs().max().item() <= forest_bound(leaves, 3, torch.float32)
    (grad,) = torch.autograd.grad(soft_forest(views[0].requires_grad_(), *views[1:], impl=impl).sum(), views[0])
    assert grad.shape == views[0].shape


@everywhere
def test_gradients_are_the_same_bits_every_time(device, impl, randn):
    inputs = forest(13_000, 4, 3, 9, 6, randn, device=device)  # enough work for several threads
    grad_out = randn(13_000, 6, device=device)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3, threads):
            torch.set_num_threads(count)
            runs.append(torch.autograd.grad(soft_forest(*inputs, impl=impl), inputs, grad_out))
    finally:
        torch.set_num_threads(threads)
    if impl != "reference":  # PyTorch's own sums depend on the number of threads
        for other in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_gradcheck_once_and_twice(depth, impl, randn):
    inputs = forest(4, 2, depth, 3, 2, randn, dtype=torch.float64)

    def out(*tensors: Tensor) -> Tensor:
        return soft_forest(*tensors, impl=impl)

    assert torch.autograd.gradcheck(out, inputs)
    assert torch.autograd.gradgradcheck(out, inputs)


@everywhere
def test_vmap_equals_the_loop(device, impl, randn):
    parts = [[t.detach() for t in forest(20, 3, 2, 5, 4, randn, device=device)] for _ in range(3)]
    z, thresholds, leaves = (torch.stack([part[k] for part in parts]) for k in range(3))
    batched = torch.vmap(lambda *a: soft_forest(*a, impl=impl))(z, thresholds, leaves)
    shared = torch.vmap(lambda a: soft_forest(a, *parts[0][1:], impl=impl))(z)
    for b, part in enumerate(parts):
        torch.testing.assert_close(batched[b], soft_forest(*part, impl=impl), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(shared[b], soft_forest(part[0], *parts[0][1:], impl=impl), rtol=1e-6, atol=1e-6)


@everywhere
def test_per_row_gradients_by_vmap(device, impl, randn):
    z, thresholds, leaves = forest(6, 2, 2, 3, 2, randn, device=device)
    out = soft_forest(z, thresholds, leaves, impl=impl).sum(1)
    (rows,) = torch.autograd.grad(out, z, torch.eye(6, device=device), is_grads_batched=True)
    (total,) = torch.autograd.grad(soft_forest(z, thresholds, leaves, impl=impl).sum(), z)
    torch.testing.assert_close(rows.sum(0), total)


@everywhere
def test_compiles_whole(device, impl, randn):
    inputs = forest(12, 3, 2, 5, 4, randn, device=device)

    def loss(*tensors: Tensor) -> Tensor:
        return soft_forest(*tensors, impl=impl).square().sum()

    eager = torch.autograd.grad(loss(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*inputs), inputs)
    assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))


@everywhere
def test_opcheck(device, impl, randn):
    inputs = [t.detach()[None].requires_grad_() for t in forest(6, 2, 2, 3, 2, randn, device=device)]
    torch.library.opcheck(torch.ops.otkernels.soft_forest.default, (*inputs, impl))
    grad_out = randn(1, 6, 2, device=device)
    torch.library.opcheck(torch.ops.otkernels.soft_forest_backward.default, (grad_out, *inputs, impl))


def test_vmap_over_nothing_is_empty():
    out = torch.vmap(lambda a: soft_forest(a, torch.zeros(2, 1), torch.ones(2, 2, 4)))(torch.zeros(0, 3, 5))
    assert out.shape == (0, 3, 4)


def test_mixed_dtypes_meet_in_float32_under_autocast(randn):
    z, thresholds, leaves = forest(6, 2, 2, 3, 2, randn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = soft_forest(z.bfloat16(), thresholds, leaves)
    assert out.dtype == torch.float32
    assert torch.equal(out, soft_forest(z.bfloat16().float(), thresholds, leaves))


Z, THRESHOLDS, LEAVES = torch.zeros(3, 4), torch.zeros(2, 7), torch.zeros(2, 8, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Z[0], THRESHOLDS, LEAVES), "soft_forest: z must be [..., N, d] with d >= 1, got [4]"),
        ((Z, THRESHOLDS, LEAVES[0]), "soft_forest: leaves must be [..., T, 2^D, d_out], got [8, 5]"),
        (
            (Z, THRESHOLDS[:, :5], LEAVES[:, :6]),
            "soft_forest: leaves must be [..., T, 2^D, d_out] with T, d_out >= 1 and a power of two of leaves a tree, "
            "got [2, 6, 5]",
        ),
        (
            (Z, THRESHOLDS[:, :6], LEAVES),
            "soft_forest: thresholds must be [2, 7] for leaves [2, 8, 5], got [2, 6]",
        ),
        (
            (Z, THRESHOLDS, LEAVES.expand(3, 2, 8, 5)),
            "soft_forest: leaves must be [T, 2^D, d_out] or have z's leading dimensions [], got [3, 2, 8, 5]",
        ),
        (
            (Z, THRESHOLDS, LEAVES.double()),
            "soft_forest: leaves must have z's dtype torch.float32, got torch.float64 [2, 8, 5]",
        ),
        ((Z, THRESHOLDS.to("meta"), LEAVES), "soft_forest: thresholds must be on z's device cpu, got meta [2, 7]"),
        (
            (Z.int(), THRESHOLDS, LEAVES),
            "soft_forest: z must be float32, float64, float16 or bfloat16, got torch.int32 [3, 4]",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        soft_forest(*arguments)
    assert str(error.value) == message
