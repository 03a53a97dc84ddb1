"""Scores along the training: their rows, the best export, resuming, and a training that they do not change."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
import torch

from models.games import GAMES
from tests.train.conftest import TinyGame
from train.data.config import DataConfig, load
from train.data.datasets import ImageSet
from train.errors import Stopped, TrainingError
from train.run import outputs
from train.run.config import TrainConfig, phase_as_run, run_config
from train.run.log import RunLog, read_rows
from train.run.scoring import make_scorer
from train.run.trainer import Trainer
from train.samples.draw import noise
from train.scores.config import ScoreConfig
from train.scores.images import to_uint8

FIDS = [30.0, 20.0, 25.0, 10.0]


class Scorer:
    """Stands in for the real one: the Frechet distances are ``FIDS`` in turn, KID follows from the samples."""

    label, shape = "FID[some]", (2,)

    def __init__(self, start=0, n=6):
        self.protocol = {"extractor": "some", "frechet distance": self.label, "n": n, "fingerprint": "first"}
        self.calls, self.drawn = start, []

    def score(self, draw):
        samples = torch.cat([draw(0, 4), draw(4, 6)])
        self.drawn.append(samples)
        self.calls += 1
        return {"fid": FIDS[self.calls - 1], "kid": float(samples.double().mean())}


@pytest.fixture
def play(tmp_path, monkeypatch):
    """A function: folder, scorer, settings -> a trainer of TinyGame that scores every second of eight iterations."""
    monkeypatch.setattr(outputs.Outputs, "final", lambda self, log, seconds: {})
    monkeypatch.setattr(outputs.Outputs, "at_interval", lambda self, log: None)
    monkeypatch.setattr(outputs.Outputs, "make_up", lambda self, log: None)

    def make(folder, scorer, **settings):
        scores = ScoreConfig("efficientnet-lite2", n=10, every=2)
        values = {"iterations": 8, "batch_size": 8, "ema": 0.9, "scores": scores, "checkpoint_every": 2, "keep": 9}
        config = TrainConfig(**{**values, **settings})
        torch.manual_seed(0)
        trainer = Trainer(TinyGame(), load(DataConfig("ring8"), "cpu", 0), config, tmp_path / folder, "tiny", scorer)
        (tmp_path / folder).mkdir(exist_ok=True)
        return trainer

    return make


def scores(trainer):
    return json.loads((trainer.directory / "scores.json").read_text())


def weights(trainer):
    return torch.cat([value.double().flatten() for value in trainer.loop.game.state_dict().values()])


def test_rows_stand_in_scores_json_and_in_the_log_and_the_best_is_kept(play):
    trainer = play("run", Scorer())
    trainer.run("again")
    found = scores(trainer)
    assert [(row["step"], row["fid"]) for row in found["rows"]] == list(zip((2, 4, 6, 8), FIDS, strict=True))
    assert [row["seconds"] for row in found["rows"]] == sorted(row["seconds"] for row in found["rows"])
    assert found["best"] == 8
    logged = [row for row in read_rows(trainer.directory / "metrics.jsonl") if "scores/fid" in row]
    assert [(row["step"], row["scores/fid"]) for row in logged] == [(row["step"], row["fid"]) for row in found["rows"]]
    assert json.loads((trainer.directory / "export-best" / "config.json").read_text())["shape"] == [2]


def test_the_best_export_is_that_of_the_lowest_distance(play, monkeypatch):
    monkeypatch.setattr("tests.train.run.test_scoring.FIDS", [30.0, 20.0, 25.0, 40.0])
    saved = []
    monkeypatch.setattr(outputs.Outputs, "export", lambda self, directory: saved.append(directory.name))
    trainer = play("run", Scorer())
    trainer.run("again")
    assert saved == ["export-best"] * 2  # at 2 and at 4
    assert scores(trainer)["best"] == 4


def test_a_best_export_of_a_lost_future_is_replaced(play, monkeypatch):
    """The run was killed after the best score at 6 and goes on from 4 as another training."""
    monkeypatch.setattr("tests.train.run.test_scoring.FIDS", [30.0, 20.0, 10.0, 40.0])
    killed = play("run", Scorer())
    killed.run("again")
    assert scores(killed)["best"] == 6
    for step in (6, 8):
        (path,) = (killed.directory / "checkpoints").glob(f"*{step}.pt")
        path.unlink()
    saved = []
    monkeypatch.setattr(outputs.Outputs, "export", lambda self, directory: saved.append(directory.name))
    monkeypatch.setattr("tests.train.run.test_scoring.FIDS", [0.0, 0.0, 25.0, 40.0])
    again = play("run", Scorer(start=2))
    again.resume()
    again.run("again")
    assert saved == ["export-best"]
    assert scores(again)["best"] == 6


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_samples_that_are_not_finite_are_a_failed_training(value, play, monkeypatch):
    trainer = play("run", Scorer())
    drawn = trainer.loop.sampling

    @contextmanager
    def sampling():
        with drawn() as game:
            monkeypatch.setattr(TinyGame, "sample", lambda self, noise: torch.full((len(noise), 2), value))
            yield game

    monkeypatch.setattr(trainer.loop, "sampling", sampling)
    with pytest.raises(TrainingError, match="scores: samples at iteration 2 hold NaN or infinite values"):
        trainer.run("again")


def test_scores_are_of_the_same_noise_and_leave_the_training_alone(play):
    scored = play("scored", Scorer())
    scored.run("again")
    plain = play("plain", None)
    plain.run("again")
    assert torch.equal(weights(scored), weights(plain))
    with scored.loop.sampling() as game:  # as python -m train sample draws them
        drawn = torch.cat(
            [to_uint8(part) for part in (game.sample(noise(game, 0, 4, 0)), game.sample(noise(game, 4, 6, 0)))]
        )
    assert torch.equal(scored.scoring._scorer.drawn[-1], drawn)


def test_a_resumed_run_has_each_row_once_and_the_rows_that_it_would_have_had(play):
    whole = play("whole", Scorer())
    whole.run("again")
    killed = play("killed", Scorer())
    killed.run("again")
    for path in (killed.directory / "checkpoints").glob("*8.pt"):
        path.unlink()
    stored = scores(killed)
    (killed.directory / "scores.json").write_text(json.dumps({**stored, "rows": stored["rows"][:2]}))  # 6 is missing
    again = play("killed", Scorer(start=2))
    again.resume()
    assert again.loop.step == 6
    again.run("again")
    one, other = scores(whole), scores(again)
    for row in (*one["rows"], *other["rows"]):
        del row["seconds"]
    assert one == other
    steps = [row["step"] for row in read_rows(again.directory / "metrics.jsonl") if "scores/fid" in row]
    assert steps == [2, 4, 6, 8]


def test_a_run_is_not_continued_under_another_protocol(play):
    play("run", Scorer(), iterations=4).run("again")
    other = play("run", Scorer(n=20))
    before = (other.directory / "scores.json").read_text()
    with pytest.raises(ValueError, match=r"cannot be compared: n 6 and 20; move .*scores.json away to begin"):
        other.resume()
    assert (other.directory / "scores.json").read_text() == before
    (other.directory / "scores.json").rename(other.directory / "scores-before.json")
    other.resume()
    other.run("again")
    assert [row["step"] for row in scores(other)["rows"]] == [4, 6, 8]


def test_scores_of_other_images_begin_anew_where_a_run_may_go_on_with_them(play, capsys):
    grown = Scorer()
    grown.protocol["fingerprint"] = "grown"
    play("run", Scorer(), iterations=4).run("again")
    refused = play("run", grown)
    with pytest.raises(ValueError, match=r"cannot be compared: fingerprint first and grown; move "):
        refused.resume()
    other = play("run", grown)
    other.resume(other_data=True)
    assert "scores: those so far are of other images and do not compare; they begin anew" in capsys.readouterr().out
    other.run("again")
    assert scores(other)["protocol"]["fingerprint"] == "grown"
    assert [row["step"] for row in scores(other)["rows"]] == [4, 6, 8]
    same = play("run", grown, iterations=10)
    same.resume(other_data=True)
    assert same.scoring is not None
    assert not same.scoring.due()  # its last row was taken up: the images are the same


def test_a_request_to_stop_is_heard_while_samples_are_scored_and_the_scores_are_made_up(play):
    class Interrupted(Scorer):
        def score(self, draw):
            draw(0, 4)
            trainer._requests.asked = 2
            return super().score(draw)

    trainer = play("run", Interrupted())
    with pytest.raises(Stopped):
        trainer.run("again")
    assert trainer.loop.step == 2
    assert not (trainer.directory / "scores.json").exists()
    again = play("run", Scorer())
    again.resume()
    again.run("again")
    assert [row["step"] for row in scores(again)["rows"]] == [2, 4, 6, 8]


def test_a_damaged_file_of_scores_is_named(play):
    play("run", Scorer(), iterations=4).run("again")
    other = play("run", Scorer())
    (other.directory / "scores.json").write_text('{"protocol": {}, "rows": [{}]}')
    with pytest.raises(ValueError, match=r"^resume: .*scores.json is damaged: 'best'$"):
        other.resume()


def test_what_cannot_be_scored_is_refused_before_training(tmp_path):
    config = TrainConfig(scores=ScoreConfig("efficientnet-lite2", n=10))
    with pytest.raises(ValueError, match=r"^scores: ring8 has no images to score; toy sets have their own figures$"):
        make_scorer(config, load(config.data))
    images = ImageSet("few", torch.zeros(9, 3, 8, 8, dtype=torch.uint8), 0)
    with pytest.raises(ValueError, match=r"^scores: reference must lie in 10..9, "):
        make_scorer(config, images)
    missing = TrainConfig(scores=ScoreConfig("inception", weights=str(tmp_path / "none.pth"), n=10))
    with pytest.raises(ValueError, match=r"^scores: .*none.pth"):
        make_scorer(missing, ImageSet("some", torch.zeros(20, 3, 8, 8, dtype=torch.uint8), 0))
    assert make_scorer(TrainConfig(), images) is None


def test_a_phase_is_not_scored():
    config = run_config("potgan")(scores=ScoreConfig("efficientnet-lite2"))
    assert phase_as_run(config, "vae", "vae").scores == ScoreConfig()
    assert "vae" in GAMES["potgan"].phases


def test_the_log_knows_what_a_step_has(tmp_path):
    log = RunLog(tmp_path, "run", 0, 10)
    log.row(3, {"scores/fid": 1.0})
    assert log.has(3, "scores")
    assert not log.has(3, "metrics")
    log.close()
    assert RunLog(tmp_path, "run", 3, 10).has(3, "scores")
