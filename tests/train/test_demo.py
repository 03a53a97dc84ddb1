"""The demo from end to end, on a budget of a few iterations."""

from __future__ import annotations

from train import demo
from train.recipes import profile
from train.scores import toy


def test_the_demo_ends_with_a_table_a_picture_and_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(toy, "reverse_kl", lambda *arguments, **settings: (0.5, 0.01))  # seconds for 10,000 points
    demo.main(["--iterations", "3", "--out", str(tmp_path / "demo")])
    text = capsys.readouterr().out
    for expected in ("reverse KL", "modes of 8", "potgan", "wgan-gp", "one run each, seed 0, 3 iterations"):
        assert expected in text
    assert text.endswith(f"picture {tmp_path}/demo/comparison.png\nreport  {tmp_path}/demo/report.html\n")
    assert (tmp_path / "demo" / "comparison.png").stat().st_size > 0
    assert "Losses of wgan-gp" in (tmp_path / "demo" / "report.html").read_text()


def test_the_demo_shows_potgan_first_and_each_game_with_its_own_settings():
    """The same data, networks, seed, batch and number of updates; rates and weights as tuned for each."""
    assert demo.GAMES == ["potgan", "wgan-gp"]
    ours, theirs = (demo.config_of(name, demo.DemoConfig(seed=3)) for name in demo.GAMES)
    for field in ("data", "iterations", "batch_size", "seed", "ema", "lr_decay", "device"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.game.networks == theirs.game.networks
    for name in demo.GAMES:
        assert demo.config_of(name, demo.DemoConfig()) == profile(name, "ring8")
    assert (ours.lr, theirs.lr) == (4e-3, 1e-3)
