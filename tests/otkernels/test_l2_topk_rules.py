"""l2_topk as PyTorch sees it: derivatives, vmap, the compiler, autocast, and what it says of wrong arguments."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from otkernels import l2_topk
from tests.otkernels.cases import devices_and_impls

everywhere = pytest.mark.parametrize(("device", "impl"), devices_and_impls("l2_topk"))


@everywhere
def test_gradients_are_those_of_the_chosen_pairs(device, impl, randn):
    x, y, potential = (randn(*s, device=device).requires_grad_() for s in ((40, 6), (30, 6), (30,)))
    weight = randn(40, 5, device=device)
    value, index = l2_topk(x, y, 5, potential, impl=impl)
    grads = torch.autograd.grad(value, (x, y, potential), weight)
    pairs = (x[:, None] - y[index]).square().sum(-1) - potential[index]
    expected = torch.autograd.grad(pairs, (x, y, potential), weight)
    for got, want in zip(grads, expected, strict=True):
        # sums of at most 200 products of numbers below 20 in different order: 200 u 20 < 3e-4
        torch.testing.assert_close(got, want, atol=3e-4, rtol=0)
    assert not index.requires_grad


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_gradcheck_once_twice_and_forward(impl, randn):
    x, y, potential = (randn(*s, dtype=torch.float64).requires_grad_() for s in ((2, 4, 3), (2, 5, 3), (2, 5)))

    def value(x: Tensor, y: Tensor, potential: Tensor) -> Tensor:
        return l2_topk(x, y, 3, potential, impl=impl).value

    assert torch.autograd.gradcheck(value, (x, y, potential), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(value, (x, y, potential))


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_equal_the_definitions(order, randn):
    x, y, potential = (randn(*s, dtype=torch.float64).requires_grad_() for s in ((30, 7), (50, 7), (50,)))

    def grads(impl: str) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(
            l2_topk(x, y, 9, potential, impl=impl).value.square().sum(), (x, y, potential), create_graph=True
        )
        if order == 1:
            return first
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, y, potential))

    for got, want in zip(grads("cpu"), grads("reference"), strict=True):
        torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-11)  # float64: sums of some 300 terms below 1e4


@everywhere
def test_nan_rows_send_no_gradient_to_y(device, impl, randn):
    x, y, potential = (randn(*s, device=device) for s in ((5, 4), (6, 4), (6,)))
    x[2, 0] = math.nan
    x, y, potential = (tensor.requires_grad_() for tensor in (x, y, potential))
    l2_topk(x, y, 3, potential, impl=impl).value.nansum().backward()
    assert y.grad.isfinite().all()
    assert potential.grad.isfinite().all()
    assert x.grad[2].isnan().all()
    assert x.grad[[0, 1, 3, 4]].isfinite().all()


def test_the_gradient_s_memory_does_not_hold_all_pairs(randn):
    """N k D floats would be 16 MiB; each of the k steps holds N D of them a few times."""
    x, y = randn(512, 128).requires_grad_(), randn(600, 128).requires_grad_()
    value = l2_topk(x, y, 64).value.sum()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        value.backward()
    largest = max(event.cpu_memory_usage for event in profile.events() if not event.cpu_children)
    assert largest <= 600 * 128 * 4


@everywhere
def test_vmap_equals_the_loop(device, impl, randn):
    x, y, potential = randn(4, 7, 3, device=device), randn(9, 4, 3, device=device), randn(9, device=device)
    value, index = torch.vmap(lambda a, b: l2_topk(a, b, 4, potential, impl=impl), in_dims=(0, 1))(x, y)
    for i in range(4):
        alone = l2_topk(x[i], y[:, i], 4, potential, impl=impl)
        assert torch.equal(alone.value, value[i])
        assert torch.equal(alone.index, index[i])


def test_vmap_over_nothing_is_empty():
    value, index = torch.vmap(lambda a: l2_topk(a, a, 2))(torch.zeros(0, 3, 2))
    assert value.shape == index.shape == (0, 3, 2)


def test_torch_func_agrees_in_all_directions(randn):
    x, y = randn(6, 3, dtype=torch.float64), randn(8, 3, dtype=torch.float64)

    def value(rows: Tensor) -> Tensor:
        return l2_topk(rows, y, 4).value

    reverse, forward = torch.func.jacrev(value)(x), torch.func.jacfwd(value)(x)
    torch.testing.assert_close(reverse, forward, rtol=1e-12, atol=1e-12)
    second = torch.func.hessian(lambda rows: value(rows).sum())(x)
    # each of the 4 terms of a row is |x - y|^2: its Hessian is twice the identity
    torch.testing.assert_close(second.reshape(18, 18), 8 * torch.eye(18, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@everywhere
def test_compiles_whole(device, impl, randn):
    x, y = randn(12, 5, device=device).requires_grad_(), randn(9, 5, device=device)

    def loss(x: Tensor, y: Tensor, k: int) -> Tensor:
        return (2 * l2_topk(x, y, k, impl=impl).value).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for k in (3, 4, 6):  # the compiler makes k a variable at the second
        (expected,) = torch.autograd.grad(loss(x, y, k), x)
        (got,) = torch.autograd.grad(compiled(x, y, k), x)
        assert torch.equal(got, expected)


@everywhere
def test_opcheck(device, impl, randn):
    x, y, potential = randn(2, 5, 3, device=device), randn(2, 4, 3, device=device), randn(2, 4, device=device)
    inputs = [t.requires_grad_() for t in (x, y, potential)]
    torch.library.opcheck(torch.ops.otkernels.l2_topk.default, (*inputs, 3, impl))


def test_mixed_dtypes_meet_in_float32_under_autocast(randn):
    x, y = randn(9, 5), randn(8, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, index = l2_topk(x, y, 3)
    expected = l2_topk(x, y.float(), 3)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected.value)
    assert torch.equal(index, expected.index)


def test_half_precisions_give_float32_values_and_gradients_of_their_own(randn):
    x, y = randn(9, 5).bfloat16().requires_grad_(), randn(8, 5).bfloat16()
    value, _ = l2_topk(x, y, 3)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == torch.bfloat16


def test_jit_trace_records_the_op(randn):
    y = randn(9, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; it must still not record nonsense
        traced = torch.jit.trace(lambda a: l2_topk(a, y, 2).value, randn(7, 5))
    x = randn(7, 5)
    assert torch.equal(traced(x), l2_topk(x, y, 2).value)


def test_meta_tensors_have_shapes():
    x = torch.zeros(3, 4, device="meta")
    value, index = l2_topk(x, x, 2, impl="reference")
    assert value.shape == index.shape == (3, 2)


def test_the_result_is_saved_and_read(tmp_path, randn):
    found = l2_topk(randn(4, 2), randn(5, 2), 2)
    torch.save(found, tmp_path / "found.pt")
    again = torch.load(tmp_path / "found.pt", weights_only=True)
    assert type(again) is type(found)
    assert torch.equal(again.index, found.index)


X = torch.zeros(3, 4)
LARGE = torch.zeros(200, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4), X, 1), "l2_topk: x must be [..., N, D] with D >= 1, got [4]"),
        ((X, torch.zeros(5, 6), 1), "l2_topk: y must be [M, D] with D=4, got [5, 6]"),
        ((X, torch.zeros(0, 4), 1), "l2_topk: y must hold at least one point (M >= 1), got [0, 4]"),
        ((X, X.double(), 1), "l2_topk: y must have x's dtype torch.float32, got torch.float64 [3, 4]"),
        ((X, X, 1, torch.zeros(4)), "l2_topk: potential must be [M] with M=3, got [4]"),
        (([1.0], X, 1), "l2_topk: x must be a torch.Tensor, got list"),
        ((X, X, 4), "l2_topk: k must be at most min(M, 128) with M=3, got 4"),
        ((X, LARGE, 129), "l2_topk: k must be at most min(M, 128) with M=200, got 129"),
        ((X, X, 0), "l2_topk: k must be a whole number of at least 1, got 0"),
        ((X, X, -1), "l2_topk: k must be a whole number of at least 1, got -1"),
        ((X, X, 2.0), "l2_topk: k must be a whole number of at least 1, got 2.0"),
        ((X, X, True), "l2_topk: k must be a whole number of at least 1, got True"),
        ((X, X, None), "l2_topk: k must be a whole number of at least 1, got None"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        l2_topk(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("x", [X, X[None]], ids=["plain", "batched"])
@pytest.mark.parametrize("value", ["fast", "cuda", None, 1], ids=str)
def test_bad_options_are_named(value, x):
    with pytest.raises(ValueError, match="l2_topk: impl must be auto or one of cpu, triton, reference, got "):
        l2_topk(x, x, 1, impl=value)


def test_an_implementation_that_cannot_run_says_why():
    with pytest.raises(RuntimeError, match="l2_topk: impl='triton' cannot run here: "):  # which has no float64
        l2_topk(X.double(), X.double(), 1, impl="triton")
