"""The exponential moving average against its formula."""

from __future__ import annotations

import torch
from torch import nn

from train.ema import Ema


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
