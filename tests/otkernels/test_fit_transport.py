"""fit_transport against its definition, against torch.optim.Adam and autograd, and against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otkernels import AdamState, FitTransport, _native, fit_transport, l2_argmin, soft_forest

from .cases import devices_and_impls
from .transports import SHAPES, one_step_error

RUNS = devices_and_impls("fit_transport")


def problem(randn, shape, lead=(), dtype=torch.float32, device="cpu"):
    """z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, step: Adam in the middle of its work, after 3 steps."""
    n, m, d, trees, depth, d_out = shape
    leaves = (*lead, trees, 2**depth, d_out)
    draws = randn(*lead, n, d_out), randn(*lead, m, d), randn(*lead, trees, 2**depth - 1), randn(*leaves) * trees**0.5
    moments = randn(*leaves) / n, randn(*leaves).square() / n**2
    return (*(t.to(device, dtype) for t in (*draws, *moments)), torch.tensor(3.0, device=device))


def fit(z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, step, **options) -> FitTransport:
    """fit_transport on what `problem` draws."""
    return fit_transport(z_r, z_g, thresholds, leaves, AdamState(exp_avg, exp_avg_sq, step), **options)


def clone(tensors):
    return tuple(tensor.clone() for tensor in tensors)


@pytest.mark.parametrize(("device", "impl"), RUNS)
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("pairing", ["cover", "literal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_step_in_float32(shape, pairing, lead, device, impl, randn):
    """index attains the minimum, exp_avg shows the gradient, and leaves follow from the moments by Adam's formula."""
    if pairing == "literal":
        shape = (shape[0], shape[0], *shape[2:])
    before = problem(randn, shape, lead, device=device)
    after = clone(before)
    index, cost = fit(*after, iters=1, lr=0.01, pairing=pairing, impl=impl)
    assert index.shape == (*lead, shape[0])
    assert cost.shape == (*lead, 1)
    assert all(torch.equal(a, b) for a, b in zip(after[:3], before[:3], strict=True))
    assert after[6].item() == 4

    here = [t.cpu() for t in (*before, *after[3:], index, cost)]
    options = {"pairing": pairing, "lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-8}
    assert one_step_error(here[:7], here[7:11], *here[11:], **options) <= 1


@pytest.mark.parametrize("impl", ["cpu"])
@pytest.mark.parametrize("pairing", ["cover", "literal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_many_steps_in_float64_are_the_composed_ops(shape, pairing, impl, randn):
    """Against soft_forest, l2_argmin, autograd and torch.optim.Adam, step by step.

    Sums of up to 1000 terms differ in order: 1e-13 relative in a gradient. Adam divides by sqrt(v), and a gradient
    that cancels to 1e-3 of its terms loses three digits more in each of the 4 steps: 1e-9 leaves room.
    """
    if pairing == "literal":
        shape = (shape[0], shape[0], *shape[2:])
    z_r, z_g, thresholds, leaves, _, _, _ = problem(randn, shape, dtype=torch.float64)
    ours, step = leaves.clone(), torch.tensor(0.0)
    exp_avg, exp_avg_sq = torch.zeros_like(leaves), torch.zeros_like(leaves)
    index, costs = fit(
        z_r, z_g, thresholds, ours, exp_avg, exp_avg_sq, step, iters=4, lr=0.01, pairing=pairing, impl=impl
    )
    leaves.requires_grad_()
    optimizer = torch.optim.Adam([leaves], lr=0.01, betas=(0.5, 0.9))
    for cost in costs:
        transformed = soft_forest(z_g, thresholds, leaves, impl="reference")
        expected = l2_argmin(z_r, transformed.detach(), impl="reference").index
        pairs = (z_r, transformed[expected]) if pairing == "cover" else (z_r[expected], transformed)
        loss = (pairs[0] - pairs[1]).square().sum(1).mean()
        torch.testing.assert_close(cost, loss.detach(), rtol=1e-9, atol=1e-12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(index, expected)
    torch.testing.assert_close(ours, leaves.detach(), rtol=1e-9, atol=1e-9)
    state = optimizer.state[leaves]
    torch.testing.assert_close(exp_avg, state["exp_avg"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(exp_avg_sq, state["exp_avg_sq"], rtol=1e-9, atol=1e-12)
    assert torch.equal(step, state["step"])


@pytest.mark.parametrize(("impl", "variant"), [("cpu", {"fused": True}), ("reference", {"foreach": False})])
@pytest.mark.parametrize("betas", [(0.5, 0.9), (0.9, 0.999), (0.0, 0.9), (0.3, 0.0)])
def test_adam_is_torch_s_to_the_last_bit_in_float64(betas, impl, variant, randn):
    """One point, one leaf: the gradient is 2 (leaf - z) exactly, so that only Adam rounds.

    96 numbers are whole vectors: torch's code for the rest fuses other products. The kernel follows the fused variant
    (adam.cpp says why), whose multiply-adds the portable build lacks on x86-64.
    """
    if impl == "cpu" and _native.extension.cpu_isa() == "portable":
        pytest.skip("the portable build has no fused multiply-add")
    z_r, leaf = randn(1, 96, dtype=torch.float64), randn(1, 1, 96, dtype=torch.float64)
    theirs = leaf.clone().requires_grad_()
    exp_avg, exp_avg_sq, step = torch.zeros_like(leaf), torch.zeros_like(leaf), torch.tensor(0.0)
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=betas, **variant)
    for _ in range(20):
        z_r = z_r + 0.1
        fit(z_r, z_r, z_r.new_zeros(1, 0), leaf, exp_avg, exp_avg_sq, step, iters=2, lr=0.01, betas=betas, impl=impl)
        for _ in range(2):
            theirs.grad = 2 * (theirs.detach() - z_r[None])
            optimizer.step()
        state = optimizer.state[theirs]
        for ours, expected in ((exp_avg, state["exp_avg"]), (exp_avg_sq, state["exp_avg_sq"]), (leaf, theirs.detach())):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("device", "impl"), RUNS)
@pytest.mark.parametrize("d_out", [1, 2, 5, 37, 130])
def test_without_eps_padding_makes_no_nan(d_out, device, impl, dtype, randn):
    """eps = 0 where d_out fills no vector, tile or block: three steps are the definition's in float64.

    Sums of at most 12 terms differ in order, and gradients may cancel (see the float64 test): 1e-4 and 1e-9 leave room.
    """
    if impl == "cuda" and dtype is torch.float64:
        pytest.skip("CUDA's kernels are float32")
    tensors = problem(randn, (9, 9, 3, 3, 2, d_out), dtype=dtype, device=device)
    wide = clone(t.cpu().double() for t in tensors[:6])
    expected = fit(*wide, torch.tensor(3.0), iters=3, lr=0.01, eps=0.0, impl="reference")
    result = fit(*tensors, iters=3, lr=0.01, eps=0.0, impl=impl)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    assert torch.equal(result.index.cpu(), expected.index)
    for ours, theirs in zip((*tensors[3:6], result.cost), (*wide[3:6], expected.cost), strict=True):
        torch.testing.assert_close(ours.cpu().double(), theirs, **tolerance)


@pytest.mark.parametrize(("device", "impl"), RUNS)
def test_without_eps_a_zero_gradient_is_torch_s_nan(device, impl):
    """One point and one leaf, whose first column is at its target from the start: 0 / 0 in torch.optim.Adam as well."""
    z_r = torch.tensor([[1.0, 5.0, 3.0]], device=device)
    leaves = torch.tensor([[[1.0, 2.0, 4.0]]], device=device)
    theirs = leaves.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.5, betas=(0.5, 0.9), eps=0.0)
    (theirs[0] - z_r).square().sum().backward()
    optimizer.step()
    state = AdamState.zeros_like(leaves)
    fit_transport(z_r, z_r, z_r.new_zeros(1, 0), leaves, state, iters=1, lr=0.5, eps=0.0, impl=impl)
    assert leaves.isnan().tolist() == [[[True, False, False]]]
    torch.testing.assert_close(leaves, theirs.detach(), equal_nan=True)


@pytest.mark.parametrize(("device", "impl"), RUNS)
def test_many_calls_are_one(device, impl, randn):
    """3 + 2 steps in two calls leave the same bits as 5 in one: leaves, moments and step carry over."""
    once = problem(randn, (20, 20, 4, 3, 2, 6), device=device)
    twice = clone(once)
    index, cost = fit(*once, iters=5, lr=0.01, impl=impl)
    first = fit(*twice, iters=3, lr=0.01, impl=impl)
    second = fit(*twice, iters=2, lr=0.01, impl=impl)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert torch.equal(index, second.index)
    assert torch.equal(cost, torch.cat((first.cost, second.cost)))
    assert once[6].item() == 8


@pytest.mark.parametrize(("device", "impl"), RUNS)
def test_one_point_reaches_its_target(device, impl, randn):
    """Adam's steps of 0.05 cover a distance of 10 in 200; near the target it swings by less than two steps."""
    z_r, z_g, thresholds, leaves, _, _, step = problem(randn, (1, 1, 2, 2, 2, 3), device=device)
    state = torch.zeros_like(leaves), torch.zeros_like(leaves), step.zero_()
    cost = fit(z_r, z_g, thresholds, leaves, *state, iters=400, lr=0.05, impl=impl).cost
    assert cost[-1] < 1e-3 * cost[0]
    torch.testing.assert_close(soft_forest(z_g, thresholds, leaves, impl="reference"), z_r, atol=0.1, rtol=0)


@pytest.mark.parametrize(("device", "impl"), RUNS)
def test_ties_take_the_lowest(device, impl, randn):
    z_r, z_g, *state = problem(randn, (9, 1, 3, 2, 2, 4), device=device)
    z_g = z_g.expand(9, -1)  # nine equal points, in one stride-0 view
    index, _ = fit(z_r, z_g, *state, iters=2, impl=impl)
    assert not index.any()


@pytest.mark.parametrize(("device", "impl"), RUNS)
@pytest.mark.parametrize("pairing", ["cover", "literal"])
def test_nan_shows(pairing, device, impl, randn):
    z_r, *rest = problem(randn, (6, 6, 3, 2, 2, 4), (2,), device=device)
    z_r[0, 2, 1] = torch.nan
    index, cost = fit(z_r, *rest, iters=2, pairing=pairing, impl=impl)
    leaves, exp_avg, exp_avg_sq = rest[2:5]
    assert (index[0] == -1).all()  # the second step's F is NaN everywhere
    assert cost[0].isnan().all()
    for tensor in (leaves, exp_avg, exp_avg_sq):
        assert tensor[0].isnan().all()
        assert tensor[1].isfinite().all()
    assert (index[1] >= 0).all()
    assert cost[1].isfinite().all()


def test_threads_do_not_change_a_bit(randn):
    one = problem(randn, (500, 500, 16, 20, 4, 70))
    many = clone(one)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = fit(*one, iters=3, lr=0.01, impl="cpu")
        torch.set_num_threads(max(2, threads))
        second = fit(*many, iters=3, lr=0.01, impl="cpu")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip((*one, *first), (*many, *second), strict=True))


def test_views_are_read_and_shared_thresholds_serve_every_batch_element(randn):
    z_r, z_g, thresholds, *state = problem(randn, (6, 6, 4, 2, 2, 4), (3,))
    thresholds = thresholds[0]
    expected, spread = clone(state), clone(state)
    wide = torch.stack((z_r, z_r + 1), -1)[..., 0]  # strided
    fit(z_r, z_g, thresholds.expand(3, -1, -1).contiguous(), *expected)
    fit(wide, z_g.mT.contiguous().mT, thresholds, *spread)
    assert all(torch.equal(a, b) for a, b in zip(expected, spread, strict=True))


def test_an_empty_batch_is_empty(randn):
    z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, step = problem(randn, (6, 6, 4, 2, 2, 4), (0, 2))
    index, cost = fit(z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, step, iters=2)
    assert index.shape == (0, 2, 6)
    assert cost.shape == (0, 2, 2)


def test_parameters_that_need_gradients_are_updated_and_autograd_knows(randn):
    z_r, z_g, thresholds, leaves, *state = problem(randn, (6, 6, 4, 2, 2, 4))
    leaves.requires_grad_()
    loss = soft_forest(z_g, thresholds, leaves).sum()
    fit(z_r, z_g.requires_grad_(), thresholds, leaves, *state)
    assert leaves.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_it_compiles_whole(randn):
    def step(*tensors):
        return fit(*tensors, iters=2, lr=0.01)

    eager = problem(randn, (6, 6, 4, 2, 2, 4), (2,))
    compiled = clone(eager)
    expected = step(*eager)
    result = torch.compile(step, fullgraph=True)(*compiled)
    assert all(torch.equal(a, b) for a, b in zip((*eager, *expected), (*compiled, *result), strict=True))


def test_opcheck(randn):
    tensors = problem(randn, (6, 6, 4, 2, 2, 4), (2,))
    torch.library.opcheck(
        torch.ops.otkernels.fit_transport.default, (*tensors, 2, 0.01, 0.5, 0.9, 1e-8, "cover", "auto")
    )


BAD_COUNTS = (0, -1, 2.0, True, None, "2", torch.tensor(2), float("nan"))
BAD_NUMBERS = (-1.0, None, "0.1", True, torch.tensor(0.1), float("nan"), float("inf"), 1j)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_r": torch.zeros(6, 0)}, r"z_r must be \[..., N, d_out\] with N, d_out >= 1, got \[6, 0\]"),
        ({"z_r": torch.zeros(6, 4).half()}, r"z_g must have z_r's dtype torch.float16, got torch.float32 \[6, 3\]"),
        ({"z_g": torch.zeros(2, 6, 3)}, r"z_g must be \[..., M, d\] with M, d >= 1 and z_r's leading dimensions \[\]"),
        ({"leaves": torch.zeros(2, 3, 4)}, r"leaves must be \[T, 2\^D, d_out\] with d_out=4, got \[2, 3, 4\]"),
        ({"leaves": torch.zeros(2, 4, 5)}, r"leaves must be \[T, 2\^D, d_out\] with d_out=4, got \[2, 4, 5\]"),
        ({"leaves": torch.zeros(2, 4, 8)[..., ::2]}, r"leaves must be contiguous .*with strides \[32, 8, 2\]"),
        ({"thresholds": torch.zeros(2, 4)}, r"thresholds must be \[2, 3\] for leaves \[2, 4, 4\], got \[2, 4\]"),
        ({"exp_avg": torch.zeros(2, 4, 3)}, r"state.exp_avg must be contiguous \[2, 4, 4\], got \[2, 4, 3\]"),
        (
            {"step": torch.zeros(1)},
            r"state.step must be a float32 scalar tensor on cpu, got torch.float32 \[1\] on cpu",
        ),
        ({"step": 3}, "state.step must be a float32 scalar tensor on cpu, got 3"),
        *(({"iters": bad}, "iters must be a whole number of at least 1, got ") for bad in BAD_COUNTS),
        *(({"lr": bad}, "lr must be a finite number >= 0, got ") for bad in BAD_NUMBERS),
        *(({"eps": bad}, "eps must be a finite number >= 0, got ") for bad in BAD_NUMBERS),
        *(({"betas": (0.5, bad)}, r"betas\[1\] must be a number in \[0, 1\), got ") for bad in (*BAD_NUMBERS, 1.0)),
        *(({"betas": bad}, r"betas must be two numbers in \[0, 1\), got ") for bad in (None, 0.5, "ab", (0.5,))),
        *(({"pairing": bad}, "pairing must be one of cover, literal, got ") for bad in (None, 1, ["cover"])),
        *(({"impl": bad}, "impl must be auto or one of cpu") for bad in (None, 1, ["cpu"], "triton")),
        ({"pairing": "sinkhorn"}, "pairing must be one of cover, literal, got 'sinkhorn'"),
        ({"pairing": "literal", "z_g": torch.zeros(5, 3)}, r"as many rows as z_r for pairing 'literal', got \[5, 3\]"),
        ({"impl": "fast"}, "impl must be auto or one of cpu"),
    ],
)
def test_bad_arguments_are_named(change, message):
    leaves = torch.zeros(2, 4, 4)
    arguments = {
        "z_r": torch.zeros(6, 4), "z_g": torch.zeros(6, 3), "thresholds": torch.zeros(2, 3), "leaves": leaves,
        "exp_avg": torch.zeros_like(leaves), "exp_avg_sq": torch.zeros_like(leaves), "step": torch.tensor(0.0),
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"fit_transport: .*{message}"):
        fit(**{**arguments, **change})


@pytest.mark.parametrize("state", [(1, 2, 3), {"step": 0}, None])
def test_only_an_adam_state_is_a_state(state):
    with pytest.raises(
        ValueError, match=f"fit_transport: state must be an otkernels.AdamState, got {type(state).__name__}"
    ):
        fit_transport(torch.zeros(6, 4), torch.zeros(6, 3), torch.zeros(2, 3), torch.zeros(2, 4, 4), state)


def test_the_state_before_the_first_step_is_the_optimizer_s(randn):
    leaves = randn(2, 4, 4, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([leaves])
    leaves.grad = torch.zeros_like(leaves)  # with which a step moves nothing but the count
    optimizer.step()
    state = AdamState.zeros_like(leaves)
    state.step.add_(1)
    theirs = AdamState(**optimizer.state[leaves])
    for ours, expected in zip(state, theirs, strict=True):
        assert torch.equal(ours, expected)
        assert (ours.dtype, ours.requires_grad) == (expected.dtype, False)


def test_numpy_settings_are_numbers(randn):
    first = problem(randn, (6, 6, 4, 2, 2, 4))
    second = clone(first)
    expected = fit(*first, iters=2, lr=0.25, betas=(0.5, 0.75), eps=0.125)
    given = {"iters": np.int64(2), "lr": np.float32(0.25), "betas": [np.float64(0.5), 0.75], "eps": np.float16(0.125)}
    result = fit(*second, **given)
    assert all(torch.equal(a, b) for a, b in zip((*first, *expected), (*second, *result), strict=True))


NAMES = ("z_r", "z_g", "thresholds", "leaves", "exp_avg", "exp_avg_sq", "step")


@pytest.mark.parametrize(
    ("first", "second"),
    [("leaves", "exp_avg"), ("leaves", "exp_avg_sq"), ("exp_avg", "exp_avg_sq"), ("leaves", "z_r"), ("exp_avg", "z_g")],
)
@pytest.mark.parametrize("shift", [0, 5])
def test_what_is_updated_shares_no_memory(first, second, shift, randn):
    """The same tensor twice, or two that overlap by some elements; neighbours in one buffer are welcome."""
    shape = (16, 4, 1, 1, 4, 4)  # z_r [16, 4], z_g [4, 4] and leaves [1, 16, 4] in sizes that can stand for each other
    tensors = dict(zip(NAMES, overlap_problem(randn, shape), strict=True))
    before = {name: t.clone() for name, t in tensors.items()}
    size = max(tensors[first].numel(), tensors[second].numel())
    buffer = torch.zeros(2 * size)
    tensors[first] = buffer[: tensors[first].numel()].view_as(tensors[first])
    tensors[second] = buffer[shift : shift + tensors[second].numel()].view_as(tensors[second])
    written, other = (f"state.{name}" if "exp" in name else name for name in (first, second))
    with pytest.raises(ValueError, match=f"fit_transport: {other} must not share memory with {written}, which is"):
        fit(**tensors)
    for name in set(NAMES) - {first, second}:
        assert torch.equal(tensors[name], before[name])  # refused before anything moved
    tensors[second] = buffer[size : size + tensors[second].numel()].view_as(tensors[second])
    fit(**tensors)


def overlap_problem(randn, shape: tuple[int, ...]) -> list[torch.Tensor]:
    rows, d_out, trees, _, depth, d = shape
    leaves = randn(trees, 2**depth, d_out)
    moments = [torch.zeros_like(leaves), torch.zeros_like(leaves)]
    return [randn(rows, d_out), randn(4, d), randn(trees, 2**depth - 1), leaves, *moments, torch.tensor(0.0)]


def test_state_made_in_inference_mode_is_updated(randn):
    expected = problem(randn, (6, 6, 4, 2, 2, 4))
    with torch.inference_mode():
        inside = [t.clone() for t in expected]
        fit(*inside)
    fit(*expected)
    assert all(torch.equal(a, b) for a, b in zip(expected, inside, strict=True))
