"""The judge of assign lets least-cost matchings through and stops others; cases of slow calls are timed few times."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from scipy.optimize import linear_sum_assignment

import otkernels
from benchmarks import assign, assign_scaling, clouds, cpu, measure, targets
from benchmarks.contestants import OURS, SETS, Case

CASE = Case("assign", 40, 40, 3)
MINE, *PEERS = assign.SUITE.contestants


def by_certificate():
    return (torch.tensor(torch.nan, dtype=torch.float64),)


@pytest.mark.parametrize("data", clouds.CLOUDS)
@pytest.mark.parametrize("contestant", assign.SUITE.contestants, ids=lambda contestant: contestant.name)
def test_every_contestant_finds_the_least_cost(contestant, data):
    case = Case("assign_data", 40, 40, 3, data=data)
    inputs = assign.draw(case, 0)
    result = contestant.load(case)(*contestant.convert(inputs))
    assert assign.judge(contestant, case, inputs, result, assign.expect(inputs, case)).right


@pytest.mark.parametrize("reference", ["scipy", "certificate"])
def test_ours_is_right_by_either_reference(reference):
    inputs = assign.draw(CASE, 0)
    expected = assign.expect(inputs, CASE) if reference == "scipy" else by_certificate()
    assert assign.judge(MINE, CASE, inputs, otkernels.assign(*inputs), expected).right


WRONGS = {
    "nearest": lambda index: otkernels.l2_argmin(*assign.draw(CASE, 0)).index,  # costs less than any matching
    "two swapped": lambda index: index[[1, 0, *range(2, 40)]],
    "too large": lambda index: index + 1,
    "negative": lambda index: index - 1,
    "unsolved": lambda index: torch.full_like(index, -1),
    "too few": lambda index: index[:-1],
}


@pytest.mark.parametrize("reference", ["scipy", "certificate"])
@pytest.mark.parametrize("wrong", WRONGS)
def test_a_wrong_matching_is_wrong(wrong, reference):
    inputs = assign.draw(CASE, 0)
    solved = otkernels.assign(*inputs)
    result = solved._replace(index=WRONGS[wrong](solved.index))
    expected = assign.expect(inputs, CASE) if reference == "scipy" else by_certificate()
    assert not assign.judge(MINE, CASE, inputs, result, expected).right


@pytest.mark.parametrize("contestant", PEERS, ids=lambda contestant: contestant.name)
def test_a_matching_that_float32_costs_would_give_is_wrong_far_from_the_origin(contestant):
    """At 1e4 from the origin float32's |x|^2 + |y|^2 - 2xy is off by 16: any matching would do."""
    x, y = (tensor + 1e4 for tensor in assign.draw(CASE, 0))
    expected = assign.expect((x, y), CASE)
    result = contestant.load(CASE)(*contestant.convert((x, y)))
    assert assign.judge(contestant, CASE, (x, y), result, expected).right
    product = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).double().numpy()
    rounded = linear_sum_assignment(product)[1]
    assert not assign.judge(contestant, CASE, (x, y), rounded, expected).right


@pytest.mark.parametrize("spoil", [1e-6, -1e-6])
def test_potentials_that_prove_too_little_are_wrong(spoil):
    """u above the feasible, or too low to reach the cost."""
    inputs = assign.draw(CASE, 0)
    solved = otkernels.assign(*inputs)
    spoiled = solved._replace(u=solved.u + spoil * (torch.arange(40) == 17))
    assert not assign.judge(MINE, CASE, inputs, spoiled, by_certificate()).right


def test_beyond_what_a_matrix_can_hold_only_ours_runs_and_is_judged_by_its_certificate():
    large = Case("assign", 8192, 8192, 2)
    assert [contestant.name for contestant in assign.SUITE.contestants if contestant.suits(large)] == [OURS]
    assert assign.expect((), large)[0].isnan()


@pytest.mark.parametrize(("n", "rounds", "sets"), [(1024, None, SETS), (4096, 3, 1), (65536, 0, 1)])
def test_slow_cases_are_drawn_once_and_timed_few_times(n, rounds, sets, tmp_path):
    case = Case("assign", n, n, 2)
    assert assign.SUITE.rounds(case) == rounds
    hasty = dataclasses.replace(assign.SUITE, expect=lambda inputs, case: ())
    assert len(cpu.expectations(hasty, case, tmp_path)) == sets


def test_without_a_round_the_judged_call_is_the_measurement():
    class Judged:
        contestant = OURS

        def ask(self, do, **fields):
            assert do == "prepare"
            return {"right": True, "error": 0.0, "seconds": 90.0}

    (row,) = measure.measure(CASE, [Judged()], [], budget=0.0, fewest=0)
    assert (row["first_quartile_s"], row["median_s"], row["third_quartile_s"]) == (90.0, 90.0, 90.0)
    assert (row["ratio_to_ours"], row["rounds"]) == (1.0, 1)


@pytest.mark.parametrize(("times", "gib", "met"), [(11.0, 0.9, True), (9.0, 1.1, False)])
def test_targets_of_one_to_one(times, gib, met):
    def row(n, contestant, seconds, **fields):
        case = {"op": "assign", "n": n, "m": n, "d": 2, "device": "cpu", "threads": 2, "contestant": contestant}
        return case | {"status": "ok", "median_s": seconds, "ratio_to_ours": 1.0, "extra_bytes": 0} | fields

    rows = [
        row(4096, OURS, 1.0), row(4096, "POT", times, ratio_to_ours=times), row(4096, "lapx", 30.0, ratio_to_ours=30.0),
        row(16384, OURS, 14.0, extra_bytes=int(gib * 2**30)),
    ]  # fmt: skip
    found = {target.target: (target.measured, target.met) for target in targets.check(rows, {})}
    assert found["4096 x 2, 2 threads: the fastest peer takes at least 10 times as long"] == (
        f"{times:.2f}x (POT)",
        met,
    )
    assert found["16384 x 2, 2 threads: at most 15 s"] == ("14.0 s", True)
    assert found["16384 x 2, 2 threads: at most 1 GiB of extra memory"] == (f"{gib:.2f} GiB", met)
    assert found["65536 x 2, 2 threads: at most 360 s"] == ("-", None)


def test_the_scaling_of_small_sizes_is_judged_counted_and_drawn(tmp_path):
    assign_scaling.main(["--sizes", "32", "600", "--dimensions", "2", "--threads", "1", "--output", str(tmp_path)])
    head, *rows = (json.loads(line) for line in (tmp_path / "assign_scaling-cpu.jsonl").read_text().splitlines())
    assert len(rows) == 2 * len(assign.SUITE.contestants)
    assert all(row["right"] for row in rows)
    work = {row["n"]: row for row in rows if row["contestant"] == OURS}
    assert "passes" not in work[32]  # by the matrix
    assert work[600]["passes"] >= 1  # every pair is priced at least once
    assert work[600]["edges"] >= 128  # and every row has its list
    text = (tmp_path / "assign_scaling-cpu.md").read_text()
    assert text.count("\n| 600 | 2 | ") == len(assign.SUITE.contestants)
    assert head["machine"]["commit"] in text
    assert (tmp_path / "assign_scaling-cpu.png").read_bytes().startswith(b"\x89PNG")
