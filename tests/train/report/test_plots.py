"""Pictures: their pixels where these are exact, and what is drawn where."""

from __future__ import annotations

import errno
import io
import json
import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from train.data.distributions import ball3d, ring8
from train.errors import ResourceError
from train.report import plots


@pytest.fixture
def figure(monkeypatch) -> list[Figure]:
    """The figures that are saved, kept for a look at what they hold."""
    kept: list[Figure] = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (kept.append(figure), save(figure, path)))
    return kept


def draw(target, n=1000):
    return target.sample(n, torch.Generator().manual_seed(0))


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_image_grid_is_exact(tmp_path):
    images = torch.tensor([-1.0, 0.6, 1.0]).reshape(3, 1, 1, 1).expand(3, 3, 300, 300)
    plots.image_grid(images, tmp_path / "grid.png", columns=2)
    seen = pixels(tmp_path / "grid.png")
    assert seen.shape == (2 * 302 + 2, 2 * 302 + 2, 3)
    assert (seen[2:302, 2:302] == 0).all()
    assert (seen[2:302, 304:604] == 204).all()
    assert (seen[304:604, 2:302] == 255).all()
    assert (seen[:2] == 255).all()


@pytest.mark.parametrize(("channels", "count", "side"), [(1, 64, 8), (3, 64, 8), (1, 1, 1), (3, 5, 3)])
def test_image_grid_is_square_and_enlarged_by_whole_pixels(tmp_path, channels, count, side):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, 4, 4, generator=generator) * 2 - 1
    plots.image_grid(images, tmp_path / "grid.png")
    seen = pixels(tmp_path / "grid.png")
    factor = 512 // (4 * side)
    assert seen.shape[1] == side * (4 * factor + 2) + 2
    first = seen[2 : 2 + 4 * factor : factor, 2 : 2 + 4 * factor : factor].transpose(2, 0, 1)  # one pixel of each block
    expected = ((images[0] + 1) * 127.5).round().expand(3, 4, 4).numpy()
    assert (first == expected).all()


@pytest.mark.parametrize("shape", [(4, 2, 8, 8), (4, 8, 8), (0, 3, 8, 8)])
def test_image_grid_refuses_other_shapes(tmp_path, shape):
    with pytest.raises(ValueError, match=r"image_grid: images must be \[N > 0, 1 or 3, H, W\], got \["):
        plots.image_grid(torch.zeros(shape), tmp_path / "grid.png")


def test_image_grid_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="image_grid: 1 of 4 images hold NaN"):
        plots.image_grid(torch.zeros(4, 1, 8, 8).index_fill(0, torch.tensor([2]), math.nan), tmp_path / "grid.png")


def test_ring_shows_samples_and_circles(tmp_path, figure):
    target = ring8()
    samples = draw(target)
    samples[:3] = 50.0
    plots.scatter_ring(samples, target, tmp_path / "ring.png", title="POT-GAN")
    (axes,) = figure[0].axes
    assert axes.get_title() == "POT-GAN\n3 of 1,000 points lie outside the picture"
    assert len(axes.collections[0].get_offsets()) == 1000
    radii = sorted(round(float(np.ptp(line.get_xdata()) / 2), 3) for line in axes.lines)
    assert radii == [0.2] * 8 + [0.6] * 8
    assert axes.get_xlim() == axes.get_ylim()
    assert (tmp_path / "ring.png").stat().st_size < 100_000


def test_ball_draws_only_what_lies_in_the_sphere(tmp_path, figure):
    samples = draw(ball3d())
    outside = int((samples.norm(dim=1) > 3).sum())
    assert outside > 0
    plots.scatter_ball(samples, ball3d(), tmp_path / "ball.png")
    (axes,) = figure[0].axes
    assert f"{outside} of 1,000 points lie outside the sphere" in axes.get_title()
    x, y, z = axes.collections[0]._offsets3d
    assert len(x) == 1000 - outside
    assert (np.asarray(x) ** 2 + np.asarray(y) ** 2 + np.asarray(z) ** 2).max() <= 9 + 1e-6
    assert (tmp_path / "ball.png").stat().st_size < 150_000


@pytest.mark.parametrize("target", [ring8(), ball3d()])
def test_side_by_side_has_a_named_panel_each_on_equal_axes(tmp_path, figure, target):
    plots.side_by_side({"POT-GAN": draw(target), "WGAN-GP": 3 * draw(target)}, target, tmp_path / "both.png")
    left, right = figure[0].axes
    assert left.get_title().startswith("POT-GAN")
    assert right.get_title().startswith("WGAN-GP")
    assert left.get_xlim() == right.get_xlim()
    seen = pixels(tmp_path / "both.png")
    assert seen.shape[1] > 1.5 * seen.shape[0]


@pytest.mark.parametrize("target", [ring8(), ball3d()])
def test_nothing_is_cut_off_at_the_border(tmp_path, target):
    plots.side_by_side({"POT-GAN": draw(target), "WGAN-GP": 9 * draw(target)}, target, tmp_path / "both.png")
    seen = pixels(tmp_path / "both.png")
    border = np.concatenate([seen[:3].reshape(-1, 3), seen[-3:].reshape(-1, 3)])
    border = np.concatenate([border, seen[:, :3].reshape(-1, 3), seen[:, -3:].reshape(-1, 3)])
    assert (border == 255).all()


def test_points_of_another_dimension_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"side_by_side: 'WGAN-GP' must be \[n, 2\], got \[10, 3\]"):
        plots.side_by_side({"WGAN-GP": torch.zeros(10, 3)}, ring8(), tmp_path / "both.png")


def write_rows(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    return {str(line.get_label()): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_loss_curves_draw_each_named_term(tmp_path, figure):
    rows = [
        {"step": 50, "seconds": 1.0, "critic/loss": 3.0, "critic/squared_error": 1.0, "critic/lr": 0.1},
        {"step": 50, "metrics/reverse_kl": 0.2},
        {"step": 50, "scores/fid": 80.0, "scores/precision": 0.5},
        {"step": 100, "seconds": 2.0, "critic/loss": None, "critic/squared_error": 2.0, "generator/loss": -1.0},
    ]
    write_rows(tmp_path / "metrics.jsonl", rows)
    plots.loss_curves(tmp_path / "metrics.jsonl", tmp_path / "losses.png")
    critic, generator = figure[0].axes
    assert (critic.get_title("left"), generator.get_title("left")) == ("critic", "generator")
    drawn = lines(critic)
    assert set(drawn) == {"loss", "squared error"}
    assert drawn["squared error"] == [(50, 1), (100, 2)]
    assert drawn["loss"][0] == (50, 3)
    assert math.isnan(drawn["loss"][1][1])  # a loss that was not finite leaves a gap
    assert lines(generator) == {"loss": [(100, -1)]}
    assert len({line.get_color() for line in critic.lines}) == 2
    assert Image.open(tmp_path / "losses.png").format == "PNG"


def test_loss_curves_without_losses(tmp_path):
    write_rows(tmp_path / "metrics.jsonl", [{"step": 1, "metrics/n": 10}])
    with pytest.raises(ValueError, match=r"loss_curves: .*metrics.jsonl holds no losses"):
        plots.loss_curves(tmp_path / "metrics.jsonl", tmp_path / "losses.png")


DRAWERS = {
    "image_grid": lambda path: plots.image_grid(torch.zeros(4, 3, 8, 8), path),
    "scatter_ring": lambda path: plots.scatter_ring(draw(ring8()), ring8(), path),
}


@pytest.mark.parametrize("drawer", list(DRAWERS))
def test_a_picture_is_whole_or_the_one_before(tmp_path, monkeypatch, drawer):
    path = tmp_path / "samples.png"
    DRAWERS[drawer](path)
    before = path.read_bytes()
    save = Image.Image.save

    def dies(picture, target, **options):
        if not isinstance(target, io.IOBase):  # matplotlib draws into memory
            target.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(picture, target, **options)

    monkeypatch.setattr(Image.Image, "save", dies)
    with pytest.raises(ResourceError, match=r"samples\.png was not written: no space is left on the disk"):
        DRAWERS[drawer](path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["samples.png"]


def test_damaged_lines_do_not_reach_the_loss_curves(tmp_path, figure):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "critic/loss": 2.0}\n{"step": "x", "critic/loss": "y"}\n{"critic/loss": 3.0}\n')
    plots.loss_curves(path, tmp_path / "losses.png")
    (line,) = figure[0].axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1], [2.0])
