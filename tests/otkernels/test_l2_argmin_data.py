"""l2_argmin on the CPU where points repeat, cluster or round badly, at sizes at which it looks for that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks import clouds
from otkernels import l2_argmin
from tests.otkernels.nearest import assert_nearest, assert_nearest_of_many

N, M = 1024, 4200  # times 64 dimensions: just above the work from which copies and clusters are looked for


def solve(x: Tensor, y: Tensor, potential: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both results, judged."""
    value, index = l2_argmin(x, y, potential, impl="cpu")
    assert_nearest_of_many(value, index, x, y, potential)
    return value, index


def clustered(randn, count: int, centres: Tensor, spread: float) -> Tensor:
    """Points about centres [K, D], in random order."""
    which = torch.randperm(count) % len(centres)
    return centres[which] + spread * randn(count, centres.shape[1], dtype=centres.dtype)


@pytest.mark.parametrize(("d", "dtype"), [(64, torch.float64), (67, torch.float32), (130, torch.float32)])
@pytest.mark.parametrize("kind", clouds.CLOUDS)
def test_every_kind_of_data(kind, d, dtype, seed, randn):
    x, y = (points.to(dtype) for points in clouds.draw(kind, N, M, d, torch.Generator().manual_seed(seed)))
    solve(x, y)
    solve(x, y, 0.1 * d * randn(M, dtype=dtype))


@pytest.mark.parametrize("copies", [3, 64])
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_of_equal_points_the_first_is_found(copies, spread, randn):
    """Also among clusters of copies."""
    y = clustered(randn, M // copies, 30 * randn(8, 64), spread).repeat(copies, 1)[torch.randperm(M // copies * copies)]
    x = torch.cat((clustered(randn, N // 2, y[:8], 2 * spread), y[torch.randint(len(y), (N // 2,))]))
    _, index = solve(x, y)
    _, group = torch.unique(y, dim=0, return_inverse=True)
    first = torch.full((len(y),), len(y)).scatter_reduce(0, group, torch.arange(len(y)), "amin")[group]
    assert torch.equal(index, first[index])


def test_copies_with_potentials_of_their_own_are_not_alike(randn):
    y, x, potential = randn(60, 64).repeat(70, 1), randn(N, 64), randn(M)
    _, index = solve(x, y, potential)
    best = potential.view(70, 60).argmax(0)
    assert torch.equal(index // 60, best[index % 60])
    _, index = solve(x, y, potential.sign())
    assert torch.equal(index // 60, potential.sign().view(70, 60).argmax(0)[index % 60])


def test_a_nan_among_copies_makes_every_row_nan(randn):
    y, x = randn(60, 64).repeat(70, 1), randn(N, 64)
    y[17::60, 3] = torch.nan
    value, index = l2_argmin(x, y, impl="cpu")
    assert (index == -1).all()
    assert value.isnan().all()


def test_a_nan_among_clusters_makes_every_row_nan(randn):
    centres = 30 * randn(8, 64)
    x, y = clustered(randn, N, centres, 0.1), clustered(randn, M, centres, 0.1)
    y[1234, 5] = torch.nan
    assert (l2_argmin(x, y, impl="cpu").index == -1).all()
    y[1234, 5] = 0
    x[77, 1] = torch.nan
    assert torch.equal((l2_argmin(x, y, impl="cpu").index == -1).nonzero(), torch.tensor([[77]]))


@pytest.mark.parametrize("at", ["between", "outside", "far outside", "on a member's far side"])
def test_rows_that_belong_to_no_cluster(at, randn):
    """What the triangle inequality rules out is close to what it must not."""
    centres = 10 * torch.eye(8, 64)
    y = clustered(randn, M, centres, 0.2)
    middle = (centres[torch.randint(8, (N,))] + centres[torch.randint(8, (N,))]) / 2
    x = {
        "between": middle + 0.1 * randn(N, 64),
        "outside": 3 * middle + randn(N, 64),
        "far outside": 1000 * middle + randn(N, 64),
        "on a member's far side": 2 * y[torch.randint(M, (N,))] - y.roll(1, 0)[torch.randint(M, (N,))],
    }[at]
    solve(x, y)


def test_the_outermost_member_of_another_group_is_found(randn):
    """The rows stand nearer to the second pivot, whose best member is at 22.1; the first group's outermost is at 22.

    The first column is always a pivot; the bulk of the points lies in clusters far from both.
    """
    axes = 60 * torch.eye(10, 64)
    y = clustered(randn, M, axes, 1e-4)
    y[0] = 0
    y[1::2, 0] -= torch.where(y[1::2, 0] > 30, 60.0, 0.0)
    y[M // 2] = 10 * axes[0] / 60
    y[M // 3] = 54.1 * axes[0] / 60
    x = 32 * axes[0] / 60 + 1e-4 * randn(N, 64)
    _, index = solve(x, y)
    assert (index == M // 2).all()


def test_a_potential_may_make_a_far_cluster_the_nearest(randn):
    centres = 20 * randn(8, 64)
    x, y = clustered(randn, N, centres, 0.2), clustered(randn, M, centres, 0.2)
    potential = torch.zeros(M)
    potential[randn(M) > 1.5] = 1.02 * float(torch.cdist(x, y).square().max())
    potential[::97] = -1e6
    _, index = solve(x, y, potential)
    assert (potential[index] > 1).all()
    assert (torch.cdist(x, y).gather(1, index[:, None])[:, 0] < 30).any()


@pytest.mark.parametrize("m", [64, M])
def test_ties_of_mirrored_points_go_to_the_lowest_index(m, randn):
    """Every cost is there twice, bit for bit, but not every product. The first column, always a pivot, stands apart, so
    that the rows' own cluster is that of the higher indices.
    """
    half = torch.cat((40 + 0.5 * randn(m // 2, 32), torch.zeros(m // 2, 32)), 1)
    half[0, :32] = 45
    x = torch.cat((torch.zeros(N, 32), randn(N, 32)), 1)
    _, index = solve(x, torch.cat((half, -half)))
    assert (index < m // 2).all()
    mixed = torch.stack((-half, half), 1).flatten(0, 1)
    _, index = solve(x, mixed)
    assert (index % 2 == 0).all()


@pytest.mark.parametrize("scale", [1e-18, 1e-21, 1e16, 1e18])
def test_clusters_whose_squares_overflow_or_vanish(scale, randn):
    centres = 8 * randn(8, 64)
    x, y = (scale * clustered(randn, count, centres, 0.01) for count in (600, 7000))
    value, index = l2_argmin(x, y, impl="cpu")
    rows = torch.arange(0, 600, 40)
    assert_nearest(value[rows], index[rows], x[rows], y)


def test_points_at_the_end_of_the_range_hide_no_other(randn):
    x, y = randn(N, 64), randn(M, 64)
    y[5], y[6], y[7] = 1e19, 3e38, -1e30
    x[9] = 3e38
    value, index = l2_argmin(x, y, impl="cpu")
    rest = l2_argmin(x, torch.cat((y[:5], y[8:])), impl="cpu").value
    keep = torch.arange(N) != 9
    assert torch.equal(value[keep], rest[keep])
    assert (index[9], value[9]) == (6, 0)


@pytest.mark.parametrize("d", [16, 64, 200])
def test_products_that_mislead_are_settled(d):
    """Each row's nearest point rounds down to bfloat16 in every coordinate, the second best up, as the row itself does:
    its product is larger by 2^-7 D although it is farther. The signs cancel in the mean, so no centre helps.
    """
    half, t = 2.0**-8, 2.0**-12  # half the distance of two bfloat16 numbers above 1
    near, far = 1 + half - t / 2, 1 + half + 3 * t
    k = torch.arange(384)
    y = torch.where(k % 2 == 0, far, near)[:, None] + 2.0**-22 * (k % 3)[:, None] * torch.ones(d)
    y *= torch.where(k // 12 % 2 == 0, 1.0, -1.0)[:, None]
    x = (1 + half + t) * torch.tensor([1.0, -1.0]).repeat(50)[:, None] * torch.ones(d)
    value, index = l2_argmin(x, y, impl="cpu")
    assert_nearest(value, index, x, y)
    assert (index % 2 == 1).all()


def test_the_result_does_not_depend_on_the_number_of_threads(randn):
    centres = 20 * randn(10, 64)
    y = torch.cat((clustered(randn, M, centres, 0.1), clustered(randn, 500, centres, 0.1).repeat(3, 1)))
    x = clustered(randn, 3 * N, centres, 1.0)
    many = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(l2_argmin(x, y, impl="cpu"))
    finally:
        torch.set_num_threads(many)
    for other in results[1:]:
        assert torch.equal(results[0].value, other.value)
        assert torch.equal(results[0].index, other.index)
