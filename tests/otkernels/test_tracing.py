"""Every op under everything that traces a call, with every combination of inputs that ask for gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from otkernels import fit_transport, l2_argmin, soft_forest

N, M, D, T, DEPTH = 9, 7, 4, 3, 2
Inputs = dict[str, Tensor]


def argmin_value(x: Tensor, y: Tensor, potential: Tensor | None = None) -> Tensor:
    return l2_argmin(x, y, potential).value


def forest_gradient(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """The backward op itself, which a traced backward pass calls: the gradient in z of the sum of F(z)."""
    grad_out = z.new_ones(1, z.shape[0], leaves.shape[-1])
    return torch.ops.otkernels.soft_forest_backward(grad_out, z[None], thresholds[None], leaves[None], "auto")[0][0]


def transport_cost(z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """On copies of the state: the op moves it in place."""
    moments = torch.zeros_like(leaves), torch.zeros_like(leaves)
    state = (leaves.detach().clone(), *moments, torch.zeros(()))
    fitted = fit_transport(z_r, z_g, thresholds, *state, iters=2, lr=0.1)
    return fitted.cost + state[0].sum()


SHAPES: dict[str, tuple[Callable[..., Tensor], dict[str, tuple[int, ...]]]] = {
    "l2_argmin": (argmin_value, {"x": (N, D), "y": (M, D)}),
    "l2_argmin, potential": (argmin_value, {"x": (N, D), "y": (M, D), "potential": (M,)}),
    "soft_forest": (soft_forest, {"z": (N, D), "thresholds": (T, 3), "leaves": (T, 4, 5)}),
    "soft_forest_backward": (forest_gradient, {"z": (N, D), "thresholds": (T, 3), "leaves": (T, 4, 5)}),
    "fit_transport": (transport_cost, {"z_r": (N, 5), "z_g": (M, D), "thresholds": (T, 3), "leaves": (T, 4, 5)}),
}
CASES = [
    pytest.param(op, frozenset(wanted), id=f"{op}: {', '.join(wanted) or 'none'}")
    for op, (_, shapes) in SHAPES.items()
    for k in range(len(shapes) + 1)
    for wanted in itertools.combinations(shapes, k)
]


class Call(torch.nn.Module):
    """A function as the module that torch.export wants."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


@pytest.fixture
def make(randn) -> Callable[..., list[Tensor]]:
    def inputs(op: str, wanted: frozenset[str], *lead: int, rows: int = N) -> list[Tensor]:
        shapes = SHAPES[op][1].items()
        sizes = {name: tuple(rows if size == N else size for size in shape) for name, shape in shapes}
        return [randn(*lead, *shape).requires_grad_(name in wanted) for name, shape in sizes.items()]

    return inputs


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def results(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The value, and the gradients of the inputs that ask for one."""
    value = function(*inputs)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    if not value.requires_grad:
        return [value.detach()]
    grads = torch.autograd.grad(value.square().sum(), wanted, allow_unused=True)
    return [value.detach(), *(grad for grad in grads if grad is not None)]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("op", "wanted"), CASES)
def test_compiles_whole(op, wanted, make):
    function, inputs = SHAPES[op][0], make(op, wanted)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_same(results(compiled, inputs), results(function, inputs))


@pytest.mark.parametrize(("op", "wanted"), CASES)
def test_compiles_once_for_all_sizes(op, wanted, make):
    function, graphs = SHAPES[op][0], []

    def count(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=count)
    for rows in (N, 23, 40):
        inputs = make(op, wanted, rows=rows)
        assert_same(results(compiled, inputs), results(function, inputs))
    assert len(graphs) == 1


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("op", "wanted"), CASES)
def test_exports(op, wanted, strict, make):
    function, inputs = SHAPES[op][0], make(op, wanted)
    exported = torch.export.export(Call(function), tuple(inputs), strict=strict).module()
    assert_same(results(exported, inputs), results(function, inputs))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("op", ["l2_argmin", "l2_argmin, potential", "soft_forest", "soft_forest_backward"])
def test_vmap_over_any_inputs(op, compiled, make):
    function, shapes = SHAPES[op]
    for k in range(1, len(shapes) + 1):
        for batched in itertools.combinations(shapes, k):
            torch._dynamo.reset()
            many = make(op, frozenset(), 3)
            inputs = [t if name in batched else t[0] for name, t in zip(shapes, many, strict=True)]
            dims = tuple(0 if name in batched else None for name in shapes)
            mapped = torch.vmap(function, in_dims=dims)
            if compiled:
                mapped = torch.compile(mapped, fullgraph=True, backend="aot_eager")
            one = [function(*(t[i] if dim == 0 else t for t, dim in zip(inputs, dims, strict=True))) for i in range(3)]
            assert torch.equal(mapped(*inputs), torch.stack(one)), batched


@pytest.mark.parametrize("op", list(SHAPES))
def test_fake_tensors_give_shapes_alone(op, make):
    from torch._subclasses.fake_tensor import FakeTensorMode

    function, inputs = SHAPES[op][0], make(op, frozenset())
    expected = function(*inputs)
    with FakeTensorMode() as mode:
        fake = function(*(mode.from_tensor(tensor) for tensor in inputs))
    assert (fake.shape, fake.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("op", list(SHAPES))
def test_make_fx_traces_the_op(op, make):
    from torch.fx.experimental.proxy_tensor import make_fx

    function, inputs = SHAPES[op][0], make(op, frozenset())
    graph = make_fx(lambda *tensors: function(*tensors))(*inputs)
    assert any("otkernels" in str(node.target) for node in graph.graph.nodes)
    assert torch.equal(graph(*inputs), function(*inputs))


@pytest.mark.parametrize("op", list(SHAPES))
def test_no_graph_breaks_without_fullgraph(op, make):
    assert torch._dynamo.explain(SHAPES[op][0])(*make(op, frozenset())).graph_break_count == 0


@pytest.mark.parametrize(("op", "wanted"), CASES)
def test_inference_mode_equals_plain_calls(op, wanted, make):
    function, inputs = SHAPES[op][0], make(op, wanted)
    expected = function(*inputs).detach()
    with torch.inference_mode():
        assert torch.equal(function(*inputs), expected)
    with torch.no_grad():
        value = function(*inputs)
    assert torch.equal(value, expected)
    assert not value.requires_grad
