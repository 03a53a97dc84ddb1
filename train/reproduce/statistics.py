"""What a table says about several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student
from scipy.stats import ttest_ind


class Summary(NamedTuple):
    """Mean, its standard error, and its 95 % confidence interval by Student's t; runs that diverged are left out."""

    mean: float
    error: float
    low: float
    high: float
    runs: int
    diverged: int


def summarise(values: Sequence[float | None]) -> Summary:
    """Of one figure per run; None for a run that diverged. NaN where fewer runs are left than a figure needs."""
    kept = [value for value in values if value is not None]
    n, diverged = len(kept), len(values) - len(kept)
    mean, error = mean_and_error(kept) if n > 1 else (kept[0] if n else math.nan, math.nan)
    reach = error * float(student.ppf(0.975, n - 1)) if n > 1 else math.nan
    return Summary(mean, error, mean - reach, mean + reach, n, diverged)


def mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def pm(value: float, error: float) -> str:
    """0.0563 ± 0.0031: value and standard error, to two digits of the error."""
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 4
    return f"{value:.{digits}f} ± {error:.{digits}f}"


class Ratio(NamedTuple):
    """Ratio of the geometric means of two sets of runs and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def ratio(one: Sequence[float | None], other: Sequence[float | None]) -> Ratio | None:
    """Of positive figures, by Welch's test on their logarithms; None unless both have two runs that did not diverge."""
    logs = [np.log([value for value in values if value is not None]) for values in (one, other)]
    if min(map(len, logs)) < 2:
        return None
    interval = ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    return Ratio(*(math.exp(x) for x in (logs[0].mean() - logs[1].mean(), interval.low, interval.high)))


def apart(one: Summary, other: Summary) -> bool:
    """Whether the two confidence intervals do not overlap."""
    return one.high < other.low or other.high < one.low
