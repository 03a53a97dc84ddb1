"""Every op inside what torch does to calls: compiled, exported, mapped, traced, faked, copied. The results are eager's.

Each test runs with every combination of inputs that need a gradient and inputs that do not, with a potential and
without: an op may take a short way round torch's dispatcher, and must not take it here.
"""

from __future__ import annotations

import copy
import functools
import io
import itertools
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from otkernels import AdamState, FitTransport, assign, fit_transport, l2_argmin, l2_topk, soft_forest

Call = Callable[..., tuple[Tensor, ...]]


def pairing(x: Tensor, y: Tensor, potential: Tensor | None = None) -> tuple[Tensor, ...]:
    result = l2_argmin(x, y, potential)
    return result.value * 2, result.index


def nearest_three(x: Tensor, y: Tensor, potential: Tensor | None = None) -> tuple[Tensor, ...]:
    result = l2_topk(x, y, 3, potential)
    return result.value * 2, result.index


def matching(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    result = assign(x, y)
    return result.primal * 2, result.index, result.u, result.v, result.gap


def forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> tuple[Tensor, ...]:
    return (soft_forest(z, thresholds, leaves) * 2,)


SHAPES: dict[str, tuple[Call, tuple[tuple[int, ...], ...]]] = {
    "l2_argmin": (pairing, ((50, 6), (7, 6))),
    "l2_argmin_low": (pairing, ((50, 4), (7, 4))),
    "l2_argmin_potential": (pairing, ((50, 6), (7, 6), (7,))),
    "l2_argmin_batch": (pairing, ((2, 50, 6), (2, 7, 6), (2, 7))),
    "l2_topk_potential": (nearest_three, ((50, 6), (7, 6), (7,))),
    "assign_batch": (matching, ((2, 7, 6), (2, 100, 6))),
    "soft_forest": (forest, ((9, 5), (2, 3), (2, 4, 6))),
    "soft_forest_batch": (forest, ((2, 9, 5), (2, 2, 3), (2, 2, 4, 6))),
}
CASES = [
    pytest.param(name, needed, id=f"{name}-{''.join('g' if one else '-' for one in needed)}")
    for name, (_, shapes) in SHAPES.items()
    for needed in itertools.product((False, True), repeat=len(shapes))
]
every_case = pytest.mark.parametrize(("name", "needed"), CASES)
plain_cases = pytest.mark.parametrize("name", SHAPES)


def inputs(randn: Callable[..., Tensor], name: str, needed: tuple[bool, ...] = ()) -> tuple[Call, list[Tensor]]:
    call, shapes = SHAPES[name]
    tensors = [randn(*shape) for shape in shapes]
    for tensor, needs in zip(tensors, needed, strict=False):
        tensor.requires_grad_(needs)
    return call, tensors


def results(call: Call, tensors: list[Tensor]) -> list[Tensor]:
    """What `call` returns and, where an input needs one, the gradients of its first result's squares."""
    out = call(*tensors)
    wanted = [t for t in tensors if t.requires_grad]
    grads = torch.autograd.grad(out[0].square().sum(), wanted) if wanted else ()
    return [t.detach() for t in (*out, *grads)]


def assert_same(got: list[Tensor] | tuple[Tensor, ...], expected: list[Tensor] | tuple[Tensor, ...]) -> None:
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@every_case
def test_compiled_whole(name, needed, randn):
    torch._dynamo.reset()
    call, tensors = inputs(randn, name, needed)
    assert_same(results(torch.compile(call, fullgraph=True, backend="aot_eager"), tensors), results(call, tensors))


@every_case
def test_compiled_once_for_every_size(name, needed, randn):
    """The rows of x, or of z, are a symbol: a second size runs what the first one compiled."""
    torch._dynamo.reset()
    call, tensors = inputs(randn, name, needed)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=True)
    assert_same(results(compiled, tensors), results(call, tensors))
    longer = torch.cat((tensors[0].detach(), tensors[0].detach()), -2).requires_grad_(tensors[0].requires_grad)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_same(results(compiled, [longer, *tensors[1:]]), results(call, [longer, *tensors[1:]]))


@plain_cases
def test_marked_dynamic(name, randn):
    torch._dynamo.reset()
    call, tensors = inputs(randn, name)
    rows = tensors[0].dim() - 2
    torch._dynamo.mark_dynamic(tensors[0], rows)  # raises if the compiler must specialise
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert_same(compiled(*tensors), call(*tensors))
    longer = torch.cat((tensors[0], tensors[0]), -2)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_same(compiled(longer, *tensors[1:]), call(longer, *tensors[1:]))


@plain_cases
def test_no_graph_breaks(name, randn):
    torch._dynamo.reset()
    call, tensors = inputs(randn, name)
    assert torch._dynamo.explain(call)(*tensors).graph_break_count == 0


VMAPS = [
    pytest.param(name, in_dims, id=f"{name}-{in_dims}")
    for name in SHAPES
    for in_dims in itertools.product((0, 1, None), repeat=len(SHAPES[name][1]))
    if any(dim is not None for dim in in_dims)
]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("name", "in_dims"), VMAPS)
def test_vmap_is_the_loop(name, in_dims, compiled, randn):
    torch._dynamo.reset()
    call, alone = inputs(randn, name)
    size = 3
    stacked = [
        t if dim is None else torch.stack([t + 0.1 * k for k in range(size)], dim)
        for t, dim in zip(alone, in_dims, strict=True)
    ]
    mapped = torch.vmap(call, in_dims=in_dims)
    if compiled:
        mapped = torch.compile(mapped, fullgraph=True, backend="aot_eager")
    each = [
        call(*(t if dim is None else t.select(dim, k) for t, dim in zip(stacked, in_dims, strict=True)))
        for k in range(size)
    ]
    assert_same(mapped(*stacked), [torch.stack(parts) for parts in zip(*each, strict=True)])


class Module(torch.nn.Module):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.call(*tensors)


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
@every_case
def test_exported(name, needed, strict, randn):
    torch._dynamo.reset()
    call, tensors = inputs(randn, name, needed)
    rows = torch.export.Dim("rows", min=2, max=100)  # assign's N <= M
    dynamic = ({tensors[0].dim() - 2: rows}, *({} for _ in tensors[1:]))
    program = torch.export.export(
        Module(call), tuple(tensors), dynamic_shapes={"tensors": dynamic}, strict=strict
    ).module()
    assert_same(program(*tensors), call(*tensors))
    longer = torch.cat((tensors[0].detach(), tensors[0].detach()), -2)
    assert_same(program(longer, *tensors[1:]), call(longer, *tensors[1:]))


@plain_cases
def test_vmap_in_vmap(name, randn):
    call, (first, *rest) = inputs(randn, name)
    grid = torch.stack([torch.stack([first + 0.1 * (i + 3 * j) for i in range(3)]) for j in range(2)])
    nested = torch.vmap(torch.vmap(lambda rows: call(rows, *rest)))(grid)
    each = [torch.vmap(lambda rows: call(rows, *rest))(row) for row in grid]
    assert_same(nested, [torch.stack(parts) for parts in zip(*each, strict=True)])


@every_case
def test_traced(name, needed, randn):
    call, tensors = inputs(randn, name, needed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; it must still not record nonsense
        traced = torch.jit.trace(call, tuple(tensors))
    moved = [(t + 0.1).detach() for t in tensors]
    assert_same(traced(*moved), call(*moved))


@every_case
def test_recorded_by_make_fx(name, needed, randn):
    call, tensors = inputs(randn, name, needed)
    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(lambda *t: call(*t), tracing_mode=mode)(*tensors)
        assert any("otkernels" in str(node.target) for node in graph.graph.nodes)
        moved = [t.detach() + 0.1 for t in tensors]
        assert_same(graph(*moved), call(*moved))


@every_case
def test_fake_tensors_have_the_shapes(name, needed, randn):
    call, tensors = inputs(randn, name, needed)
    expected = call(*tensors)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in tensors]
        for got, want in zip(call(*fakes), expected, strict=True):
            assert (got.shape, got.dtype, got.requires_grad) == (want.shape, want.dtype, want.requires_grad)


@every_case
def test_functionalized(name, needed, randn):
    call, tensors = inputs(randn, name, needed)
    assert_same(torch.func.functionalize(call)(*tensors), call(*tensors))


@every_case
def test_without_recording(name, needed, randn):
    call, tensors = inputs(randn, name, needed)
    expected = [t.detach() for t in call(*tensors)]
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            got = call(*tensors)
            assert not any(t.requires_grad for t in got)
            assert_same(got, expected)


@every_case
def test_recomputed_by_checkpoint(name, needed, randn):
    call, tensors = inputs(randn, name, needed)
    expected = results(call, tensors)
    again = functools.partial(torch.utils.checkpoint.checkpoint, call, use_reentrant=False)
    assert_same(results(again, tensors), expected)
    if any(needed):
        torch.utils.checkpoint.checkpoint(call, *tensors, use_reentrant=True)[0].square().sum().backward()
        assert_same([t.grad for t in tensors if t.requires_grad], expected[len(expected) - sum(needed) :])


class Marked(Tensor):
    """A subclass that only keeps its type."""


@every_case
def test_subclasses_and_parameters(name, needed, randn):
    call, tensors = inputs(randn, name, needed)
    marked = [t.detach().as_subclass(Marked).requires_grad_(t.requires_grad) for t in tensors]
    out = call(*marked)
    assert all(type(t) is Marked for t in out)
    assert_same([t.as_subclass(Tensor) for t in results(call, marked)], results(call, tensors))
    parameters = [torch.nn.Parameter(t.detach(), requires_grad=t.requires_grad) for t in tensors]
    assert_same(results(call, parameters), results(call, tensors))


@plain_cases
def test_copied_modules_give_the_same(name, randn):
    call, tensors = inputs(randn, name)
    assert_same(copy.deepcopy(Module(call))(*tensors), call(*tensors))


# ---- fit_transport updates its state in place ------------------------------------------------------------------------

NEEDED = list(itertools.product((False, True), repeat=4))  # z_r, z_g, thresholds, leaves
every_need = pytest.mark.parametrize("needed", NEEDED, ids=lambda n: "".join("g" if one else "-" for one in n))


def transport_problem(randn: Callable[..., Tensor], needed: tuple[bool, ...] = (False,) * 4) -> list[Tensor]:
    tensors = [randn(9, 6), randn(7, 5), randn(2, 3), randn(2, 4, 6)]
    tensors += [torch.zeros(2, 4, 6), torch.zeros(2, 4, 6), torch.tensor(0.0)]
    for tensor, needs in zip(tensors, needed, strict=False):
        tensor.requires_grad_(needs)
    return tensors


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]


def fit(z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, *adam: Tensor) -> FitTransport:
    return fit_transport(z_r, z_g, thresholds, leaves, AdamState(*adam), iters=2, lr=0.01)


def assert_fits_alike(other: Callable[..., tuple[Tensor, ...]], tensors: list[Tensor]) -> None:
    mine, theirs = copies(tensors), copies(tensors)
    expected, got = fit(*mine), other(*theirs)
    assert_same([*got, *(t.detach() for t in theirs)], [*expected, *(t.detach() for t in mine)])


@every_need
def test_fit_transport_compiled_whole(needed, randn):
    torch._dynamo.reset()
    problem = transport_problem(randn, needed)
    assert_fits_alike(torch.compile(fit, fullgraph=True, backend="aot_eager"), problem)
    compiled = torch.compile(fit, fullgraph=True, backend="aot_eager", dynamic=True)
    assert_fits_alike(compiled, problem)
    longer = [torch.cat((problem[0], problem[0])).detach().requires_grad_(needed[0]), *problem[1:]]
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_fits_alike(compiled, longer)


@every_need
@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_fit_transport_exported(needed, strict, randn):
    torch._dynamo.reset()
    problem = transport_problem(randn, needed)
    program = torch.export.export(Module(fit), tuple(copies(problem)), strict=strict).module()
    assert_fits_alike(program, [t.detach() for t in problem])


@every_need
def test_fit_transport_elsewhere(needed, randn):
    problem = transport_problem(randn, needed)
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context:
            assert_fits_alike(fit, problem)
    with FakeTensorMode() as mode:
        index, cost = fit(*(mode.from_tensor(t) for t in problem))
        assert (index.shape, cost.shape) == ((9,), (2,))
    assert isinstance(fit(*copies(problem)), FitTransport)


@pytest.mark.parametrize("way", ["compiled", "loose", "strict"])
def test_a_state_is_an_argument_like_a_tensor(way, randn):
    """AdamState goes into compiled and exported functions as it is, and what they write lands in its tensors."""
    torch._dynamo.reset()

    def run(rows: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor, state: AdamState) -> FitTransport:
        return fit_transport(rows, z, thresholds, leaves, state, iters=2, lr=0.01)

    def arguments(tensors: list[Tensor]) -> tuple[Tensor | AdamState, ...]:
        return (*tensors[:4], AdamState(*tensors[4:]))

    problem = transport_problem(randn)
    if way == "compiled":
        call = torch.compile(run, fullgraph=True, backend="aot_eager")
    else:
        program = torch.export.export(Module(run), arguments(copies(problem)), strict=way == "strict")
        # PyTorch 2.11 writes guards that do not parse where one field's name begins another's: exp_avg and exp_avg_sq
        call = program.module(check_guards=False)
    assert_fits_alike(lambda *tensors: call(*arguments(list(tensors))), problem)


# ---- named results leave the process ---------------------------------------------------------------------------------


def named_results(randn: Callable[..., Tensor]) -> list[tuple[Call, list[Tensor]]]:
    return [
        (l2_argmin, [randn(5, 3), randn(4, 3)]),
        (fit, transport_problem(randn)),
        (assign, [randn(4, 3), randn(5, 3)]),
    ]


def through_a_file(value: object) -> object:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_an_export(call: Call, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    file = io.BytesIO()
    torch.export.save(torch.export.export(Module(call), tuple(copies(tensors))), file)
    file.seek(0)
    return torch.export.load(file).module()(*copies(tensors))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["L2Argmin", "FitTransport", "Assignment"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_named_results_keep_their_names(which, randn):
    torch._dynamo.reset()
    call, tensors = named_results(randn)[which]
    result = call(*copies(tensors))
    ways = {
        "torch.save": through_a_file(result),
        "inside a state": through_a_file({"pairs": [result]})["pairs"][0],
        "pickle": pickle.loads(pickle.dumps(result)),
        "deepcopy": copy.deepcopy(result),
        "export": through_an_export(call, tensors),
        "compile": torch.compile(call, fullgraph=True, backend="aot_eager")(*copies(tensors)),
    }
    for way, got in ways.items():
        assert type(got) is type(result), way
        assert_same(got, result)
