"""l2_argmin against its definition in float64, on every implementation."""

from __future__ import annotations

import math
import time
import warnings

import pytest
import torch
from torch import Tensor

from otkernels import l2_argmin, soft_forest
from tests.otkernels.cases import devices_and_impls
from tests.otkernels.nearest import assert_nearest, costs, summation_bound

everywhere = pytest.mark.parametrize(("device", "impl"), devices_and_impls("l2_argmin"))
INF, NAN = math.inf, math.nan


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(1, 1, 1), (2, 3, 2), (65, 129, 17), (64, 64, 128), (33, 31, 100), (1100, 70, 16), (256, 512, 128)],
)
def test_index_attains_the_float64_minimum(n, m, d, dtype, device, impl, randn):
    if dtype == torch.float64 and device == "cuda" and impl != "reference":
        dtype = torch.float32
    x, y = randn(n, d, dtype=dtype, device=device), randn(m, d, dtype=dtype, device=device)
    assert_nearest(*l2_argmin(x, y, impl=impl), x, y)


@everywhere
@pytest.mark.parametrize("m", [1, 40, 3000])
def test_potential_is_subtracted(m, device, impl, randn):
    x, y, potential = randn(50, 19, device=device), randn(m, 19, device=device), 20 * randn(m, device=device)
    assert_nearest(*l2_argmin(x, y, potential, impl=impl), x, y, potential)


@everywhere
def test_batches_are_independent(device, impl, randn):
    x, y, potential = (
        randn(2, 3, 20, 5, device=device),
        randn(2, 3, 33, 5, device=device),
        randn(2, 3, 33, device=device),
    )
    value, index = l2_argmin(x, y, potential, impl=impl)
    assert value.shape == index.shape == (2, 3, 20)
    for a in range(2):
        for b in range(3):
            alone = l2_argmin(x[a, b], y[a, b], potential[a, b], impl=impl)
            assert torch.equal(alone.value, value[a, b])
            assert torch.equal(alone.index, index[a, b])


@everywhere
@pytest.mark.parametrize("d", [2, 16, 40])
def test_a_far_cloud_keeps_its_digits(d, device, impl, randn):
    """Neighbours 1e-3 apart, 1e3 from the origin: |x|^2 + |y|^2 - 2xy in float32 errs by 1, a million distances."""
    y = 1e3 + 1e-3 * randn(500, d, device=device)
    x = y[torch.arange(0, 500, 7, device=device)] + 1e-4 * randn(72, d, device=device)
    assert_nearest(*l2_argmin(x, y, impl=impl), x, y)


@everywhere
def test_two_tight_clusters_far_apart(device, impl, randn):
    """No common centre helps: a whole cluster lies inside the product form's error and is re-summed."""
    centres = torch.tensor([[-1e3], [1e3]], device=device)
    y = (centres[:, None] + 1e-3 * randn(2, 300, 24, device=device)).flatten(0, 1)
    x = (centres[:, None] + 1e-3 * randn(2, 50, 24, device=device)).flatten(0, 1)
    assert_nearest(*l2_argmin(x, y, impl=impl), x, y)


@everywhere
@pytest.mark.parametrize(("n", "d"), [(1, 16), (1, 128), (5000, 128), (3, 512)])
def test_coordinates_that_round_the_wrong_way(n, d, device, impl):
    """Every coordinate lies just above or just below half a step of bfloat16: each product errs by all that it may.

    The nearest points are the zeros; +-y cancel in the mean, so no centre moves the points off the bad spot.
    """
    x = torch.full((n, d), 1 + 2.0**-8 + 2.0**-20, device=device)
    near = torch.full((d,), 2 * (1 + 2.0**-8 + 2.0**-11), device=device)
    y = torch.zeros(64, d, device=device)
    for k in range(0, 32, 4):
        y[k] = y[k + 1] = near
        y[k + 2] = y[k + 3] = -near
    value, index = l2_argmin(x, y, impl=impl)
    assert (index == 32).all()
    assert_nearest(value, index, x, y)


@everywhere
def test_ties_give_the_lowest_index(device, impl, randn):
    base = randn(40, 20, device=device)
    y = torch.cat((base + 10, base, base, base))
    assert torch.equal(l2_argmin(base, y, impl=impl).index, torch.arange(40, 80, device=device))
    assert torch.equal(l2_argmin(base, y, impl=impl).value, torch.zeros(40, device=device))
    same = torch.ones(70, 3, device=device)
    assert (l2_argmin(same, same, impl=impl).index == 0).all()


TIES = {
    "all points equal": lambda x, y: (x, y[:1].expand_as(y).contiguous()),
    "everything equal": lambda x, y: (y[:1].expand_as(x).contiguous(), y[:1].expand_as(y).contiguous()),
    "zeros": lambda x, y: (x, torch.zeros_like(y)),
    "every second one twice": lambda x, y: (x, y[torch.arange(len(y), device=y.device) // 2]),
    "two clusters": lambda x, y: (x, y[torch.arange(len(y), device=y.device) % 2]),
    "few integers": lambda x, y: (x.round().clamp(-1, 1), y.round().clamp(-1, 1)),
    "one of many is nearer": lambda x, y: (x, torch.cat((y[:1].expand_as(y)[1:] + 9, y[1:2]))),
}


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [5, 16, 33, 130])
@pytest.mark.parametrize("ties", TIES)
def test_many_ties_give_the_lowest_index(ties, d, dtype, device, impl, randn):
    """Many candidates of a row are settled together: each must cost what it costs alone, and the lowest must win."""
    if dtype == torch.float64 and device == "cuda" and impl != "reference":
        pytest.skip("CUDA kernels take no float64")
    x, y = TIES[ties](randn(41, d, dtype=dtype, device=device), randn(150, d, dtype=dtype, device=device))
    value, index = l2_argmin(x, y, impl=impl)
    assert_nearest(value, index, x, y)
    equal = (y[:, None] == y).all(-1)  # [M, M]
    assert (index <= equal[index].int().argmax(-1)).all()
    for j in (0, 1, 149):  # what a point costs does not depend on its company
        alone = l2_argmin(x, y[j : j + 1], impl=impl).value
        assert torch.equal(value[index == j], alone[index == j])


@everywhere
def test_ties_among_potentials(device, impl, randn):
    x, y = randn(37, 9, device=device), randn(1, 9, device=device).expand(100, 9).contiguous()
    potential = torch.full((100,), 0.5, device=device)
    assert (l2_argmin(x, y, potential, impl=impl).index == 0).all()
    potential[[30, 31, 70]] = 1.5
    result = l2_argmin(x, y, potential, impl=impl)
    assert (result.index == 30).all()
    assert_nearest(*result, x, y, potential)
    potential[::2] = -INF
    result = l2_argmin(x, y, potential, impl=impl)
    assert (result.index == 31).all()
    assert torch.equal(result.value, l2_argmin(x, y[:1], potential[31:32], impl=impl).value)
    potential[[51, 53]] = INF
    result = l2_argmin(x, y, potential, impl=impl)
    assert (result.index == 51).all()
    assert (result.value == -INF).all()
    potential[99] = NAN
    assert (l2_argmin(x, y, potential, impl=impl).index == -1).all()
    y[60, 4] = INF
    potential[99] = 0
    assert (l2_argmin(x, y, potential, impl=impl).index == 51).all()
    y[60, 4] = NAN
    assert (l2_argmin(x, y, potential, impl=impl).index == -1).all()


def test_ties_cost_no_more_than_plain_differences(randn):
    """In time, against the kernel of d = 4, which sums every pair's differences. One by one the ties cost 290 times as
    much, together 20 times: the bound lies between, with room for a machine that does other things, too.
    """
    x, y = randn(1500, 5), randn(1, 5).expand(1500, 5).contiguous()
    low, low_y = x[:, :4].contiguous(), randn(1500, 4)

    def fastest(a: Tensor, b: Tensor) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            l2_argmin(a, b, impl="cpu")
            times.append(time.perf_counter() - start)
        return min(times)

    assert fastest(x, y) < 120 * fastest(low, low_y)


@everywhere
def test_a_permutation_is_found_again(device, impl, randn):
    y = randn(513, 31, device=device)
    order = torch.randperm(513, device=device)
    assert torch.equal(l2_argmin(y[order], y, impl=impl).index, order)


@everywhere
def test_nan_rows_say_so(device, impl, randn):
    x, y = randn(70, 20, device=device), randn(90, 20, device=device)
    x[3, 7] = x[69, 19] = NAN
    value, index = l2_argmin(x, y, impl=impl)
    bad = torch.zeros(70, dtype=torch.bool, device=device)
    bad[3] = bad[69] = True
    assert torch.equal(value.isnan(), bad)
    assert torch.equal(index < 0, bad)
    assert_nearest(value[~bad], index[~bad], x[~bad], y)
    y[60, 2] = NAN  # a NaN cost in every row
    value, index = l2_argmin(x, y, impl=impl)
    assert value.isnan().all()
    assert (index == -1).all()
    y[60, 2] = 0
    potential = torch.zeros(90, device=device)
    potential[89] = NAN
    assert (l2_argmin(x, y, potential, impl=impl).index == -1).all()


@everywhere
def test_infinite_points_are_never_the_nearest_finite_ones(device, impl, randn):
    x, y = randn(40, 18, device=device), randn(60, 18, device=device)
    y[0, 3], y[50, 17] = INF, -INF
    value, index = l2_argmin(x, y, impl=impl)
    keep = [j for j in range(60) if j not in (0, 50)]
    expected = l2_argmin(x, y[keep], impl=impl)
    assert torch.equal(index, torch.tensor(keep, device=device)[expected.index])
    assert torch.equal(value, expected.value)
    x[5, 3] = INF  # inf - inf meets y_0: NaN
    x[6, 4] = INF  # inf away from all
    value, index = l2_argmin(x, y, impl=impl)
    assert index[5] == -1
    assert value[5].isnan()
    assert index[6] == 0
    assert value[6] == INF


@everywhere
def test_infinite_potentials(device, impl, randn):
    x, y, potential = randn(30, 6, device=device), randn(40, 6, device=device), torch.zeros(40, device=device)
    potential[20] = potential[30] = INF
    value, index = l2_argmin(x, y, potential, impl=impl)
    assert (value == -INF).all()
    assert (index == 20).all()
    potential[:] = -INF
    potential[7] = 0
    value, index = l2_argmin(x, y, potential, impl=impl)
    assert (index == 7).all()
    assert torch.equal(value, l2_argmin(x, y[7:8], impl=impl).value)
    potential[7] = -INF
    value, index = l2_argmin(x, y, potential, impl=impl)
    assert (index == 0).all()
    assert (value == INF).all()


@everywhere
@pytest.mark.parametrize("scale", [1e18, 1.5e18, 1e-18, 1e-22, 1e-30, 1e-42])
def test_sizes_whose_squares_overflow_or_vanish(scale, device, impl, randn):
    x, y = (randn(30, 24, device=device) * scale).float(), (randn(50, 24, device=device) * scale).float()
    value, index = l2_argmin(x, y, impl=impl)
    assert_nearest(value, index, x, y)


@everywhere
def test_norms_that_overflow_with_differences_that_do_not(device, impl, randn):
    """|x|^2 is infinite in float32, the distances are about 1e37."""
    y = 3e19 + 1e18 * randn(60, 8, device=device)
    x = y[:20] + 1e17 * randn(20, 8, device=device)
    assert_nearest(*l2_argmin(x, y, impl=impl), x, y)


@everywhere
def test_views_are_read_as_they_are(device, impl, randn):
    x, y, potential = randn(20, 41, device=device), randn(17, 37, device=device), randn(74, device=device)
    views = x.T[:, ::2], y.T[::2, :10], potential[::4][:19]
    assert not any(view.is_contiguous() for view in views)
    assert_nearest(*l2_argmin(*views, impl=impl), *views)
    shared = y[:, :10].expand(5, 17, 10)  # one y for five x
    many = randn(5, 9, 10, device=device)
    got = l2_argmin(many, shared, impl=impl)
    assert torch.equal(got.index, torch.stack([l2_argmin(one, y[:, :10], impl=impl).index for one in many]))


@everywhere
def test_copies_of_a_point_tie_whatever_the_strides(device, impl, randn):
    """A sum in an order that depends on where a number lies would tell them apart."""
    y = randn(5, 31, 7, device=device).mT[:, torch.arange(7, device=device) % 2]
    x = randn(5, 31, 65, device=device).mT
    result, expected = l2_argmin(x, y, impl=impl), l2_argmin(x.contiguous(), y.contiguous(), impl=impl)
    assert (result.index < 2).all()
    assert torch.equal(result.index, expected.index)
    assert torch.equal(result.value, expected.value)


@everywhere
@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (0, 4, 5)])
def test_nothing_to_assign_is_empty(shape, device, impl, randn):
    x, y = randn(*shape, device=device), randn(*shape[:-2], 7, 5, device=device)
    value, index = l2_argmin(x, y, impl=impl)
    assert value.shape == index.shape == shape[:-1]


@everywhere
@pytest.mark.parametrize("impl_precision", ["tf32", "bf16"])
def test_a_lower_precision_still_reports_the_chosen_pair(impl_precision, device, impl, randn):
    x, y = randn(60, 64, device=device), randn(80, 64, device=device)
    value, index = l2_argmin(x, y, precision=impl_precision, impl=impl)
    chosen = costs(x, y).gather(1, index[:, None])[:, 0]
    assert ((value.double() - chosen).abs() <= summation_bound(chosen, 64, torch.float32)).all()
    # rounding both factors to bfloat16 (u = 2^-8) moves 2 x.y by at most 2 * 2u|x||y|, and the best cost as much again
    slack = 2 * 4 * 2.0**-8 * x.double().norm(dim=1) * y.double().norm(dim=1).max()
    assert (chosen - costs(x, y).amin(1) <= slack).all()


@everywhere
def test_gradients_are_those_of_the_winning_pairs(device, impl, randn):
    x, y, potential = (randn(*s, device=device).requires_grad_() for s in ((40, 6), (30, 6), (30,)))
    weight = randn(40, device=device)
    value, index = l2_argmin(x, y, potential, impl=impl)
    grads = torch.autograd.grad(value, (x, y, potential), weight)
    pairs = (x - y[index]).square().sum(1) - potential[index]
    expected = torch.autograd.grad(pairs, (x, y, potential), weight)
    for got, want in zip(grads, expected, strict=True):
        # sums of at most 40 products of numbers below 20 in different order: 40 u 20 < 1e-4
        torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert not index.requires_grad


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_gradcheck_once_and_twice(impl, randn):
    x, y, potential = (randn(*s, dtype=torch.float64).requires_grad_() for s in ((2, 5, 3), (2, 4, 3), (2, 4)))

    def value(*inputs: Tensor) -> Tensor:
        return l2_argmin(*inputs, impl=impl).value

    assert torch.autograd.gradcheck(value, (x, y, potential))
    assert torch.autograd.gradgradcheck(value, (x, y, potential))


@everywhere
def test_nan_rows_send_no_gradient_to_y(device, impl, randn):
    x, y = randn(5, 4, device=device), randn(6, 4, device=device).requires_grad_()
    x[2, 0] = NAN
    x.requires_grad_()
    l2_argmin(x, y, impl=impl).value.nansum().backward()
    assert y.grad.isfinite().all()
    assert x.grad[2].isnan().all()
    assert x.grad[[0, 1, 3, 4]].isfinite().all()


@everywhere
def test_vmap_equals_the_loop(device, impl, randn):
    x, y, potential = randn(4, 7, 3, device=device), randn(9, 4, 3, device=device), randn(9, device=device)
    value, index = torch.vmap(lambda a, b: l2_argmin(a, b, potential, impl=impl), in_dims=(0, 1))(x, y)
    for i in range(4):
        alone = l2_argmin(x[i], y[:, i], potential, impl=impl)
        assert torch.equal(alone.value, value[i])
        assert torch.equal(alone.index, index[i])


@everywhere
def test_compiles_whole(device, impl, randn):
    x, y = randn(12, 5, device=device).requires_grad_(), randn(9, 5, device=device)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return (2 * l2_argmin(x, y, impl=impl).value).sum()

    (eager,) = torch.autograd.grad(loss(x, y), x)
    (compiled,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x, y), x)
    assert torch.equal(eager, compiled)


@everywhere
def test_opcheck(device, impl, randn):
    x, y, potential = randn(2, 5, 3, device=device), randn(2, 4, 3, device=device), randn(2, 4, device=device)
    inputs = [t.requires_grad_() for t in (x, y, potential)]
    torch.library.opcheck(torch.ops.otkernels.l2_argmin.default, (*inputs, "exact", impl))


def test_mixed_dtypes_meet_in_float32_under_autocast(randn):
    x, y = randn(9, 5), randn(8, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, index = l2_argmin(x, y)
    expected = l2_argmin(x, y.float())
    assert value.dtype == torch.float32
    assert torch.equal(value, expected.value)
    assert torch.equal(index, expected.index)


def test_the_result_does_not_depend_on_the_number_of_threads(randn):
    x, y = randn(3000, 40), randn(2500, 40)
    many = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(l2_argmin(x, y))
    finally:
        torch.set_num_threads(many)
    for other in results[1:]:
        assert torch.equal(results[0].value, other.value)
        assert torch.equal(results[0].index, other.index)


@everywhere
def test_many_small_problems_at_once(device, impl, randn):
    """A batch large enough that the CPU kernel gives each thread whole problems."""
    x, y = randn(64, 200, 8, device=device), randn(64, 200, 8, device=device)
    assert_nearest(*l2_argmin(x, y, impl=impl), x, y)


def test_vmap_over_nothing_is_empty():
    value, index = torch.vmap(lambda a: l2_argmin(a, a))(torch.zeros(0, 3, 2))
    assert value.shape == index.shape == (0, 3)


def test_jit_trace_records_the_op(randn):
    y = randn(9, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; it must still not record nonsense
        traced = torch.jit.trace(lambda a: l2_argmin(a, y).value, randn(7, 5))
    x = randn(7, 5)
    assert torch.equal(traced(x), l2_argmin(x, y).value)


def test_negated_views_are_read_negated(randn):
    x, y = randn(7, 5), randn(9, 5)
    assert torch.equal(l2_argmin(torch._neg_view(x), y).index, l2_argmin(-x, y).index)


def test_autocast_leaves_float64_alone(randn):
    x = randn(5, 3, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert l2_argmin(x, x).value.dtype == torch.float64


def test_meta_tensors_have_shapes():
    x = torch.zeros(3, 4, device="meta")
    value, index = l2_argmin(x, x, impl="reference")
    assert value.shape == index.shape == (3,)


X = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4), X), "l2_argmin: x must be [..., N, D] with D >= 1, got [4]"),
        ((torch.zeros(3, 0), torch.zeros(3, 0)), "l2_argmin: x must be [..., N, D] with D >= 1, got [3, 0]"),
        ((X, torch.zeros(5, 6)), "l2_argmin: y must be [M, D] with D=4, got [5, 6]"),
        ((X, torch.zeros(2, 5, 4)), "l2_argmin: y must be [M, D] with D=4, got [2, 5, 4]"),
        ((X[None], torch.zeros(2, 5, 4)), "l2_argmin: y must be [1, M, D] with D=4, got [2, 5, 4]"),
        ((X, torch.zeros(0, 4)), "l2_argmin: y must hold at least one point (M >= 1), got [0, 4]"),
        ((X, X.double()), "l2_argmin: y must have x's dtype torch.float32, got torch.float64 [3, 4]"),
        ((X, X.to("meta")), "l2_argmin: y must be on x's device cpu, got meta [3, 4]"),
        ((X.long(), X.long()), "l2_argmin: x must be float32, float64, float16 or bfloat16, got torch.int64 [3, 4]"),
        ((X, X, torch.zeros(4)), "l2_argmin: potential must be [M] with M=3, got [4]"),
        ((X, X, torch.zeros(3, 1)), "l2_argmin: potential must be [M] with M=3, got [3, 1]"),
        (([1.0], X), "l2_argmin: x must be a torch.Tensor, got list"),
        ((X, None), "l2_argmin: y must be a torch.Tensor, got NoneType"),
        ((X.to_sparse(), X), "l2_argmin: x must be a dense tensor, got torch.sparse_coo [3, 4]"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        l2_argmin(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("value", ["fp8", None, 1, ["exact"], torch.tensor(1)], ids=str)
def test_bad_options_are_named(value):
    with pytest.raises(ValueError, match="l2_argmin: precision must be one of exact, tf32, bf16, got "):
        l2_argmin(X, X, precision=value)
    with pytest.raises(ValueError, match="l2_argmin: impl must be auto or one of cpu, triton, cuda, reference, got "):
        l2_argmin(X, X, impl=value)
    with pytest.raises(ValueError, match="l2_argmin: impl must be auto or one of cpu, triton, cuda, reference, got "):
        l2_argmin(X[None], X[None], impl=value)
    with pytest.raises(ValueError, match="soft_forest: impl must be auto or one of cpu, cuda, triton, reference, got "):
        soft_forest(X, X[:1, :1], X[None, :2], impl=value)


def test_an_implementation_that_cannot_run_says_why():
    with pytest.raises(RuntimeError, match="impl='cuda' cannot run here: the tensors are on cpu"):
        l2_argmin(X, X, impl="cuda")


@pytest.mark.slow
def test_more_than_2_to_31_pairs(randn):
    x, y = randn(70_000, 2), randn(40_000, 2)
    value, index = l2_argmin(x, y)
    rows = torch.randperm(70_000)[:200]
    assert_nearest(value[rows], index[rows], x[rows], y)
