"""soft_forest's Triton kernels, in Triton's interpreter without a GPU (TRITON_INTERPRET=1), on the GPU with one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

triton_impl = importlib.import_module("otkernels.soft_forest.triton")
soft_forest, soft_forest_backward = triton_impl.soft_forest, triton_impl.soft_forest_backward

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # the interpreter's own
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# one rounding; Triton's interpreter truncates to bfloat16 (a GPU rounds)
U = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-7}


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty holds NaN, so that an output which no kernel wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def forest(
    b: int, n: int, d: int, trees: int, depth: int, d_out: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """grad_out, z, thresholds, leaves."""
    generator = torch.Generator().manual_seed(b + n + d + trees + depth + d_out)
    shapes = ((b, n, d_out), (b, n, d), (b, trees, 2**depth - 1), (b, trees, 2**depth, d_out))
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]


def definition(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """Leaf by leaf, down its path: the paper's section 4.2, in float64."""
    trees, count, d_out = leaves.shape[1:]
    depth, nodes, d = count.bit_length() - 1, count - 1, z.shape[2]
    out = z.new_zeros(*z.shape[:2], d_out)
    for tree in range(trees):
        for leaf in range(count):
            mu, node = z.new_ones(z.shape[:2]), 0
            for level in range(depth):
                right = leaf >> (depth - 1 - level) & 1
                logit = z[..., (tree * nodes + node) % d] - thresholds[:, tree, node, None]
                mu = mu * torch.sigmoid(-logit if right else logit)
                node = 2 * node + 1 + right
            out = out + mu[..., None] * leaves[:, None, tree, leaf] / trees
    return out


def expected(grad_out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The output and the three gradients, in float64."""
    inputs = tuple(tensor.double().requires_grad_() for tensor in inputs)
    out = definition(*inputs)
    grads = torch.autograd.grad(out, inputs, grad_out.double(), allow_unused=True)
    return (out.detach(), *(torch.zeros_like(i) if g is None else g for g, i in zip(grads, inputs, strict=True)))


def check(tensors: list[Tensor], terms: float) -> None:
    """Output and gradients within `terms` roundings of the sums' absolute size, judged by the largest element."""
    grad_out, *inputs = tensors
    found = (soft_forest(*inputs), *soft_forest_backward(grad_out, *inputs))
    for got, want, like in zip(found, expected(grad_out, *inputs), (grad_out, *inputs), strict=True):
        assert got.shape == like.shape
        assert got.dtype == like.dtype
        if got.numel():
            tolerance = terms * 2.0**-24 + U[got.dtype]  # float32 sums, rounded once
            assert (got - want).abs().max() <= tolerance * max(1.0, want.abs().max().item())


@pytest.mark.parametrize("dtype", U)
@pytest.mark.parametrize(
    ("b", "n", "d", "trees", "depth", "d_out"),
    [(1, 1, 1, 1, 0, 1), (2, 5, 3, 2, 0, 3), (2, 37, 5, 3, 1, 4), (1, 64, 7, 4, 3, 2), (1, 33, 40, 3, 3, 17)],
)
def test_values_and_gradients(b: int, n: int, d: int, trees: int, depth: int, d_out: int, dtype: torch.dtype) -> None:
    # sums over n rows or trees 2^depth leaves or d_out outputs of terms of about 1, 10 roundings per share and product
    check(forest(b, n, d, trees, depth, d_out, dtype), 10 * (depth + 1) + n + trees * 2**depth + d_out)


def test_many_outputs() -> None:
    check(forest(1, 3, 4, 2, 2, 150), 30 + 8 + 150)


def test_deep_trees_climb_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_impl, "_SUBTREE_LEVELS", 2)
    check(forest(1, 5, 6, 2, 5, 2), 60 + 64)


def test_deeper_than_one_subtree() -> None:
    check(forest(1, 4, 6, 1, 7, 2), 80 + 128)


def test_saturated_shares_stay_finite() -> None:
    grad_out, z, thresholds, leaves = forest(1, 8, 5, 2, 6, 3)
    z = 60 * z  # shares down to 1e-60: they underflow, and the rest of their product is right
    check([grad_out, z, thresholds, leaves], 80 + 128)
    for grad in soft_forest_backward(grad_out, z, thresholds, leaves):
        assert grad.isfinite().all()


def test_small_shares_keep_their_digits() -> None:
    """1 - p would be 0 or have 3 digits left: the right leaf alone is seen through a leaf value of 0 on the left."""
    z = torch.tensor([[[10.0], [16.0], [30.0]]], device=DEVICE)
    leaves = torch.tensor([0.0, 1.0], device=DEVICE).view(1, 1, 2, 1)
    out = soft_forest(z, torch.zeros(1, 1, 1, device=DEVICE), leaves)
    # exp is off by |z| 2^-23 at most, then two roundings
    torch.testing.assert_close(out.double(), torch.sigmoid(-z.double()), rtol=32 * 2.0**-23, atol=0)


def test_rows_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = forest(2, 70, 3, 2, 2, 2)
    whole = soft_forest_backward(*tensors)
    monkeypatch.setattr(triton_impl, "_WORKSPACE", 1)  # slices of one block of rows
    sliced = soft_forest_backward(*tensors)
    assert torch.equal(sliced[0], whole[0])
    assert torch.equal(sliced[2], whole[2])
    torch.testing.assert_close(sliced[1], whole[1], rtol=0, atol=70 * 2.0**-24 * 2)
    check(tensors, 30 + 70)


def test_strides() -> None:
    grad_out, z, thresholds, leaves = forest(2, 9, 4, 3, 2, 5)
    strided = (
        grad_out.mT.contiguous().mT,
        z.repeat_interleave(2, dim=2)[..., ::2],
        thresholds[:1].expand_as(thresholds),
        leaves[:1].transpose(1, 3).contiguous().transpose(1, 3).expand_as(leaves),
    )
    assert not any(tensor.is_contiguous() for tensor in strided)
    dense = [tensor.contiguous() for tensor in strided]
    assert torch.equal(soft_forest(*strided[1:]), soft_forest(*dense[1:]))
    for got, want in zip(soft_forest_backward(*strided), soft_forest_backward(*dense), strict=True):
        assert torch.equal(got, want)


def test_repeats_bit_for_bit() -> None:
    tensors = forest(1, 70, 5, 3, 3, 4)
    for first, second in zip(soft_forest_backward(*tensors), soft_forest_backward(*tensors), strict=True):
        assert torch.equal(first, second)


def test_nan_stays_in_its_row() -> None:
    grad_out, z, thresholds, leaves = forest(1, 6, 3, 2, 2, 2)
    z[0, 4] = float("nan")
    bad = torch.arange(6, device=DEVICE) == 4
    assert torch.equal(soft_forest(z, thresholds, leaves)[0].isnan().all(-1), bad)
    assert torch.equal(soft_forest_backward(grad_out, z, thresholds, leaves)[0][0].isnan().all(-1), bad)


def test_no_rows() -> None:
    tensors = forest(2, 0, 3, 2, 2, 4)
    assert soft_forest(*tensors[1:]).shape == (2, 0, 4)
    grad_z, *grads = soft_forest_backward(*tensors)
    assert grad_z.shape == (2, 0, 3)
    assert all((grad == 0).all() for grad in grads)


def test_where_it_runs() -> None:
    assert triton_impl.supports(DEVICE, torch.bfloat16) == ""
    assert "float64" in triton_impl.supports(DEVICE, torch.float64)
