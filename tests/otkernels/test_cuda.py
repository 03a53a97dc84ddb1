"""What only a GPU can show, for every op: CUDA graphs, streams, outputs left unwritten, more than 2^31 elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from benchmarks import clouds
from otkernels import AdamState, available_impls, fit_transport, l2_argmin, soft_forest
from tests.otkernels.nearest import assert_nearest, assert_nearest_of_many

pytestmark = pytest.mark.gpu

IMPLS = {"l2_argmin": ("triton", "cuda"), "soft_forest": ("triton", "cuda"), "fit_transport": ("cuda",)}
# N, M, D that each take another path: few dimensions, one launch, tensor cores with whole tiles, and ragged ones
SEARCHES = [(1000, 900, 3), (64, 64, 128), (4096, 2048, 128), (3000, 5001, 70)]
# N, d, T, D: the paper's, the toy's, one that cooperative blocks hold but no cluster, one neither holds, a deep tree
FORESTS = [(64, 128, 18, 3), (100, 2, 16, 3), (200, 128, 18, 3), (700, 128, 18, 3), (70, 5, 2, 9)]

Call = Callable[..., tuple[Tensor, ...]]
Case = tuple[Call, list[list[Tensor]]]


def searches(randn: Callable[..., Tensor], impl: str) -> Iterator[Case]:
    for n, m, d in SEARCHES:
        yield (
            lambda x, y, p: l2_argmin(x, y, p, impl=impl),
            [[randn(n, d, device="cuda"), randn(m, d, device="cuda"), randn(m, device="cuda")] for _ in range(2)],
        )


def forest(randn: Callable[..., Tensor], n: int, d: int, trees: int, depth: int) -> list[Tensor]:
    shapes = (n, d), (trees, 2**depth - 1), (trees, 2**depth, d)
    return [randn(*shape, device="cuda") for shape in shapes]


def forests(randn: Callable[..., Tensor], impl: str) -> Iterator[Case]:
    def run(z: Tensor, thresholds: Tensor, leaves: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        out = torch.ops.otkernels.soft_forest(z[None], thresholds[None], leaves[None], impl)
        tensors = (grad[None], z[None], thresholds[None], leaves[None])
        grads = torch.ops.otkernels.soft_forest_backward(*tensors, impl)
        if impl == "triton":  # which has no kernel for what follows
            return (out, *grads)
        return (out, *grads, *torch.ops.otkernels.soft_forest_double_backward(*grads, *tensors, impl))

    for n, d, trees, depth in FORESTS:
        yield run, [[*forest(randn, n, d, trees, depth), randn(n, d, device="cuda")] for _ in range(2)]


def transports(randn: Callable[..., Tensor], impl: str) -> Iterator[Case]:
    def run(z_r: Tensor, z_g: Tensor, thresholds: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        state = tuple(tensor.clone() for tensor in state)  # a replay starts where the first run did
        leaves, *adam = state
        fitted = fit_transport(z_r, z_g, thresholds, leaves, AdamState(*adam), iters=3, lr=0.01, impl=impl)
        return (*fitted, *state)

    for n, d, trees, depth in FORESTS:
        sets = []
        for _ in range(2):
            z_g, thresholds, leaves = forest(randn, n, d, trees, depth)
            moments = [torch.zeros_like(leaves), torch.zeros_like(leaves)]
            sets.append([randn(n, d, device="cuda"), z_g, thresholds, leaves, *moments, torch.zeros((), device="cuda")])
        yield run, sets


CASES = {"l2_argmin": searches, "soft_forest": forests, "fit_transport": transports}
RUNS = [pytest.param(op, impl, id=f"{op}-{impl}") for op, impls in IMPLS.items() for impl in impls]


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_implementation_is_here():
    """Every other test of these needs them: a build without CUDA must not pass."""
    for op, impls in IMPLS.items():
        assert set(impls) <= set(available_impls(op, "cuda")), available_impls(op, "cuda")


@pytest.mark.parametrize(("op", "impl"), RUNS)
def test_a_captured_call_replays_on_new_inputs(op, impl, randn):
    for run, (first, second) in CASES[op](randn, impl):
        expected = run(*second)
        held = [tensor.clone() for tensor in first]
        run(*held)  # compiles what is compiled at the first call
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = run(*held)
        for into, tensor in zip(held, second, strict=True):
            into.copy_(tensor)
        graph.replay()
        torch.cuda.synchronize()
        assert same(results, expected)


@pytest.mark.parametrize(("op", "impl"), RUNS)
def test_two_streams_at_once(op, impl, randn):
    for run, sets in CASES[op](randn, impl):
        expected = [run(*inputs) for inputs in sets]
        torch.cuda.synchronize()
        streams = [torch.cuda.Stream() for _ in sets]
        results: list[list[tuple[Tensor, ...]]] = [[], []]
        for _ in range(20):
            for stream, inputs, into in zip(streams, sets, results, strict=True):
                with torch.cuda.stream(stream):
                    into.append(run(*inputs))
        torch.cuda.synchronize()
        for wanted, found in zip(expected, results, strict=True):
            assert all(same(wanted, result) for result in found)


@pytest.mark.parametrize(("op", "impl"), RUNS)
def test_every_output_is_written(op, impl, randn, monkeypatch):
    """torch.empty is filled with NaN and the largest integers, workspaces included: nothing of it may show."""
    for run, (inputs, _) in CASES[op](randn, impl):
        expected = run(*inputs)
        monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(1, device="cuda").isnan().all()
            results = run(*inputs)
        finally:
            torch.use_deterministic_algorithms(False)
        assert same(results, expected)
        assert all(result.isfinite().all() for result in results if result.is_floating_point())


def needs_gib(amount: int) -> None:
    free = torch.cuda.mem_get_info()[0] >> 30
    if free < amount:
        pytest.skip(f"needs {amount} GiB of GPU memory, {free} are free")


# On tensor cores; the CUDA kernel's paths on Hopper: each number of chunks that stay in shared memory, rows that stream
@pytest.mark.parametrize("impl", IMPLS["l2_argmin"])
@pytest.mark.parametrize("d", [64, 100, 192, 256, 300])
@pytest.mark.parametrize("kind", clouds.CLOUDS)
def test_every_kind_of_data_on_tensor_cores(kind, d, impl, seed, randn):
    generator = torch.Generator("cuda").manual_seed(seed)
    x, y = clouds.draw(kind, 1700, 2100, d, generator)
    for potential in (None, 0.1 * d * randn(2100, device="cuda")):
        assert_nearest_of_many(*l2_argmin(x, y, potential, impl=impl), x, y, potential)


@pytest.mark.parametrize("impl", IMPLS["l2_argmin"])
def test_of_equal_points_the_first_is_found(impl, randn):
    """A cloud that collapsed to a point, and one to a few: ties of all columns, or of many."""
    x = randn(1700, 64, device="cuda")
    for count in (1, 30):
        y = randn(count, 64, device="cuda").repeat(2100 // count, 1)
        value, index = l2_argmin(x, y, impl=impl)
        assert_nearest_of_many(value, index, x, y)
        assert (index < count).all()


@pytest.mark.parametrize("impl", IMPLS["l2_argmin"])
def test_a_batch_whose_workspace_is_made_in_parts(impl, randn):
    x, y = randn(2048, 200, 64, device="cuda"), randn(2048, 130, 64, device="cuda")
    value, index = l2_argmin(x, y, impl=impl)
    for entry in (0, 1023, 2047):
        assert_nearest(value[entry], index[entry], x[entry], y[entry])


@pytest.mark.parametrize("impl", IMPLS["l2_argmin"])
@pytest.mark.parametrize(("n", "m", "d"), [(65536, 65537, 16), ((1 << 24) + 77, 40, 128), (70, (1 << 24) + 77, 128)])
def test_more_than_2_31_pairs_or_elements_in_a_search(n, m, d, impl):
    """The last rows, in float64; and the last column wins where it is made to."""
    needs_gib(30)
    x, y = torch.randn(n, d, device="cuda"), torch.randn(m, d, device="cuda")
    y[-1] = x[-1]
    value, index = l2_argmin(x, y, impl=impl)
    assert index[-1] == m - 1
    assert value[-1] == 0
    rows = torch.tensor([0, n // 2, n - 2], device="cuda")
    for row in rows.tolist():
        cost = torch.cat([(x[row].double() - part.double()).square().sum(1) for part in y.split(1 << 20)])
        bound = 4 * (d + 3) * 2.0**-24 * cost.min()
        assert cost[index[row]] <= cost.min() + bound
        assert abs(value[row].double() - cost[index[row]]) <= bound


@pytest.mark.parametrize("impl", IMPLS["soft_forest"])
def test_more_than_2_31_elements_in_a_forest(impl, randn):
    """Rows do not depend on each other: the last ones, computed alone, and their share of the leaves' gradient."""
    needs_gib(60)
    n, d = (1 << 24) + 77, 128
    _, thresholds, leaves = forest(randn, 1, d, 4, 2)
    z = torch.randn(n, d, device="cuda")
    out = soft_forest(z, thresholds, leaves, impl=impl)
    # products are tiled from other rows on: equal up to float32 rounding of sums of 16 terms
    bound = 64 * 2.0**-24 * leaves.abs().max()
    assert (out[-100:] - soft_forest(z[-100:], thresholds, leaves, impl=impl)).abs().max() <= bound
    del out
    grad = torch.zeros(n, d, device="cuda")
    grad[-100:] = torch.randn(100, d, device="cuda")
    tensors = (thresholds[None], leaves[None])
    whole = torch.ops.otkernels.soft_forest_backward(grad[None], z[None], *tensors, impl)
    alone = torch.ops.otkernels.soft_forest_backward(grad[None, -100:], z[None, -100:], *tensors, impl)
    assert not whole[0][0, :-100].any()
    for found, wanted in zip((whole[0][:, -100:], *whole[1:]), alone, strict=True):
        # each is within 300 u of the exact one, relative to the gradient's norm (test_soft_forest.py)
        assert (found - wanted).norm() <= 2 * 300 * 2.0**-24 * wanted.norm()
