"""Contestants of a GPU in one process: judged, then timed; what breaks the device; CUDA graphs. On CPU tensors."""

from __future__ import annotations

import dataclasses
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmarks import fit_transport as fit
from benchmarks.contestants import OURS, Case, Contestant
from benchmarks.gpu import l2_argmin as nearest
from benchmarks.gpu import l2_topk as neighbours
from benchmarks.gpu.device import Host
from benchmarks.gpu.entrant import MOST_SETS, DeviceLostError, Entrant, GraphEntrant, sets_of
from benchmarks.gpu.suites import GPU_SUITES
from benchmarks.gpu.worker import Measurer, same_call
from tests.benchmarks.gpu_actors import PretendDevice

CASE = Case("l2_argmin", 40, 30, 3)


def entrant(contestant, case=CASE, suite=nearest.SUITE, device=None):
    device = device or PretendDevice()
    sets = sets_of(suite, case, device)
    expected = [suite.expect(inputs, case) for inputs in sets[:2]]
    return Entrant(suite, contestant, sets, expected, device, lambda name, limit: None)


def prepare(of, case=CASE):
    return of.ask("prepare", case=dataclasses.asdict(case), expected=[])


def without_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function=None, **options: function or (lambda inner: inner))


@pytest.fixture
def peers(monkeypatch):
    """Modules with the calls of the other packages that the benchmark makes, computed plainly."""

    def euclid_assign_triton(x, centroids, x_sq):
        assert x.shape[0] == centroids.shape[0] == 1
        assert x_sq.dtype == torch.float32
        assert torch.allclose(x_sq, x.float().square().sum(2))
        return torch.cdist(x.float(), centroids.float()).argmin(2).int()

    def c_transform_fwd(x, y, psi):
        cost = torch.cdist(x.float(), y.float()).square() - psi
        return cost.min(1)

    class LazyTensor(torch.Tensor):
        def argKmin(self, k, dim):  # noqa: N802
            assert dim == 1
            return self.topk(k, largest=False).indices.as_subclass(torch.Tensor)

    def search(base, queries, k):
        assert base.dtype == queries.dtype == torch.float32
        return torch.cdist(queries, base).topk(k, largest=False)

    def build(dataset, metric):
        assert metric == "sqeuclidean"
        return dataset

    def brute_force_search(index, queries, k):
        values, indices = search(index, queries, k)
        return values.numpy(), indices.numpy()

    for name, functions in (
        ("certex", {"search": search}),
        ("cuvs", {}),
        ("cuvs.neighbors", {"brute_force": SimpleNamespace(build=build, search=brute_force_search)}),
        ("flash_kmeans", {}),
        ("flash_kmeans.assign_euclid_triton", {"euclid_assign_triton": euclid_assign_triton}),
        ("flash_sinkhorn", {"c_transform_fwd": c_transform_fwd}),
        ("pykeops", {}),
        ("pykeops.torch", {"LazyTensor": lambda tensor: tensor.as_subclass(LazyTensor)}),
    ):
        module = ModuleType(name)
        for function, value in functions.items():
            setattr(module, function, value)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("dtype", nearest.DTYPES)
def test_every_peer_of_l2_argmin_is_called_as_it_expects_and_is_right(dtype, peers, monkeypatch):
    without_compiler(monkeypatch)
    monkeypatch.setattr(nearest, "BLOCK_BYTES", 4 * 30 * 7)  # seven rows a block, the last one shorter
    case = dataclasses.replace(CASE, dtype=dtype)
    found = [c for c in nearest.SUITE.contestants if not c.name.startswith(OURS) and c.suits(case)]
    assert len(found) == 7
    assert {
        c.name: prepare(entrant(c, case), case) for c in found if not prepare(entrant(c, case), case)["right"]
    } == {}


def test_every_peer_of_l2_topk_is_right_and_wrong_neighbours_are_not(peers, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 4 * 30 * 7)  # seven rows a block, the last one shorter
    case = dataclasses.replace(CASE, op="l2_topk")
    suite = neighbours.SUITE
    ours, *found = suite.contestants
    answers = {c.name: prepare(entrant(c, case, suite), case)["right"] for c in found}
    assert answers == dict.fromkeys(answers, True)
    inputs = suite.draw(case, 0)
    expected = suite.expect(inputs, case)
    index = neighbours.cdist(case)(*inputs)
    assert suite.judge(ours, case, inputs, index.flip(1), expected).right  # the order among them is not judged
    twice, farther = index.clone(), index.clone()
    twice[7, -1] = twice[7, 0]
    farther[7, -1] = torch.cdist(*inputs)[7].argmax()
    for wrong in (twice, farther, index[:, 1:], index + 30):
        assert not suite.judge(ours, case, inputs, wrong, expected).right


@pytest.mark.parametrize("op", GPU_SUITES)
def test_a_gpu_suite_runs_whole_where_its_contestants_do(op, monkeypatch):
    without_compiler(monkeypatch)
    suite, begun = GPU_SUITES[op], []
    case = {
        "l2_argmin": CASE,
        "l2_topk": dataclasses.replace(CASE, op=op),
        "soft_forest": Case(op, 20, 0, 128, "forward"),
        "fit_transport": fit.case_of(64, 2),
    }[op]
    measurer = Measurer(Host(), lambda name, limit: begun.append(name))
    rows = measurer.measure(suite, case, budget=0.01, allow=1.0, skip={})
    status = {row["contestant"]: row["status"] for row in rows}
    peer = {
        "l2_argmin": "torch.cdist + argmin",
        "l2_topk": "torch.cdist + topk",
        "soft_forest": "eager",
        "fit_transport": "composed ops",
    }[op]
    assert status[peer] == "ok"
    mine = next(row for row in rows if row["contestant"] == suite.contestants[0].name)
    if op == "l2_topk":  # in Triton's interpreter
        assert mine["status"] == "ok"
    else:
        assert mine["status"] == "failed"
        assert "cannot run here" in mine["reason"] or "impl must be" in mine["reason"]
    assert begun[0] == "inputs"
    assert set(status) <= set(begun)


def test_a_wrong_result_is_never_timed():
    device = PretendDevice()
    answer = prepare(
        entrant(Contestant("hasty", lambda case: lambda x, y: torch.zeros(40, dtype=torch.int64)), device=device)
    )
    assert not answer["right"]
    assert device.passes == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("tried to allocate 99 GiB"), "out of memory"),
        (ImportError("No module named 'x'"), "not installed (No module named 'x')"),
        (ValueError("first\nsecond"), "ValueError: first"),
    ],
)
def test_a_contestant_that_fails_says_why_in_a_line(error, reason):
    def load(case):
        raise error

    assert prepare(entrant(Contestant("failing", load))) == {"failed": reason}


def test_a_broken_device_is_noticed_at_once():
    device = PretendDevice()

    def load(case):
        device.lost = "CUDA error: an illegal memory access was encountered"
        return lambda x, y: None

    with pytest.raises(DeviceLostError, match="illegal memory access"):
        prepare(entrant(Contestant("breaking", load), device=device))


def test_sets_pass_the_cache_twice_within_a_quarter_of_the_memory():
    def count(cache, free):
        device = SimpleNamespace(name="cpu", cache_bytes=cache, free_bytes=lambda: free)
        return len(sets_of(nearest.SUITE, CASE, device))

    each = 4 * 3 * (40 + 30)
    assert count(cache=5 * each, free=1 << 30) == 10
    assert count(cache=1 << 30, free=1 << 30) == MOST_SETS
    assert count(cache=1, free=1 << 30) == 2
    assert count(cache=1 << 30, free=4 * each * 3) == 3
    assert count(cache=1 << 30, free=0) == 1


def test_turns_go_through_the_sets_in_passes():
    used = []
    found = entrant(Contestant("cdist", lambda case: lambda x, y: used.append(x) or torch.cdist(x, y).argmin(1)))
    prepare(found)
    sets = len(found.sets)
    used.clear()
    found.next = 0
    found.device.passes.clear()
    assert found.ask("turn", calls=2 * sets + 1)["seconds"] == pytest.approx(3 / (2 * sets + 1))
    assert found.device.passes == [3]
    assert all(used[i] is found.sets[i % sets][0] for i in range(2 * sets + 1))


@pytest.mark.parametrize("contestant", [fit.SUITE.contestants[0], fit.SUITE.contestants[1]], ids=lambda c: c.name)
def test_a_graph_is_judged_on_restored_state_and_poisoned_outputs(contestant):
    case = fit.case_of(64, 2)
    eager = entrant(contestant, case, fit.SUITE)
    prepare(eager, case)
    graph = GraphEntrant(eager)
    answer = prepare(graph, case)
    assert answer["right"]
    assert answer["extra_bytes"] == 4096
    assert graph.ask("turn", calls=100)["seconds"] > 0


@pytest.mark.parametrize(("n", "idle"), [(1024, True), (1025, False)])
def test_the_device_is_idle_at_the_start_of_a_pass_where_launching_counts(n, idle):
    device, case = PretendDevice(), dataclasses.replace(CASE, n=n)
    eager = entrant(Contestant("cdist", lambda case: lambda x, y: torch.cdist(x, y).argmin(1)), case, device=device)
    assert prepare(eager, case)["right"]
    assert device.idle == [idle]
    prepare(GraphEntrant(eager), case)
    assert device.idle == [idle, False]


def test_a_graph_that_writes_nothing_is_wrong():
    class Idle(PretendDevice):
        def capture(self, call):
            return (lambda: None), call()

    eager = entrant(Contestant("cdist", lambda case: lambda x, y: torch.cdist(x, y).argmin(1)), device=Idle())
    assert prepare(eager)["right"]
    assert not prepare(GraphEntrant(eager))["right"]


def test_a_graph_fails_as_its_eager_call_did():
    eager = entrant(Contestant("failing", lambda case: 1 / 0))
    prepare(eager)
    assert prepare(GraphEntrant(eager)) == {"failed": "ZeroDivisionError: division by zero"}


def test_what_compiles_too_long_is_left_out_with_a_reason():
    slow = Contestant("slow", lambda case: lambda x, y: torch.cdist(x, y).argmin(1), compiled=True)
    suite = dataclasses.replace(nearest.SUITE, contestants=(slow,))
    measurer = Measurer(PretendDevice(), lambda name, limit: None)
    assert {row["call"] for row in measurer.measure(suite, CASE, 0.0, 1.0, {})} == {"eager", "graph"}
    measurer.start_seconds["slow"] = 20.0
    (row,) = measurer.measure(suite, CASE, 0.0, 3.0, {})
    assert row["reason"] == "not started: compiling took 20 s before, and 3 s are allowed now"
    (row,) = measurer.measure(suite, CASE, 0.0, 30.0, {"slow": "broke the device"})
    assert row["reason"] == "broke the device"


def test_times_are_compared_with_ours_at_the_same_kind_of_call():
    timed = ["peer", "peer, graph", f"{OURS} cuda exact", f"{OURS} cuda exact, graph"]
    assert same_call("peer", timed) == f"{OURS} cuda exact"
    assert same_call("peer, graph", timed) == f"{OURS} cuda exact, graph"
    assert same_call("peer, graph", ["peer, graph"]) is None
