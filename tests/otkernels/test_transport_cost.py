"""transport_cost against its definition in float64 and against the composed ops with their autograd."""

from __future__ import annotations

import math

import pytest
import torch

from otkernels import TransportCost, l2_argmin, soft_forest, transport_cost

from .cases import devices_and_impls
from .transports import SHAPES, cost_error

RUNS = devices_and_impls("transport_cost")


def problem(randn, shape, lead=(), own=(), dtype=torch.float32, device="cpu"):
    """z_r, z_g, thresholds, leaves; ``own``: leading dimensions of the forest."""
    n, m, d, trees, depth, d_out = shape
    draws = (
        randn(*lead, n, d_out), randn(*lead, m, d), randn(*own, trees, 2**depth - 1),
        randn(*own, trees, 2**depth, d_out) * trees**0.5,
    )  # fmt: skip
    return tuple(t.to(device, dtype) for t in draws)


def square(shape, pairing):
    return (shape[0], shape[0], *shape[2:]) if pairing == "literal" else shape


@pytest.mark.parametrize(("device", "impl"), RUNS)
@pytest.mark.parametrize(("lead", "own"), [((), ()), ((3,), (3,)), ((2, 2), ())])
@pytest.mark.parametrize("pairing", ["cover", "literal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cost_and_gradient(shape, pairing, lead, own, device, impl, randn):
    z_r, z_g, thresholds, leaves = problem(randn, square(shape, pairing), lead, own, device=device)
    z_g.requires_grad_()
    found = transport_cost(z_r, z_g, thresholds, leaves, pairing=pairing, impl=impl)
    n = z_r.shape[-2]
    assert [t.shape for t in found] == [lead, lead, (*lead, n)]
    (grad,) = torch.autograd.grad(found.cost.sum(), z_g)
    forest = (t.expand(*lead, *t.shape[len(own) :]).cpu() for t in (thresholds, leaves))
    here = [t.detach().cpu() for t in (z_r, z_g, *forest, *found, grad)]
    z_r, z_g, thresholds, leaves, *found, grad = (t.reshape(math.prod(lead), *t.shape[len(lead) :]) for t in here)
    assert cost_error(z_r, z_g, thresholds, leaves, found, grad, pairing) <= 1


@pytest.mark.parametrize("pairing", ["cover", "literal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_float64_it_is_the_composed_ops(shape, pairing, randn):
    """Sums of up to 1,000 terms in another order: 1e-12 relative."""
    z_r, z_g, thresholds, leaves = problem(randn, square(shape, pairing), dtype=torch.float64)
    z_g.requires_grad_()
    found = transport_cost(z_r, z_g, thresholds, leaves, pairing=pairing, impl="cpu")
    transformed = soft_forest(z_g, thresholds, leaves, impl="reference")
    index = l2_argmin(z_r, transformed.detach(), impl="reference").index
    pairs = (z_r, transformed[index]) if pairing == "cover" else (z_r[index], transformed)
    cost = (pairs[0] - pairs[1]).square().sum(1).mean()
    assert torch.equal(found.index, index)
    assert found.used == len(index.unique()) / len(z_g)
    torch.testing.assert_close(found.cost, cost, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(3 * value, z_g)[0] for value in (found.cost, cost))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("device", "impl"), RUNS)
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_pairs_are_found_whatever_the_units(scale, device, impl, randn):
    """Squares of 1e-30 and of 1e25 are 0 and infinite in float32. Depth 0: F is a point, here there are two forests."""
    z_r = torch.tensor([[[3.0], [-3.0], [2.0]]], device=device) * scale
    thresholds = torch.zeros(1, 1, 1, device=device)
    leaves = torch.tensor([[[[4.0], [-4.0]]]], device=device) * scale
    z_g = torch.tensor([[[-100.0], [100.0]]], device=device)  # to the right and to the left leaf
    found = transport_cost(z_r, z_g, thresholds, leaves, impl=impl)
    assert found.index.tolist() == [[1, 0, 1]]
    assert found.used.tolist() == [1]


@pytest.mark.parametrize(("device", "impl"), RUNS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["z_r", "leaves"])
def test_what_is_not_finite_is_shown_and_stays_in_its_problem(where, value, device, impl, randn):
    z_r, z_g, thresholds, leaves = problem(randn, (5, 6, 3, 2, 2, 4), (2,), (2,), device=device)
    clean = transport_cost(z_r, z_g, thresholds, leaves, impl=impl)
    {"z_r": z_r, "leaves": leaves}[where][1].view(-1)[3] = value
    z_g.requires_grad_()
    found = transport_cost(z_r, z_g, thresholds, leaves, impl=impl)
    (grad,) = torch.autograd.grad(found.cost.sum(), z_g)
    assert all(t[1].isnan().any() for t in (found.cost, found.used, grad))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found, clean, strict=True))
    assert grad[0].isfinite().all()


def test_the_same_bits_on_any_number_of_threads(randn):
    z_r, z_g, thresholds, leaves = problem(randn, (300, 300, 64, 18, 3, 64), (2,))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            z = z_g.clone().requires_grad_()
            result = transport_cost(z_r, z, thresholds, leaves, impl="cpu")
            found.append([*result, torch.autograd.grad(result.cost.sum(), z)[0]])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_an_empty_batch():
    found = transport_cost(torch.empty(0, 3, 2), torch.empty(0, 4, 2), torch.zeros(1, 1), torch.zeros(1, 2, 2))
    assert [t.shape for t in found] == [(0,), (0,), (0, 3)]


def test_strides_do_not_matter(randn):
    z_r, z_g, thresholds, leaves = problem(randn, (9, 8, 4, 2, 2, 3))
    wide = [t.repeat_interleave(2, -1)[..., ::2] for t in (z_r, z_g, thresholds, leaves)]
    plain, strided = transport_cost(z_r, z_g, thresholds, leaves), transport_cost(*wide)
    assert all(torch.equal(a, b) for a, b in zip(plain, strided, strict=True))


def test_it_compiles_and_keeps_the_rules_of_an_op(randn):
    z_r, z_g, thresholds, leaves = problem(randn, (5, 6, 3, 2, 2, 4), (2,), (2,))
    z_g.requires_grad_()
    torch.library.opcheck(torch.ops.otkernels.transport_cost.default, (z_r, z_g, thresholds, leaves, "cover", "auto"))

    def paid(z):
        return transport_cost(z_r, z, thresholds, leaves).cost.sum()

    compiled = torch.compile(paid, backend="aot_eager", fullgraph=True)
    ours, theirs = (torch.autograd.grad(function(z_g), z_g)[0] for function in (paid, compiled))
    assert torch.equal(ours, theirs)


def test_there_is_no_second_derivative(randn):
    z_r, z_g, thresholds, leaves = problem(randn, (5, 6, 3, 2, 2, 4))
    z_g.requires_grad_()
    with pytest.raises(
        RuntimeError, match="transport_cost: has no second derivative; compose soft_forest and l2_argmin"
    ):
        torch.autograd.grad(transport_cost(z_r, z_g, thresholds, leaves).cost, z_g, create_graph=True)


def test_torch_func_is_refused_in_words(randn):
    z_r, z_g, thresholds, leaves = problem(randn, (5, 6, 3, 2, 2, 4))
    with pytest.raises(NotImplementedError, match=r"^transport_cost: torch.func does not differentiate it: take"):
        torch.func.grad(lambda z: transport_cost(z_r, z, thresholds, leaves).cost)(z_g)
    with pytest.raises(NotImplementedError, match=r"^transport_cost: forward mode is not supported"):
        torch.func.jvp(lambda z: transport_cost(z_r, z, thresholds, leaves).cost, (z_g,), (z_g,))


def test_the_result_is_named(randn):
    found = transport_cost(*problem(randn, (5, 6, 3, 2, 2, 4)))
    assert isinstance(found, TransportCost)
    assert found._fields == ("cost", "used", "index")


def replaced(place, tensor):
    return lambda given: (*given[:place], tensor, *given[place + 1 :])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (replaced(0, torch.zeros(4)), {}, r"z_r must be \[..., N, d_out\] with N, d_out >= 1, got \[4\]"),
        (replaced(0, torch.zeros(0, 4)), {}, r"z_r must be \[..., N, d_out\] with N, d_out >= 1, got \[0, 4\]"),
        (replaced(0, torch.zeros(5, 4, dtype=torch.float64)), {}, "z_r must have z_g's dtype torch.float32"),
        (replaced(1, torch.zeros(2, 6, 3)), {}, r"z_g must be \[..., M, d\] with M, d >= 1 and z_r's leading"),
        (replaced(2, torch.zeros(2, 4)), {}, r"thresholds must be \[2, 3\] for leaves \[2, 4, 4\], got \[2, 4\]"),
        (
            replaced(3, torch.zeros(2, 3, 4)),
            {},
            r"leaves must be \[T, 2\^D, d_out\] or .* with d_out=4, got \[2, 3, 4\]",
        ),
        (replaced(3, torch.zeros(2, 4, 4).requires_grad_()), {}, r"leaves must not .* pass leaves.detach\(\)"),
        (replaced(0, torch.zeros(5, 4).requires_grad_()), {}, r"z_r must not require a gradient, which only z_g gets"),
        (lambda given: given, {"pairing": "literal"}, "z_g must have as many rows as z_r for pairing 'literal'"),
        (lambda given: given, {"pairing": "sinkhorn"}, "pairing must be one of cover, literal, got 'sinkhorn'"),
        (lambda given: given, {"impl": "triton"}, "impl must be auto or one of cpu, cuda, reference, got 'triton'"),
        (lambda given: tuple(t.half() for t in given), {}, "z_r must be float32 or float64, got torch.float16"),
    ],
)
def test_errors_name_what_is_wrong(change, options, message, randn):
    with pytest.raises(ValueError, match=f"^transport_cost: {message}"):
        transport_cost(*change(problem(randn, (5, 6, 3, 2, 2, 4))), **options)
