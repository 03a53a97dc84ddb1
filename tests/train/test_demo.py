"""The demo from end to end, on a budget of a few iterations."""

from __future__ import annotations

import dataclasses
import json

from train import demo
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


def test_both_games_have_the_same_budget():
    configs = {name: demo.config_of(name, demo.DemoConfig()) for name in demo.KINDS}
    ours, theirs = configs["potgan"], configs["wgan-gp"]
    for field in dataclasses.fields(theirs):
        if field.name != "game":
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    shared = json.loads(json.dumps(dataclasses.asdict(theirs.game)))
    assert {name: dataclasses.asdict(ours.game)[name] for name in shared} == shared
