"""tests.fuzz in the suite: hypothesis draws the problems, and shrinks one that fails; planted faults must be found."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.fuzz import cells, forest, matching, pairs, transport
from tests.fuzz.__main__ import main
from tests.fuzz.ops import OPS, try_one

T = TypeVar("T")


class Drawn:
    """Choices that hypothesis makes: it prints those of a failure, shrunk to the plainest options that still fail."""

    may_be_large = False

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1), label="seed of values"))

    def pick(self, name: str, options: Sequence[T]) -> T:
        return self._data.draw(st.sampled_from(options), label=name)


@pytest.mark.parametrize("name", OPS)
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,  # the same problems on every run; `python -m tests.fuzz --seed` tries others
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_random_problems(name, data):
    try_one(OPS[name], Drawn(data))


def last_of_ties(op: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(x: Tensor, y: Tensor, potential: Tensor | None = None, **options: Any) -> tuple[Tensor, Tensor]:
        value, index = op(x, y.flip(-2), None if potential is None else potential.flip(-1), **options)
        return value, torch.where(index < 0, index, y.shape[-2] - 1 - index)

    return wrong


def with_result(change: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An op whose result is changed."""
    return lambda op: lambda *arguments, **options: change(op(*arguments, **options))


FAULTS = {
    "a tie goes to the highest index": (pairs, "l2_argmin", last_of_ties),
    "a value is 16 units off": (
        pairs, "l2_argmin", with_result(lambda r: (r.value * (1 + 16 * torch.finfo(r.value.dtype).eps), r.index)),
    ),
    "a NaN row has index 0": (pairs, "l2_argmin", with_result(lambda r: (r.value, r.index.clamp_min(0)))),
    "neighbours in another order": (
        pairs, "l2_topk", with_result(lambda r: (r.value.flip(-1), r.index.flip(-1))),
    ),
    "a threshold is moved": (
        forest, "soft_forest", lambda op: lambda z, t, leaves, **options: op(z, t + 2.0**-6, leaves, **options),
    ),
    "steps are too long": (
        transport, "fit_transport", lambda op: lambda *a, **o: op(*a, **{**o, "lr": 1.001 * o["lr"] + 1e-6}),
    ),
    "a cost is too high": (
        transport, "transport_cost",
        with_result(lambda r: r._replace(cost=r.cost * (1 + 4096 * torch.finfo(r.cost.dtype).eps))),
    ),
    "potentials are too high": (matching, "assign", with_result(lambda r: r._replace(u=r.u + 1e-3 * r.u.abs().amax()))),
    "clusters are shuffled": (matching, "balanced", with_result(lambda r: r.roll(1, -1))),
    "another dual value": (cells, "semidiscrete", with_result(lambda r: r._replace(value=1.001 * r.value + 1e-3))),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_its_command_repeats_it(fault, monkeypatch, capsys):
    module, name, wrong = FAULTS[fault]
    right = getattr(module, name)
    monkeypatch.setattr(module, name, wrong(right))
    assert main(["--op", name, "--n", "60"]) == 1
    told = capsys.readouterr().out.splitlines()
    commands = [line.strip() for line in told if line.strip().startswith("python -m tests.fuzz")]
    assert 1 <= len(commands) <= 5
    assert told[0].startswith("FAILED: ")
    assert told[-1].startswith(f"{name}: ")
    arguments = shlex.split(commands[0])[3:]
    assert main(arguments) == 1
    monkeypatch.setattr(module, name, right)
    assert main(arguments) == 0


def test_what_an_op_raises_is_a_failure(monkeypatch, capsys):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(transport, "fit_transport", broken)
    assert main(["--op", "fit_transport", "balanced", "--n", "8"]) == 1
    out = capsys.readouterr().out
    assert out.count("FAILED: out of order") == 5  # then the next op is tried
    assert "balanced: 8 problems, 0 failed" in out
