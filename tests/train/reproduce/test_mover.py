"""3P-WGAN's synthetic experiment in miniature."""

from __future__ import annotations

import json

import pytest
import torch

from train.reproduce import mover
from train.reproduce.__main__ import main
from train.reproduce.mover import MoverConfig, data_points, game_config, play, way

TINY = MoverConfig(iterations=110, points=64, width=8, every=40)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(mover, "POINTS", 200)


def test_settings_are_the_papers():
    config = game_config(MoverConfig())
    assert (config.iterations, config.batch_size, config.data.limit) == (25_000, 2048, 2048)
    assert (config.lr, config.betas, config.lr_decay, config.ema) == (1e-4, (0.0, 0.9), "constant", 0.0)
    game = config.game
    assert (game.lambda_start, game.lambda_end, game.mover_steps, game.cost, game.equation) == (0.1, 100, 5, "l2", 10)
    assert (game.networks.depth, game.networks.noise_dim, game.noise, game.networks.init) == (
        2,
        128,
        "uniform",
        "normal",
    )
    assert game.batch_norm == "generator"  # not the paper's, see MoverConfig
    assert game_config(MoverConfig(batch_norm="both")).game.batch_norm == "both"


def test_a_run_has_its_curve_and_snapshots():
    run = play(TINY)
    assert [row["step"] for row in run["curve"]] == [1, 40, 80, 110]
    # lambda of the last iteration: 109 of 110 lie behind it
    assert run["curve"][-1]["lambda"] == pytest.approx(0.1 + 99.9 * 109 / 110)
    assert list(run["snapshots"]) == [100, 110]
    shot = run["snapshots"][110]
    sizes = {name: tuple(points.shape) for name, points in shot["clouds"].items()}
    assert sizes == dict.fromkeys(("real", "generated", "moved real"), (64, 2))
    moved = (shot["clouds"]["moved real"] - shot["clouds"]["real"]).norm(dim=1).mean()
    assert shot["figures"]["move"] == pytest.approx(float(moved), rel=1e-5)
    assert run["curve"][-1]["move"] == pytest.approx(float(moved), rel=1e-5)


def test_the_way_is_that_of_the_mover():
    loop = mover.side_by_side("3p-wgan", game_config(TINY), [0])
    loop.game.move = lambda x: x + torch.tensor([3.0, 4.0])
    points = data_points(game_config(TINY))
    assert points.shape == (1, 64, 2)
    assert float(way(loop, points)) == pytest.approx(5)
    drawn, _ = loop.source.draw(64)
    assert torch.equal(points.sort(1).values, drawn.sort(1).values)  # the very points that the run sees


def test_files_and_page(tmp_path, capsys):
    main(["mover", "--iterations", "3", "--points", "32", "--width", "8", "--out", str(tmp_path)])
    stored = json.loads((tmp_path / "mover.json").read_text())
    figures = stored["figures"]["3"]
    page = (tmp_path / "mover.md").read_text()
    assert f"| 3 | {figures['modes_covered']} of 8 | {figures['within_3_sigma']:.3f} |" in page
    assert f"ends at {stored['curve'][-1]['move']:.4f}" in page
    assert "python -m train.reproduce mover --iterations 3" in page
    assert "batch norm in the generator alone (the paper has it in the critic too)" in page
    assert (tmp_path / "mover.png").stat().st_size > 0


@pytest.mark.parametrize(("name", "value", "least"), [("iterations", 0, 1), ("points", 1, 2), ("every", 0, 1)])
def test_settings_too_small_are_named(name, value, least):
    with pytest.raises(ValueError, match=f"mover: {name} must be at least {least}, got {value}"):
        MoverConfig(**{name: value})
