"""Which weights are taken: the export, the newest checkpoint with or without its average, the best snapshot."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from models.export import load_game
from models.games import GAMES
from train.run import checkpoint
from train.samples.source import load_trained


@pytest.fixture
def run(image_run, tmp_path):
    return shutil.copytree(image_run, tmp_path / "run")


def newest(run) -> dict:
    return next(checkpoint.valid_states(run / "checkpoints", pytest.fail))[1]


def weights(trained) -> dict:
    return dict(trained.game.players["generator"].state_dict())


def test_the_last_weights_are_those_of_the_export(run):
    trained = load_trained(run)
    exported, shape = load_game(run / "export", GAMES)
    assert (trained.shape, trained.name, trained.step, trained.ema) == (shape, "gan", 6, 0.5)
    torch.testing.assert_close(weights(trained), dict(exported.players["generator"].state_dict()), rtol=0, atol=0)
    assert not trained.game.training


def test_before_the_end_the_newest_checkpoint_gives_the_same(run):
    exported = weights(load_trained(run))
    shutil.rmtree(run / "export")
    trained = load_trained(run)
    assert (trained.step, trained.ema, trained.shape, trained.path.name) == (6, 0.5, (1, 8, 8), "step_00000006.pt")
    torch.testing.assert_close(weights(trained), exported, rtol=0, atol=0)
    assert not trained.game.training


def test_raw_weights_are_those_without_the_average(run):
    trained = load_trained(run, "raw")
    state = newest(run)
    own = {name.removeprefix("players.generator."): value for name, value in state["game"].items() if "gener" in name}
    torch.testing.assert_close(weights(trained), own, rtol=0, atol=0)
    assert trained.ema == 0
    assert not all(map(torch.equal, own.values(), state["ema"]["average"].values()))


def test_the_best_snapshot_is_taken_from_its_folder(run):
    shutil.copytree(run / "export", run / "export-best")
    described = json.loads((run / "export-best" / "config.json").read_text())
    described["training"] = {"step": 4, "ema": 0.5}
    (run / "export-best" / "config.json").write_text(json.dumps(described))
    trained = load_trained(run, "best")
    assert trained.step == 4
    assert str(trained) == f"gan at iteration 4 from {run / 'export-best'}, averaged weights"


def test_an_export_alone_says_what_it_knows(run):
    assert str(load_trained(run / "export")) == f"gan at iteration 6 from {run / 'export'}, averaged weights"
    described = json.loads((run / "export" / "config.json").read_text())
    del described["training"]  # as in an older export
    (run / "export" / "config.json").write_text(json.dumps(described))
    trained = load_trained(run / "export")
    assert (trained.step, trained.ema, str(trained)) == (None, None, f"gan from {run / 'export'}")


def test_points_are_sampled_from_a_checkpoint_too(point_run, tmp_path):
    run = shutil.copytree(point_run, tmp_path / "run")
    shutil.rmtree(run / "export")
    assert load_trained(run).shape == (2,)


def test_a_damaged_checkpoint_is_passed_over(run):
    shutil.rmtree(run / "export")
    (run / "checkpoints" / "step_00000006.pt").write_bytes(b"no checkpoint")
    assert load_trained(run).step == 3


def nothing(run):
    shutil.rmtree(run)


def no_weights(run):
    shutil.rmtree(run / "export")
    shutil.rmtree(run / "checkpoints")


def other_widths(run):
    shutil.rmtree(run / "export")
    described = json.loads((run / "config.json").read_text())
    described["config"]["game"]["networks"]["width"] = 9
    (run / "config.json").write_text(json.dumps(described))


def writes(text):
    return lambda run: (run / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "weights", "message"),
    [
        (nothing, "last", "must be a run directory or an export, but has no config.json"),
        (no_weights, "last", "has no valid checkpoint; the first is written after checkpoint_every iterations"),
        (other_widths, "last", "does not fit config.json: players"),
        (writes("{"), "last", "is damaged"),
        (writes("[" * 100_000), "last", "is damaged"),
        (writes("[]"), "last", "holds no mapping"),
        (writes(" " * 2**21), "last", "too large"),
        (writes('{"game": "chess", "config": {}}'), "last", "must name a game"),
        (writes('{"game": "gan", "config": {"lr": -1}}'), "last", "lr must be positive"),
        (lambda run: None, "best", "has no best snapshot"),
    ],
)
def test_what_cannot_be_sampled_is_one_clear_line(damage, weights, message, run):
    damage(run)
    with pytest.raises(ValueError, match=message) as raised:
        load_trained(run, weights)
    assert "\n" not in str(raised.value)


def test_an_export_has_no_other_weights(run):
    with pytest.raises(ValueError, match=r"is an export and has its own weights alone; raw needs a run$"):
        load_trained(run / "export", "raw")
