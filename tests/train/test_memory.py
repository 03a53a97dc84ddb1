"""Runs that cannot fit are refused from figures, those that fit are not, and none of it allocates."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.games import GAMES
from models.networks import NetworkConfig
from train import memory
from train.config import run_config
from train.memory import available_bytes, check_fits
from train.presets import preset

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("game", list(GAMES))
def test_toy_runs_fit_and_huge_ones_do_not(game):
    config = preset("ring8", game, run_config(game))
    check_fits(GAMES[game], config.game, (2,), config.batch_size, CPU)
    with pytest.raises(ValueError, match=r"a batch of 1000000000000 at least [0-9,]+\.[0-9] GB of memory"):
        check_fits(GAMES[game], config.game, (2,), 10**12, CPU)
    wide = replace(config.game, networks=replace(config.game.networks, width=2**20))
    with pytest.raises(ValueError, match=r"the networks need at least [0-9,]+\.[0-9] GB"):
        check_fits(GAMES[game], wide, (2,), 64, CPU)


def test_the_figures_are_those_of_weights_and_samples(monkeypatch):
    config = GAMES["gan"].Config(networks=NetworkConfig("mlp", width=8, depth=1, noise_dim=3))
    weights = sum(p.numel() for p in GAMES["gan"].build(config, (2,)).parameters())
    needed = 4 * 4 * weights + 4 * 10 * (2 * 2 + 3)
    monkeypatch.setattr(memory, "available_bytes", lambda device: needed)
    check_fits(GAMES["gan"], config, (2,), 10, CPU)
    monkeypatch.setattr(memory, "available_bytes", lambda device: needed - 1)
    with pytest.raises(ValueError, match="batch_size or the game's sizes must be smaller"):
        check_fits(GAMES["gan"], config, (2,), 10, CPU)


def test_the_limit_of_the_process_counts():
    code = (
        "import resource\nfrom train.memory import available_bytes\nbefore = available_bytes()\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_AS)\nresource.setrlimit(resource.RLIMIT_AS, (20 * 2**30, hard))\n"
        "print(before, available_bytes())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, limited = map(int, run.stdout.split())
    assert 0 < limited < 20 * 2**30
    assert limited <= before
    assert available_bytes() > 0
