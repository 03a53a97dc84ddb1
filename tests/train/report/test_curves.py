"""Curves: what they are against, how long ones are shortened, when an axis is logarithmic."""

from __future__ import annotations

import pytest

from train.report.curves import Chart, Line, averaged, clock, distribution, seconds_at, series

ROWS = [
    {"step": 10, "seconds": 2.0, "critic/loss": 3.0},
    {"step": 15, "metrics/n": 4},
    {"step": 20, "seconds": 6.0, "critic/loss": None},
]


def test_series_keep_gaps_and_take_the_rows_that_have_the_key():
    assert series(ROWS, "critic/loss") == ([10, 20], [3.0, None])
    assert series(ROWS, "metrics/n") == ([15], [4])
    assert series(ROWS, "x") == ([], [])


def test_time_is_linear_between_rows_from_zero_on_and_stays_at_its_last():
    assert seconds_at([5, 10, 15, 20, 30], clock(ROWS)) == [1, 2, 4, 6, 6]
    assert seconds_at([], clock(ROWS)) == []
    assert seconds_at([7], clock([])) == [0]


def test_time_never_runs_backwards():
    """A resumed run takes its time from its checkpoint, which is as old as that."""
    assert seconds_at([10, 20], clock([{"step": 10, "seconds": 5.0}, {"step": 20, "seconds": 4.0}])) == [5, 5]


def test_a_long_line_becomes_means_between_extremes():
    line = Line("a", {"step": range(8), "seconds": range(0, 16, 2)}, [0, 2, None, 4, 1, 1, 5, 7], colour=3)
    short = averaged(line, 4)
    assert short.x == {"step": [0.5, 2.5, 4.5, 6.5], "seconds": [1, 5, 9, 13]}
    assert short.y == [1, None, 1, 6]
    assert (short.low, short.high) == ([0, None, 1, 5], [2, None, 1, 7])
    assert (short.name, short.colour) == ("a", 3)
    assert averaged(line, 8) is line


@pytest.mark.parametrize(
    ("y", "low", "logarithmic"),
    [
        ([1.0, 21.0], None, True),
        ([1.0, 20.0], None, False),
        ([0.0, 21.0], None, False),
        ([1.0, None, 21.0], None, True),
        ([1.0, 21.0], [-1.0, 20.0], False),
        ([], None, False),
        ([None], None, False),
    ],
)
def test_positive_values_over_a_factor_of_20_are_on_a_logarithmic_axis(y, low, logarithmic):
    chart = Chart("a", [Line("", {"step": range(len(y))}, y, low, low)])
    assert chart.logarithmic is logarithmic
    assert chart.as_json()["log"] is logarithmic
    assert not Chart("a", chart.lines, linear=True).logarithmic


def test_as_json_has_six_digits_and_no_infinities():
    line = Line("n", {"step": [1, 2]}, [1 / 3, float("inf")], None, None, 5)
    assert Chart("t", [line], {"step": "iteration"}).as_json() == {
        "title": "t",
        "axes": {"step": "iteration"},
        "lines": [{"name": "n", "x": {"step": [1, 2]}, "y": [0.333333, None], "low": None, "high": None, "colour": 5}],
        "log": False,
    }


def test_a_distribution_rises_to_one():
    line = distribution([3.0, 1.0, 2.0, 2.0], "d", 1, "distance")
    assert (line.x, line.y) == ({"distance": [1, 2, 2, 3]}, [0.25, 0.5, 0.75, 1])
