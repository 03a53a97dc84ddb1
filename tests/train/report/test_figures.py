"""The memorisation check finds copies, in pixels and in features, and shows them beside their originals."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from PIL import Image

from train.data.datasets import evenly_spaced
from train.report.figures import nearest_training_images


def draw(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def tile(path, row: int, column: int) -> np.ndarray:
    """A tile of the picture, of 4 x 4 pixels enlarged 16 times in a frame of 2."""
    left, top = 2 + column * 66, 2 + row * 66
    return np.asarray(Image.open(path).convert("RGB"))[top : top + 64 : 16, left : left + 64 : 16]


def test_copies_come_first_above_their_originals(tmp_path):
    images, samples = draw(40, 0), draw(20, 1)
    samples[5], samples[11] = images[39], images[7]
    found = nearest_training_images(samples, images, tmp_path)
    assert sorted(found["pixels"]["samples"])[:2] == [0, 0]
    assert sorted(found["pixels"]["samples"])[2] > 10
    assert (found["pixels"]["images"], found["pixels"]["shown"], len(found["pixels"]["training"])) == (40, 16, 40)
    assert min(found["pixels"]["training"]) > 10
    for column, original in ((0, images[39]), (1, images[7])):
        for row in (0, 1):
            assert (tile(tmp_path / "neighbours-pixels.png", row, column) == original.permute(1, 2, 0).numpy()).all()


def test_in_features_the_scorers_own_are_taken(tmp_path):
    """Features are the mean colours; a sample with the pixels of image 8 in another order is at distance 0."""
    images, samples, asked = draw(40, 0), draw(3, 1), []
    samples[1] = images[8].flip(2)

    def features(batch):
        asked.append(len(batch))
        return batch.float().mean((2, 3))

    own = evenly_spaced(images, 10).float().mean((2, 3))
    scorer = types.SimpleNamespace(protocol={"extractor": "colours"}, features=features, real_features=own)
    found = nearest_training_images(samples, images, tmp_path, scorer)["features"]
    assert (found["extractor"], found["images"], asked) == ("colours", 10, [3])
    assert found["samples"][1] == 0  # image 8 is among every fourth one


@pytest.mark.parametrize(("n", "columns", "rows"), [(10, 8, 4), (3, 3, 2), (1, 1, 2)])
def test_few_samples_fill_whole_rows_and_one_image_has_no_neighbour(tmp_path, n, columns, rows):
    found = nearest_training_images(draw(n, 1), draw(2, 0), tmp_path)
    assert found["pixels"]["shown"] == n
    side = 4 * (512 // (4 * columns)) + 2
    assert Image.open(tmp_path / "neighbours-pixels.png").size == (columns * side + 2, rows * side + 2)
    assert nearest_training_images(draw(10, 1), draw(1, 0), tmp_path) == {}
