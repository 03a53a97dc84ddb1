"""Recorded operations that are made short give the same numbers, and nothing that is written into is shared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from train.run.operations import bound, simplify, straight

aten = torch.ops.aten


def operations(graph) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def short(function, *inputs):
    """The function's recorded operations, simplified; and their straight form, on the same inputs."""
    graph = make_fx(function)(*inputs)
    simplify(graph)
    return graph, straight(graph)


def test_what_a_relu_s_second_derivative_multiplies_is_taken_out(randn):
    """Of the gradient penalty's gradient: the products that begin with the zeros of a second derivative."""
    critic = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    parameters = list(critic.parameters())

    def penalty_gradient(x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return list(torch.autograd.grad((slope.norm(dim=1) - 1).square().mean(), parameters, allow_unused=True))[::2]

    x = randn(5, 3)
    full = make_fx(penalty_gradient)(x)
    graph, play = short(penalty_gradient, x)
    count = [operations(g).count("aten.mm.default") for g in (full, graph)]
    assert count[1] < count[0], count
    for other in (x, randn(5, 3)):
        expected = penalty_gradient(other)
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(play(other), expected, strict=True))


def test_constants_are_computed_once_and_views_of_parameters_follow_them(randn):
    weight = nn.Parameter(randn(2, 3))

    def function(x: Tensor) -> list[Tensor]:
        scale = torch.ones_like(x[0]).mul(4.0).neg()
        return [(x * scale * 1.0) @ weight.t().exp(), torch.arange(3) + x.new_zeros(3)]

    x = randn(5, 3)
    graph, play = short(function, x)
    names = operations(graph)
    assert not any(name.startswith(("aten.neg", "aten.t.", "aten.ones", "aten.arange")) for name in names), names
    with torch.no_grad():
        weight.add_(1)  # as an optimizer does
        assert all(torch.equal(a, b) for a, b in zip(play(x), function(x), strict=True))


def test_what_a_caller_gets_is_new_at_each_call(randn):
    """A gradient that is always zero must not be one tensor that the caller may write into."""

    def function(x: Tensor) -> list[Tensor]:
        zero = torch.zeros_like(x)
        return [zero.t(), x + 1]

    _, play = short(function, randn(3, 2))
    x = randn(3, 2)
    first = play(x)[0]
    first.fill_(5)
    assert torch.equal(play(x)[0], torch.zeros(2, 3))


@pytest.mark.parametrize("through_a_view", [False, True])
def test_memory_that_is_written_into_is_no_constant(through_a_view, randn):
    def function(x: Tensor) -> list[Tensor]:
        total = torch.zeros(4)
        (total.view(2, 2) if through_a_view else total.t()).add_(x[0, 0])
        return [total * 2]

    _, play = short(function, randn(3, 2))
    for x in (randn(3, 2), randn(3, 2)):
        assert torch.equal(play(x)[0], function(x)[0])


def test_a_copy_that_is_written_into_stays_a_copy(randn):
    def function(x: Tensor) -> list[Tensor]:
        one, zero = x * 1.0, x + torch.zeros(3)
        one.add_(1), zero.add_(2)
        kept = x.sin() * 1.0
        return [one + zero + x, kept, kept.t()]

    _, play = short(function, randn(2, 3))
    x = randn(2, 3)
    before = x.clone()
    assert all(torch.equal(a, b) for a, b in zip(play(x), function(before.clone()), strict=True))
    assert torch.equal(x, before)


def test_a_source_that_is_written_into_later_is_copied(randn):
    def function(x: Tensor) -> list[Tensor]:
        source = x.sin()
        copy = source * 1.0
        source.add_(1)
        return [copy + source]

    _, play = short(function, randn(3))
    x = randn(3)
    assert torch.equal(play(x)[0], function(x)[0])


def test_chance_is_drawn_at_each_call(randn):
    def function(x: Tensor) -> list[Tensor]:
        return [x * torch.rand(3)]

    _, play = short(function, torch.ones(3))
    torch.manual_seed(0)
    expected = [function(torch.ones(3))[0] for _ in range(2)]
    torch.manual_seed(0)
    assert all(torch.equal(play(torch.ones(3))[0], value) for value in expected)
    assert not torch.equal(*expected)


def test_a_product_with_one_that_changes_the_dtype_stays():
    graph, play = short(lambda x: [x * 1.0], torch.arange(3))
    assert operations(graph) == ["aten.mul.Tensor"]
    assert play(torch.arange(3))[0].dtype == torch.float32


def test_early_outputs_come_first_and_nothing_else_is_computed_for_them(randn):
    weight = torch.ones(3)

    def function(x: Tensor) -> list[Tensor]:
        other = x.sin() * weight
        hidden = x.exp()
        return [hidden + other, hidden.neg()]

    x = randn(3)
    run = straight(make_fx(function)(x), early=1)(x)
    (early,) = next(run)
    assert torch.equal(early, function(x)[1])
    weight.add_(1)  # as a step of another player between both parts does
    (late,) = next(run)
    assert torch.equal(late, function(x)[0])


def test_operations_are_called_by_their_python_functions():
    assert bound(aten.mm.default) is torch._C._VariableFunctions.mm
    assert bound(aten.view.default) is torch._C.TensorBase.view
    assert bound(aten.threshold_backward.default) is aten.threshold_backward.default  # PyTorch binds none
    assert bound(torch.ops.otkernels.soft_forest.default) is torch.ops.otkernels.soft_forest.default
