"""A run whose processes are killed is the run that was never stopped; ``python -m tests.chaos`` kills many more."""

from __future__ import annotations

import random

import pytest

from tests.chaos.cases import PICTURES, Case, make_pictures
from tests.chaos.compare import differences
from tests.chaos.runs import Run
from train.__main__ import main
from train.cli import guarded

FIELDS = ["--preset", "folder32-cpu", "--data.path", f"../{PICTURES}", "--data.size", "8", "--batch-size", "8"]
FIELDS += ["--iterations", "90", "--log-every", "4", "--sample-every", "30", "--checkpoint-every", "10"]
FIELDS += ["--game.networks.name", "mlp", "--game.networks.width", "8", "--game.networks.depth", "1"]
CASE = Case("wgan-gp", [*FIELDS, "--lr-decay", "linear", "--ema", "0.9"], ())


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """The same run, undisturbed, in this process."""
    make_pictures(tmp_path / PICTURES)
    run = Run(CASE, tmp_path / "whole")
    monkeypatch.chdir(run.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(run.cache))
    assert guarded(lambda: main([CASE.game, *CASE.settings, "--out", "disk/run"])) == 0
    return run.directory


def test_a_run_killed_at_chosen_and_at_random_moments_is_the_same_run(whole, seed, tmp_path):
    parts, draw = Run(CASE, tmp_path / "parts"), random.Random(seed)
    kills = [
        lambda: parts.kill_at("checkpoints/.step_*.part"),  # between its write and its renaming
        lambda: parts.kill_after(draw.uniform(3.0, 5.0)),
        lambda: parts.kill_at("export/model.safetensors"),
    ]
    for kill in kills:
        if not kill():
            break  # the run has ended: a busy machine missed the moment
    parts.finish()
    assert differences(whole, parts.directory) == []
