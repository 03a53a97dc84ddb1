"""How many CPU threads a run takes, and that it keeps the number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.games import GAMES
from models.networks import NetworkConfig
from train.recipes import profile
from train.run import threads
from train.run.build import load_data, make_trainer
from train.run.threads import choose_threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "MOST", 2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("game", list(GAMES))
def test_the_toy_games_take_one_thread(game):
    config = profile(game, "ring8")
    assert choose_threads(GAMES[game].build(config.game, (2,)), config.batch_size) == 1


def test_wide_networks_and_convolutions_take_all():
    kind = GAMES["gan"]
    wide = kind.build(kind.Config(networks=NetworkConfig(name="mlp", width=1024)), (2,))
    assert choose_threads(wide, 128) == 2
    assert choose_threads(wide, 1) == 1
    images = kind.build(kind.Config(networks=NetworkConfig(name="dcgan", width=4)), (3, 32, 32))
    assert choose_threads(images, 1) == 2


@pytest.mark.parametrize(("asked", "taken"), [(None, 1), (2, 2)])
def test_a_run_sets_its_number_and_writes_it_down(tmp_path, asked, taken):
    config = replace(profile("gan", "ring8"), threads=asked)
    trainer = make_trainer("gan", config, load_data(config), tmp_path)
    assert (trainer.config.threads, torch.get_num_threads()) == (taken, taken)
    state = torch.load(trainer.save(), weights_only=True)
    assert state["threads"] == taken


def test_another_number_than_before_is_said(tmp_path, capsys):
    config = profile("gan", "ring8")
    make_trainer("gan", config, load_data(config), tmp_path).save()
    make_trainer("gan", replace(config, threads=2), load_data(config), tmp_path).resume()
    assert "had 1 CPU threads and goes on with 2" in capsys.readouterr().out
