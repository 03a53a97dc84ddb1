"""The model of l2_argmin's stages, which tests/cpp/test_cuda_l2_argmin.cpp counts in the emulated kernels."""

from __future__ import annotations

import pytest
import torch

from benchmarks import candidates, clouds


@pytest.mark.parametrize("data", clouds.CLOUDS)
def test_only_tight_clusters_come_to_the_second_stage_and_none_to_differences(data):
    x, y = clouds.draw(data, 32, 2048, 32, torch.Generator().manual_seed(0))
    first, second = candidates.stages(x, y)
    assert (first.gave_up > 0) == (data == "tight clusters")
    assert second.gave_up == 0
    assert 1 <= second.candidates <= first.candidates


def test_a_list_that_overflows_gives_up_and_one_that_is_settled_does_not():
    scores = torch.zeros(2, 3, candidates.BLOCK)
    scores[1, :, 40:] = -9.0  # 40 ties a block: crowded, settled, and no more than that
    outcome = candidates.collect(scores, torch.full((2, 3), 0.1), patience=3)
    assert (outcome.gave_up, outcome.settlings) == (0.5, 1.5)
    assert candidates.collect(scores, torch.full((2, 3), 0.1), patience=2).gave_up == 1.0


def test_float16_parts_add_up():
    points = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    parts = candidates.split(points, points.abs().amax(1, keepdim=True))
    assert torch.equal(parts.high + parts.high_rest, points)
    assert (parts.high_rest.abs() <= 2.0**-11 * points.abs()).all()
    assert (parts.low_rest.abs() <= 2.0**-21 * points.abs().amax(1, keepdim=True)).all()
