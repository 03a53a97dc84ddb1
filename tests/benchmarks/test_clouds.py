"""Each kind of data is what it is called."""

from __future__ import annotations

import pytest
import torch

from benchmarks import clouds
from benchmarks.l2_argmin import DATA_SUITE


@pytest.mark.parametrize("kind", clouds.CLOUDS)
def test_a_pair_has_its_shapes_and_repeats_from_its_seed(kind):
    first, again, other = (clouds.draw(kind, 50, 70, 32, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert [tuple(tensor.shape) for tensor in first] == [(50, 32), (70, 32)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert {case.data for case in DATA_SUITE.cases} == set(clouds.CLOUDS)


def test_kinds_are_as_their_names_say():
    drawn = {kind: clouds.draw(kind, 400, 1280, 32, torch.Generator().manual_seed(3)) for kind in clouds.CLOUDS}
    for kind, spread in (("clusters", 1.0), ("tight clusters", 0.05)):
        nearest = torch.cdist(*drawn[kind]).amin(1)  # of some 80 points of the same cluster
        assert nearest.max() < 1.5 * (2 * 32) ** 0.5 * spread < torch.cdist(*drawn[kind]).mean()
    assert (torch.unique(drawn["duplicates"][1], dim=0, return_counts=True)[1] == clouds.COPIES).all()
    assert (drawn["offset 100"][0].mean() - 100).abs() < 0.1
    assert all(tensor.amin() == 0 and 0.4 < (tensor == 0).float().mean() < 0.6 for tensor in drawn["relu features"])


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match=r"draw: kind must be one of gaussian, .* got moons"):
        clouds.draw("moons", 2, 3, 4, torch.Generator())
