"""Precision, recall, density and coverage against their definitions, written out in float64."""

from __future__ import annotations

import pytest
import torch

from train.scores import neighbours
from train.scores.neighbours import Cloud, neighbour_scores, radii


def distances(x, y):
    return (x.double()[:, None] - y.double()).square().sum(-1)  # [N, M], from differences


def by_definition(real, generated):
    def reach(x, k):  # the k-th nearest other sample
        own = distances(x, x).fill_diagonal_(torch.inf)
        return own.sort(1).values[:, k - 1]

    between = distances(generated, real)  # [M, N]
    precision = (between <= reach(real, 3)).any(1).double().mean()
    recall = (between <= reach(generated, 3)[:, None]).any(0).double().mean()
    inside = between <= reach(real, 5)
    return tuple(
        map(float, (precision, recall, inside.double().sum() / (5 * len(generated)), inside.any(0).double().mean()))
    )


def clouds(kind, randn):
    real, generated = randn(90, 24), randn(70, 24) * 0.8 + 0.2
    if kind == "far from the origin":  # where float32 products alone lose all digits
        return real + 3000, generated + 3000
    if kind == "duplicates":
        real[20:50], generated[:30] = real[0], real[0]
    if kind == "itself":
        return real, real.clone()
    if kind == "relu features":
        return real.relu(), generated.relu()
    if kind == "all alike":
        return torch.ones(20, 3), torch.ones(30, 3)
    if kind == "collapsed":
        return real, generated[:1] + 1e-6 * randn(70, 24)
    if kind == "equal modes":
        return real, generated[torch.arange(70) % 4]
    if kind == "close modes":
        return real[torch.arange(90) % 3] + 1e-6 * randn(90, 24), real[torch.arange(70) % 2] + 1e-6 * randn(70, 24)
    if kind == "tight clusters":
        return (real / 1000 + randn(90, 24).sign() * 50), (generated / 1000 + 50)
    return real, generated


KINDS = [
    *("normal", "far from the origin", "duplicates", "itself", "relu features", "all alike", "tight clusters"),
    *("collapsed", "equal modes", "close modes"),
]


@pytest.mark.parametrize("block", [64, 2**22], ids=["a row a block", "one block"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_definition(kind, block, randn, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "PIECE", 500)
    monkeypatch.setattr(neighbours, "MOST_CANDIDATES", 8)
    real, generated = clouds(kind, randn)
    assert tuple(neighbour_scores(real, generated)) == pytest.approx(by_definition(real, generated), abs=1e-12)


@pytest.mark.parametrize("modes", [1, 5, 600])
@pytest.mark.parametrize("spread", [0, 1e-6])
def test_few_pairs_are_compared_one_by_one(modes, spread, randn, monkeypatch):
    one_by_one, seen = neighbours._from_differences, []
    monkeypatch.setattr(
        neighbours, "_from_differences", lambda x, i, y, j: seen.append(len(i)) or one_by_one(x, i, y, j)
    )
    real, generated = randn(600, 24), randn(modes, 24)[torch.arange(600) % modes] + spread * randn(600, 24)
    neighbour_scores(real, generated)
    assert sum(seen) <= 70 * (600 + 600)  # of three times 360,000


def test_radii_are_exact(randn):
    samples = randn(200, 40) + 100
    own = distances(samples, samples).fill_diagonal_(torch.inf).sort(1).values
    found = radii(Cloud(samples, samples.mean(0)))
    assert torch.allclose(found.third, own[:, 2], rtol=1e-14)
    assert torch.allclose(found.fifth, own[:, 4], rtol=1e-14)


def test_a_dropped_mode_costs_recall_and_coverage_but_not_precision(randn):
    centres = torch.eye(4, 16) * 20
    real = torch.cat([c + randn(50, 16) for c in centres])
    scores = [neighbour_scores(real, torch.cat([c + randn(200 // m, 16) for c in centres[:m]])) for m in (4, 2, 1)]
    assert scores[0].recall > scores[1].recall > scores[2].recall
    assert scores[0].coverage > scores[1].coverage > scores[2].coverage
    assert all(score.precision > 0.8 for score in scores)


@pytest.mark.parametrize("n", [5, 6])
def test_six_samples_are_the_fewest(n, randn):
    if n == 6:
        neighbour_scores(randn(6, 2), randn(6, 2))
    else:
        with pytest.raises(ValueError, match=r"features must be float32 \[n > 5, D\], got torch.float32 \[5, 2\]"):
            neighbour_scores(randn(6, 2), randn(5, 2))
