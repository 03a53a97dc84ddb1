"""python -m train interpolate: rows from sample to sample, as a grid and as a GIF."""

from __future__ import annotations

import re

import pytest
import torch
from PIL import Image

from train.__main__ import main
from train.samples.draw import batches
from train.samples.interpolate import interpolations
from train.samples.source import load_trained


def test_rows_go_from_one_sample_to_the_next(image_run):
    game = load_trained(image_run).game
    images = interpolations(game, rows=3, steps=4, seed=2)
    assert images.shape == (3, 4, 1, 8, 8)
    (samples,) = batches(game, 6, 2, 6)
    torch.testing.assert_close(images[:, 0], samples[::2], rtol=0, atol=1e-6)
    torch.testing.assert_close(images[:, -1], samples[1::2], rtol=0, atol=1e-6)
    assert (images[:, 1:] - images[:, :-1]).abs().amax((1, 2, 3, 4)).min() > 0


def test_a_grid_has_a_row_for_each_way(image_run, tmp_path):
    out = tmp_path / "new" / "ways.png"
    main(["interpolate", str(image_run), "--out", str(out), "--rows", "2", "--steps", "5"])
    with Image.open(out) as picture:
        factor = 512 // (5 * 8)
        assert picture.size == (5 * (8 * factor + 2) + 2, 2 * (8 * factor + 2) + 2)


def test_a_gif_goes_forth_and_back_for_ever(image_run, tmp_path):
    out = tmp_path / "ways.gif"
    main(["interpolate", str(image_run), "--out", str(out), "--rows", "3", "--steps", "5"])
    with Image.open(out) as picture:
        frames = []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(picture.convert("RGB").tobytes())
        assert picture.info["loop"] == 0
    assert len(frames) == 8
    assert frames[1:4] == frames[:4:-1]
    assert len(set(frames)) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.png"], "which run or export"),
        (["RUN", "--out", "x"], "out must be FILE.png or FILE.gif, got 'x'"),
        (["RUN", "--out", "x.png", "--steps", "1"], "steps must be at least 2, got 1"),
        (["RUN", "--out", "x.png", "--rows", "0"], "rows must be at least 1, got 0"),
        (["POINTS", "--out", "x.png"], "interpolations are of images"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message, image_run, point_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = {"RUN": str(image_run), "POINTS": str(point_run)}
    with pytest.raises(ValueError, match=re.escape(message)):
        main(["interpolate", *(runs.get(word, word) for word in arguments)])
    assert list(tmp_path.iterdir()) == []
