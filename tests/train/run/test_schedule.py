"""Learning rates over a run, by hand."""

from __future__ import annotations

import math

import pytest

from train.run.schedule import factor


@pytest.mark.parametrize(
    ("decay", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("constant", 2, [0.5, 1, 1, 1]),
        ("linear", 3, [1 / 3, 0.75 * 2 / 3, 0.5, 0.25]),
    ],
)
def test_rates_of_four_iterations(decay, warmup, expected):
    assert [factor(decay, warmup, step, 4) for step in range(4)] == pytest.approx(expected)


def test_the_loop_plays_them(make_trainer):
    trainer = make_trainer(lr_decay="cosine", lr_warmup=2, iterations=4)
    seen = []
    for _ in range(4):
        trainer.loop.iterate()
        seen.append(trainer.loop.optimizers["critic"].param_groups[0]["lr"])
    assert seen == pytest.approx([0.5 * factor("cosine", 2, step, 4) for step in range(4)])
