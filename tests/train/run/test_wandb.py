"""Weights & Biases gets each row, under one name for the whole run: a stand-in for its package notes what it hears."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from train.__main__ import main
from train.cli import guarded
from train.scores import toy

TINY = ["--preset", "ring8", "--game.networks.width", "4", "--batch-size", "8", "--log-every", "2"]


@pytest.fixture
def service(monkeypatch):
    """The stand-in: (id, project) of each start, rows, and the number of ends."""
    told = SimpleNamespace(starts=[], rows=[], ends=0)

    class Run:
        def log(self, values, step):
            told.rows.append((step, values))

        def finish(self):
            told.ends += 1

    def init(**options):
        told.starts.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setattr(toy, "toy_metrics", lambda samples, target: {"reverse_kl": 0.5})
    return told


def test_rows_and_settings_reach_the_service_and_a_resumed_run_keeps_its_name(service, tmp_path):
    run = str(tmp_path / "run")
    assert guarded(lambda: main(["gan", *TINY, "--iterations", "4", "--wandb", "project", "--out", run])) == 0
    assert [step for step, _ in service.rows] == [2, 4, 4]
    assert "discriminator/loss" in service.rows[0][1]
    assert service.rows[2][1] == {"metrics/reverse_kl": 0.5}
    first = service.starts[0]
    assert (first["project"], first["name"], first["resume"], service.ends) == ("project", "run", "allow", 1)
    assert first["config"]["game"]["networks"]["width"] == 4
    assert first["config"]["batch_size"] == 8
    assert guarded(lambda: main(["gan", "--resume", run, "--iterations", "6"])) == 0
    assert service.starts[1]["id"] == first["id"]
    assert service.rows[3][0] == 6


def test_without_the_package_nothing_begins(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert guarded(lambda: main(["gan", *TINY, "--wandb", "project", "--out", str(tmp_path / "run")])) == 2
    assert "train: wandb needs the package of that name: pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
