"""The exponential moving average against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.run.ema import Ema


def test_average_follows_the_formula_for_parameters_and_buffers():
    module = nn.BatchNorm1d(2)
    ema = Ema(module, 0.5)
    values = [1.0, -2.0, 7.0, 0.5, 3.0, 11.0, 4.0, -6.0]
    expected_weight, expected_mean = 1.0, 0.0  # what batch norm starts with
    for t, value in enumerate(values):
        with torch.no_grad():
            module.weight.fill_(value)
            module.running_mean.fill_(2 * value)
            module.num_batches_tracked.fill_(t)
        ema.update()
        decay = min(0.5, (1 + t) / (10 + t))  # warm up until t = 8: every decay here but the cap is below 0.5
        expected_weight = decay * expected_weight + (1 - decay) * value
        expected_mean = decay * expected_mean + (1 - decay) * 2 * value
    # 8 updates in float32, each within 2^-24 relative of the largest value: 8 * 3 roundings * 22 * 2^-24 < 4e-5.
    with ema.applied():
        torch.testing.assert_close(module.weight, torch.full((2,), expected_weight), atol=4e-5, rtol=0)
        torch.testing.assert_close(module.running_mean, torch.full((2,), expected_mean), atol=4e-5, rtol=0)
        assert module.num_batches_tracked == len(values) - 1
    assert module.weight[0] == values[-1]


def test_decay_reaches_its_cap():
    module = nn.Linear(1, 1, bias=False)
    ema = Ema(module, 0.9)
    ema.updates = 10_000
    with torch.no_grad():
        start = module.weight.clone()
        module.weight.add_(1.0)
    ema.update()
    # float32: one lerp of numbers below 2
    torch.testing.assert_close(ema.state_dict()["average"]["weight"], start + 0.1, atol=1e-6, rtol=0)


def test_the_state_round_trips():
    module = nn.Linear(3, 2)
    ema = Ema(module, 0.99)
    with torch.no_grad():
        module.weight.mul_(3)
    ema.update()
    other = Ema(nn.Linear(3, 2), 0.99)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.state_dict()["average"]["weight"], ema.state_dict()["average"]["weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("updates"), "ema: updates must be an integer >= 0, got NoneType"),
        (lambda state: state.update(updates=-1), "ema: updates must be an integer >= 0, got int"),
        (lambda state: state.pop("average"), "ema: average must be a mapping, got NoneType"),
        (lambda state: state["average"].pop("bias"), "ema: the average lacks bias"),
        (lambda state: state["average"].update(nope=torch.zeros(1)), "ema: the average knows no nope"),
        (lambda state: state["average"].update(bias=1.0), "ema: bias must be a tensor, got float"),
        (
            lambda state: state["average"].update(bias=torch.zeros(1)),  # copy_ would spread it over both
            r"ema: bias must be torch.float32 \[2\], got torch.float32 \[1\]",
        ),
        (
            lambda state: state["average"].update(bias=torch.zeros(2, dtype=torch.int64)),
            r"ema: bias must be torch.float32 \[2\], got torch.int64 \[2\]",
        ),
    ],
)
def test_another_state_is_refused_before_anything_is_copied(change, message):
    ema = Ema(nn.Linear(3, 2), 0.99)
    before = {name: value.clone() for name, value in ema.state_dict()["average"].items()}
    given = Ema(nn.Linear(3, 2), 0.99).state_dict()
    given["updates"] = 7
    change(given)
    with pytest.raises(ValueError, match=message):
        ema.load_state_dict(given)
    assert ema.updates == 0
    assert all(torch.equal(value, before[name]) for name, value in ema.state_dict()["average"].items())
