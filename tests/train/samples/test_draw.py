"""The i-th sample of a seed is the same however samples are drawn."""

from __future__ import annotations

import pytest
import torch

from train.samples.draw import BLOCK, batches, noise
from train.samples.source import load_trained


@pytest.fixture
def game(image_run):
    return load_trained(image_run).game


@pytest.mark.parametrize("batch_size", [1, 63, 64, 100, 1000])
def test_samples_do_not_depend_on_the_batch_size_or_their_number(game, batch_size):
    n = 2 * BLOCK + 5
    expected = torch.cat(list(batches(game, 3 * BLOCK, 7, BLOCK)))[:n]
    found = torch.cat(list(batches(game, n, 7, batch_size)))
    assert found.shape == (n, 1, 8, 8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_seeds_and_blocks_differ(game):
    first = noise(game, 0, 2 * BLOCK, 0)
    assert len(first.unique(dim=0)) == 2 * BLOCK
    assert not torch.equal(first, noise(game, 0, 2 * BLOCK, 1))


def test_no_random_state_moves(game):
    before = torch.get_rng_state()
    list(batches(game, 10, 0, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_that_are_not_finite_are_named(game):
    game.sample = lambda noise: torch.full((len(noise), 2), torch.inf if len(noise) == 3 else 0.0)
    with pytest.raises(ValueError, match="samples 4 to 6 of seed 0 are not all finite"):
        list(batches(game, 7, 0, 4))
