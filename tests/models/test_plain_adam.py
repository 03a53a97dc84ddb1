"""forest.fit refuses, before anything changes, every optimizer whose steps it would not play."""

from __future__ import annotations

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from models.forest import LatentTransformationForest

Adam = torch.optim.Adam


def forest(**options):
    return LatentTransformationForest(4, trees=2, depth=2, **options)


def refused(f, optimizer, found):
    """``fit`` names what it does not play, and neither the leaves nor the optimizer has changed."""
    leaves, state = f.leaves.detach().clone(), dict(optimizer.state)
    assert not f.fits(optimizer)
    message = f"^LatentTransformationForest.fit: plays plain Adam on the leaves alone, got {found}$"
    with pytest.raises(ValueError, match=message):
        f.fit(torch.randn(9, 4), torch.randn(9, 4), optimizer, 2)
    assert torch.equal(f.leaves, leaves)
    assert optimizer.state == state
    optimizer.state_dict()


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        (torch.optim.AdamW, {"weight_decay": 0.3}, "AdamW with weight_decay=0.3, decoupled_weight_decay=True"),
        (torch.optim.AdamW, {"weight_decay": 0.0}, "AdamW with decoupled_weight_decay=True"),
        (torch.optim.SGD, {}, "SGD"),
        (torch.optim.NAdam, {}, "NAdam"),
        (torch.optim.RMSprop, {}, "RMSprop"),
        (Adam, {"weight_decay": 0.3}, "Adam with weight_decay=0.3"),
        (Adam, {"weight_decay": 0.3, "decoupled_weight_decay": True}, "Adam with weight_decay=0.3, decoupled_.*"),
        (Adam, {"amsgrad": True}, "Adam with amsgrad=True"),
        (Adam, {"maximize": True}, "Adam with maximize=True"),
        (Adam, {"differentiable": True}, "Adam with differentiable=True"),
        (Adam, {"capturable": True}, "Adam with capturable=True"),
        (Adam, {"lr": torch.tensor(0.1)}, "Adam whose lr or betas are tensors"),
        (
            Adam,
            {"lr": torch.tensor(0.1), "betas": (torch.tensor(0.5), torch.tensor(0.9))},
            "Adam whose lr or betas are tensors",
        ),
    ],
)
def test_another_optimizer_is_refused(kind, options, found):
    f = forest()
    refused(f, kind(f.parameters(), **{"lr": 0.05, **options}), found)


def test_a_subclass_is_refused():
    class Own(Adam):
        def step(self, closure=None):
            raise AssertionError

    f = forest()
    refused(f, Own(f.parameters()), "Own")


def test_other_parameters_are_refused():
    f = forest()
    refused(f, Adam(forest().parameters()), "Adam on other parameters")
    refused(f, Adam([f.leaves, torch.nn.Parameter(torch.zeros(2))]), "Adam on 2 parameters")
    refused(
        f, Adam([{"params": [f.leaves]}, {"params": [torch.nn.Parameter(torch.zeros(2))]}]), "Adam with 2 .* groups"
    )
    learned = forest(learn_thresholds=True)
    refused(learned, Adam(learned.parameters()), "Adam on 2 parameters")
    optimizer = Adam(f.parameters())
    f.leaves.requires_grad_(False)
    refused(f, optimizer, "leaves that require no gradient")


def test_leaves_that_the_op_does_not_take_are_refused():
    for dtype in (torch.bfloat16, torch.float16):
        f = forest().to(dtype)
        refused(f, Adam(f.parameters()), f"leaves of {dtype}")
    f = forest()
    f.leaves = torch.nn.Parameter(torch.randn(4, 4, 2).permute(2, 1, 0))
    refused(f, Adam(f.parameters()), r"leaves with strides \[1, 2, 8\]")


def test_hooks_are_not_skipped():
    f = forest()
    for register in ("register_step_pre_hook", "register_step_post_hook"):
        optimizer = Adam(f.parameters())
        getattr(optimizer, register)(lambda *arguments: None)
        refused(f, optimizer, "Adam with step hooks")
    for register in (register_optimizer_step_pre_hook, register_optimizer_step_post_hook):
        hook = register(lambda *arguments: None)
        refused(f, Adam(f.parameters()), "Adam while there are step hooks of all optimizers")
        hook.remove()
    for register in ("register_hook", "register_post_accumulate_grad_hook"):
        hook = getattr(f.leaves, register)(lambda value: None)
        refused(f, Adam(f.parameters()), "leaves with gradient hooks")
        hook.remove()
    assert f.fits(Adam(f.parameters()))


def test_a_state_that_the_steps_cannot_go_on_from_is_refused():
    f = forest()
    zeros = torch.zeros_like(f.leaves)
    good = {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    for changes, found in (
        ({"exp_avg": None}, "Adam whose state has no exp_avg"),
        ({"exp_avg_sq": torch.zeros(2)}, r"Adam whose exp_avg_sq is torch.float32 \[2\] on cpu"),
        ({"exp_avg": zeros.double()}, r"Adam whose exp_avg is torch.float64 \[2, 4, 4\] on cpu"),
        ({"exp_avg": zeros.to("meta")}, r"Adam whose exp_avg is torch.float32 \[2, 4, 4\] on meta"),
        ({"exp_avg": zeros.mT}, r"Adam whose exp_avg has strides \[16, 1, 4\]"),
        ({"exp_avg_sq": zeros}, "Adam whose exp_avg and exp_avg_sq are one tensor"),
        ({"step": 3}, "Adam whose step is 3"),
        ({"step": torch.zeros((), dtype=torch.float64)}, r"Adam whose step is a torch.float64 \[\] on cpu"),
        ({"step": torch.zeros(1)}, r"Adam whose step is a torch.float32 \[1\] on cpu"),
    ):
        optimizer = Adam(f.parameters())
        optimizer.state[f.leaves] = {**good, **changes}
        refused(f, optimizer, found)
    optimizer.state[f.leaves] = good
    f.fit(torch.randn(9, 4), torch.randn(9, 4), optimizer, 2)
    assert good["step"] == 2


def test_what_is_no_optimizer_is_named():
    with pytest.raises(ValueError, match=r"plays plain Adam on the leaves alone, got a str$"):
        forest().fit(torch.randn(9, 4), torch.randn(9, 4), "adam", 2)


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}, {"lr": 0.1, "eps": 0.1}])
def test_variants_that_step_alike_are_played(options):
    f = forest()
    assert f.fits(Adam(f.parameters(), **options))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(dtype):
    """fit's own step counter is float32, as Adam's is, whatever new tensors are otherwise."""
    f = forest()
    optimizer = Adam(f.parameters())
    torch.set_default_dtype(dtype)
    try:
        assert f.fits(optimizer)
        f.fit(torch.randn(9, 4, dtype=torch.float32), torch.randn(9, 4, dtype=torch.float32), optimizer, 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert optimizer.state[f.leaves]["step"].dtype == torch.float32


def test_a_failed_call_leaves_no_state():
    f = forest()
    optimizer = Adam(f.parameters())
    with pytest.raises(ValueError, match="iters must be a whole number of at least 1"):
        f.fit(torch.randn(9, 4), torch.randn(9, 4), optimizer, 0)
    assert not optimizer.state
