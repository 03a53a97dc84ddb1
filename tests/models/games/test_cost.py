"""3P-WGAN's cost: a function of the user's own is tried when the game is built, and named when it fails later."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from models.games import ThreePlayerWgan
from models.networks import NetworkConfig

NETWORKS = NetworkConfig("mlp", width=4, depth=1, noise_dim=2)
RULE = r"must be a function of two tensors \[..., D\] that returns a floating, finite and differentiable tensor \[...\]"


def raises(x, y):
    raise KeyError("line one\nline two")


def leaves(x, y):
    sys.exit(3)


@pytest.fixture
def own(monkeypatch):
    """A game whose cost is the given function, by the name own:cost."""

    def build(function, shape=(3,)):
        module = types.ModuleType("own")
        module.cost = function
        monkeypatch.setitem(sys.modules, "own", module)
        return ThreePlayerWgan.build(ThreePlayerWgan.Config(NETWORKS, cost="own:cost"), shape)

    return build


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: 0, r"; cost own:cost raised TypeError: .* takes 0 positional arguments but 2 were given"),
        (raises, "; cost own:cost raised KeyError: 'line one.nline two'"),
        (leaves, "; cost own:cost raised SystemExit: 3"),
        (lambda x, y: x - y, r"; cost own:cost must return a floating tensor \[2\] for .* \[2, 3\], got .* \[2, 3\]"),
        (lambda x, y: (x - y).square().sum(), r"must return a floating tensor \[2\] for .*, got torch.float32 \[\]"),
        (lambda x, y: (x - y).square().sum((0, -1)).expand(2), r"must return a floating tensor \[3, 2\]"),
        (lambda x, y: (x != y).sum(-1), r"must return a floating tensor \[2\] for .*, got torch.int64 \[2\]"),
        (lambda x, y: 0.5, "must return a floating tensor .*, got a float"),
        (lambda x, y: None, "must return a floating tensor .*, got a NoneType"),
        (lambda x, y: (x - y).detach().norm(dim=-1), r", got one without a gradient for \[2, 3\]"),
        (lambda x, y: (x - y).norm(dim=-1) / 0, r", got values or gradients that are missing, NaN or infinite"),
        (lambda x, y: (x - x.detach()).norm(dim=-1).sqrt(), r", got values or gradients that are missing, NaN"),
        (lambda x, y: torch.zeros(x.shape[:-1], requires_grad=True), r", got values or gradients that are missing"),
    ],
)
def test_a_cost_that_cannot_train_is_refused_when_the_game_is_built(own, function, message):
    with pytest.raises(ValueError, match=rf"^ThreePlayerWgan: cost own:cost {RULE}.*{message}") as caught:
        own(function)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cost", ["os:getcwd", "operator:sub", "math:dist", "builtins:exit"])
def test_a_function_of_something_else_is_refused(cost):
    with pytest.raises(ValueError, match=rf"^ThreePlayerWgan: cost {cost} {RULE}"):
        ThreePlayerWgan.build(ThreePlayerWgan.Config(NETWORKS, cost=cost), (3,))


def test_a_module_that_leaves_is_no_end(tmp_path, monkeypatch):
    (tmp_path / "leaving_module.py").write_text("import sys\nsys.exit('no\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"got 'leaving_module:cost': SystemExit: no more$"):
        ThreePlayerWgan.build(ThreePlayerWgan.Config(NETWORKS, cost="leaving_module:cost"), (3,))


def test_a_good_cost_is_taken_and_draws_no_random_numbers(own):
    def numbers(game):
        return torch.cat([value.flatten() for value in game.state_dict().values()]), torch.rand(1)

    torch.manual_seed(0)
    with_own = numbers(own(lambda x, y: (x - y).square().sum(-1)))
    torch.manual_seed(0)
    with_l2 = numbers(ThreePlayerWgan.build(ThreePlayerWgan.Config(NETWORKS), (3,)))
    assert all(map(torch.equal, with_own, with_l2))
    assert own(lambda x, y: (x - y).square().sum(-1), (1, 2, 2)).cost.name == "own:cost"


def test_a_cost_that_fails_in_training_is_named(own):
    def cost(x, y):
        if len(x) > 5:
            raise KeyError("no such\nkey")
        return (x - y).square().sum(-1)

    game = own(cost)
    game.loss("mover", torch.randn(5, 3), torch.randn(5, 2))
    with pytest.raises(RuntimeError, match=r"^ThreePlayerWgan: cost own:cost raised KeyError: 'no such\\nkey'$"):
        game.loss("mover", torch.randn(6, 3), torch.randn(6, 2))


def test_too_little_memory_is_not_the_function_s_fault(own):
    def cost(x, y):
        if len(x) > 5:
            raise MemoryError
        return (x - y).square().sum(-1)

    with pytest.raises(MemoryError):
        own(cost).loss("mover", torch.randn(6, 3), torch.randn(6, 2))
