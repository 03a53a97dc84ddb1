"""Inception score, Frechet and kernel distance: closed forms, and torch-fidelity's own functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from train.scores import metrics
from train.scores.metrics import frechet_distance, inception_score, kernel_distance, moments, root


def test_frechet_distance_of_two_gaussians_is_the_closed_form(seed):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(6, generator=generator, dtype=torch.float64) + 0.5
    points = torch.randn(400, 6, generator=generator, dtype=torch.float64)
    white = moments(points)
    # whitened, so that the two samples have exactly these means and diagonal covariances in a rotated frame
    exact = (points - white.mean) @ torch.linalg.inv(torch.linalg.cholesky(white.covariance)).T
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    one, other = exact @ turn, (exact * scale + 2) @ turn
    closed = 6 * 2.0**2 + (scale - 1).square().sum()
    assert frechet_distance(moments(one), moments(other)) == pytest.approx(float(closed), rel=1e-9)


@pytest.mark.parametrize("n", [30, 500], ids=["fewer than features", "more than features"])
def test_frechet_distance_is_torch_fidelitys(n, randn):
    one, other = randn(n, 64).relu(), (randn(n + 10, 64) * 1.1 + 0.1).relu()
    theirs = fid_statistics_to_metric(*map(fid_features_to_statistics, (one, other)), verbose=False)
    a, b = moments(one), moments(other)
    found = frechet_distance(a, b)
    assert found == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    # Fewer samples than features leave null eigenvalues. They come out as roundings of the largest, 64 2^-52 of it; of
    # each the root is taken, twice.
    largest = torch.linalg.matrix_norm(a.covariance, 2) * torch.linalg.matrix_norm(b.covariance, 2)
    roundings = 2 * max(0, 64 - (n - 1)) * math.sqrt(64 * 2.0**-52 * float(largest))
    assert frechet_distance(b, a) == pytest.approx(found, rel=1e-9, abs=roundings)


@pytest.mark.parametrize("n", [20, 300])
def test_frechet_distance_of_a_set_with_itself_is_nothing(n, randn):
    # an eigenvalue that is 0 comes out as about 1e-16 of the largest, and its root enters the sum
    known = moments(randn(n, 128) * 3 + 5)
    assert abs(frechet_distance(known, known)) < 1e-4
    assert abs(frechet_distance(known, known, root(known.covariance))) < 1e-4


@pytest.mark.parametrize(("n", "apart"), [(119, None), (405, 4)], ids=["one subset", "four apart"])
def test_kernel_distance_is_torch_fidelitys(n, apart, randn, monkeypatch):
    monkeypatch.setattr(metrics, "SUBSETS", 7)
    monkeypatch.setattr(metrics, "SUBSET_SIZE", 100)
    one, other = randn(n + 20, 32).relu(), (randn(n, 32) + 0.1).relu()
    theirs = kid_features_to_metric(one, other, verbose=False, kid_subsets=7, kid_subset_size=100)
    found, error = kernel_distance(one, other)
    assert found == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    spread = theirs["kernel_inception_distance_std"]
    assert error == (apart and pytest.approx(spread / math.sqrt(apart), rel=1e-3))


def test_kernel_distance_of_a_small_set_takes_all_of_it(randn):
    one, other = randn(40, 8), randn(30, 8) + 2
    x = one[torch.randperm(40)[:30]]
    assert kernel_distance(x, other)[0] == pytest.approx(kernel_distance(x.flip(0), other.flip(0))[0], rel=1e-5)
    assert kernel_distance(one, other)[0] > 1


@pytest.mark.parametrize("classes", [2, 10])
def test_inception_score_of_known_probabilities(classes):
    sure = torch.full((classes * 20, classes), -100.0)
    sure[torch.arange(len(sure)), torch.arange(len(sure)) % classes] = 100
    by_split = sure[torch.randperm(len(sure))]
    score, error = inception_score(torch.zeros(40, classes))
    assert (score, error) == (pytest.approx(1), pytest.approx(0, abs=1e-12))  # every image is anything
    assert 1 < inception_score(by_split)[0] <= classes + 1e-9


def test_inception_score_of_one_distribution_is_exp_of_its_mutual_information():
    # Two kinds of images, p(class | kind) = (3/4, 1/4) and (1/4, 3/4): the marginal is uniform
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]]).repeat(100_000, 1)
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    score, error = inception_score(logits)
    assert score == pytest.approx(expected, abs=1e-3)
    assert error < 1e-3


def test_one_sample_has_no_covariance(randn):
    with pytest.raises(ValueError, match=r"features must be \[n > 1, D\], got \[1, 3\]"):
        moments(randn(1, 3))
