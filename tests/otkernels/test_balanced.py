"""balanced: clusters of equal size at the least cost."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from otkernels import balanced, semidiscrete
from tests.otkernels.nearest import costs


def sizes(index: torch.Tensor, m: int) -> list[int]:
    return sorted(index.bincount(minlength=m).tolist())


@pytest.mark.parametrize(("n", "m"), [(6, 3), (7, 3), (8, 3), (2, 4), (3, 3), (5, 1)])
@pytest.mark.parametrize("priced", [False, True])
def test_the_least_cost_among_all_balanced_clusters(n, m, priced, randn):
    x, y = 5 * randn(n, 2), randn(m, 2)
    potential = 10 * randn(m) if priced else None
    cost = costs(x, y, potential)
    index = balanced(x, y, potential)
    allowed = sorted([n // m + (k < n % m) for k in range(m)])
    assert sizes(index, m) == allowed
    every = (torch.tensor(c) for c in itertools.product(range(m), repeat=n))
    least = min(cost.gather(1, c[:, None]).sum().item() for c in every if sizes(c, m) == allowed)
    # prices stand in float64 beside one that is larger than all costs
    rounding = 0 if potential is None else n * 2.0**-52 * 4 * (costs(x, y).max() + potential.abs().max()).item()
    assert cost.gather(1, index[:, None]).sum().item() == pytest.approx(least, rel=1e-12, abs=rounding)


def test_a_potential_changes_nothing_where_sizes_are_given(randn):
    x, y = randn(120, 3), randn(8, 3)
    potential = semidiscrete(x, y).potential
    assert torch.equal(balanced(x, y, potential), balanced(x, y))


@pytest.mark.parametrize("lowest", [1e12, -1e12])
def test_a_large_potential_leaves_the_sizes_alone(lowest, randn):
    """In float32 the price of copies that must be taken would be lost beside it, and the far centre left out twice."""
    y, potential = randn(7, 3), torch.full((7,), 1e12)
    y[6] += 30
    potential[6] = lowest
    assert sizes(balanced(randn(40, 3), y, potential), 7) == [5, 5, 6, 6, 6, 6, 6]


@pytest.mark.parametrize("scale", [0.0, 1e-22, 1e-42])
@pytest.mark.parametrize("price", [None, 0.5, -1e6])
def test_sizes_do_not_depend_on_what_the_clusters_cost(scale, price, randn):
    """Where all costs are equal, or no more than the rounding of what all potentials have in common."""
    potential = None if price is None else torch.full((7,), price)
    assert sizes(balanced(scale * randn(17, 2), scale * randn(7, 2), potential), 7) == [2, 2, 2, 2, 3, 3, 3]


def test_a_tolerance_leaves_the_sizes_alone(randn):
    assert sizes(balanced(randn(2970, 8), randn(100, 8), tolerance=0.5), 100) == [29] * 30 + [30] * 70


def test_autocast_takes_mixed_dtypes(randn):
    x, y = randn(10, 2), randn(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert sizes(balanced(x.bfloat16(), y), 4) == [2, 2, 3, 3]


def test_batches_and_problems_that_are_not_finite(randn):
    x, y = randn(2, 2, 20, 3), randn(2, 2, 6, 3)
    x[0, 1, 3, 0], y[1, 0, 2, 2] = math.nan, math.inf
    index = balanced(x, y)
    assert index.shape == (2, 2, 20)
    assert index.dtype == torch.int64
    for a in range(2):
        for b in range(2):
            expected = torch.full((20,), -1) if a != b else balanced(x[a, b], y[a, b])
            assert torch.equal(index[a, b], expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype, randn):
    assert sizes(balanced(randn(10, 2, dtype=dtype), randn(4, 2, dtype=dtype)), 4) == [2, 2, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2), torch.zeros(2, 2)), r"x must be \[..., N, D\] with N, D >= 1, got \[2\]"),
        ((torch.zeros(2, 2), torch.zeros(2, 3)), r"y must be \[M, D\] with D=2 and M >= 1, got \[2, 3\]"),
        ((torch.zeros(2, 2), torch.zeros(0, 2)), r"y must be \[M, D\] with D=2 and M >= 1, got \[0, 2\]"),
        ((torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(3)), r"potential must be \[M\] with M=2, got \[3\]"),
        ((torch.zeros(2, 2), [0.0]), r"y must be a torch.Tensor, got list"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"balanced: {message}"):
        balanced(*arguments)
