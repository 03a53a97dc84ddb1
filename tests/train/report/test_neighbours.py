"""Nearest training images, against all distances in float64; an image is never nearest to itself."""

from __future__ import annotations

import pytest
import torch

from train.report import neighbours as module
from train.report.neighbours import grey_levels, neighbours


@pytest.mark.parametrize(("total", "queries", "part"), [(2, 256, 4096), (50, 7, 16), (50, 50, 16), (300, 256, 64)])
def test_against_all_distances(monkeypatch, randn, total, queries, part):
    """Where parts are smaller than the set, where all images are looked at themselves, and where some are twice."""
    monkeypatch.setattr(module, "NUMBERS", 5 * part)
    images, samples = randn(total, 5), randn(9, 5)
    samples[3] = images[total - 1]
    if total > 2:
        images[17] = images[4]
    found = neighbours(samples, total, lambda index: images[index], queries)
    distance = torch.cdist(samples.double(), images.double())
    # Sums of 5 squares in float32: relative error 7 * 2^-24 before the root.
    torch.testing.assert_close(found.distance.double(), distance.amin(1), rtol=1e-6, atol=0)
    assert torch.equal(found.index, distance.argmin(1))
    chosen = torch.arange(min(queries, total)) * total // min(queries, total)
    others = torch.cdist(images.double(), images.double()).fill_diagonal_(torch.inf)
    torch.testing.assert_close(found.own.double(), others[chosen].amin(1), rtol=1e-6, atol=0)


def test_grey_levels_are_distances_of_root_mean_squares():
    images = torch.tensor([[0, 0, 0, 0], [255, 255, 255, 255], [0, 10, 0, 0]], dtype=torch.uint8).reshape(3, 1, 2, 2)
    vectors = grey_levels(images)
    assert torch.dist(vectors[0], vectors[1]).item() == pytest.approx(255)
    assert torch.dist(vectors[0], vectors[2]).item() == pytest.approx(5)


@pytest.mark.parametrize(("shape", "total"), [((3,), 5), ((0, 3), 5), ((2, 3), 1)])
def test_what_cannot_be_searched_is_refused(shape, total):
    with pytest.raises(ValueError, match=r"^neighbours: samples must be \[n > 0, D\] and total at least 2, got \["):
        neighbours(torch.zeros(shape), total, lambda index: torch.zeros(len(index), 3))
