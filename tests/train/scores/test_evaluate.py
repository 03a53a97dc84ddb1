"""python -m train evaluate: what is scored against what, what is written, and what is refused before the long part."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.networks import NetworkConfig
from train.__main__ import main
from train.data.config import DataConfig, load_images
from train.report.names import title
from train.run.config import run_config
from train.run.play import play
from train.samples.draw import batches
from train.samples.source import load_trained
from train.scores import evaluate, toy
from train.scores.config import ScoreConfig
from train.scores.images import Scorer, to_uint8

DIGITS = DataConfig(name="digits", size=8, limit=100)


def train(directory, data, **changes):
    config = run_config("gan")(data=data, out=str(directory), batch_size=8, iterations=2, **changes)
    play("gan", config, None, "gan")
    return directory


def small():
    return run_config("gan")().game.__class__(networks=NetworkConfig(name="mlp", width=8, depth=1, noise_dim=4))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run", DIGITS, game=small(), ema=0.5)


@pytest.fixture(autouse=True)
def quick(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluate, "load_extractor", lambda *_: tiny)


@pytest.fixture
def folders(draw, tmp_path):
    def write(name, images):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            pixels = image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(tmp_path / name / f"{i:03d}.png")
        return tmp_path / name

    return write


def scored(*words) -> None:
    main(["evaluate", *map(str, words)])


def test_a_run_is_scored_against_its_own_data(run, tiny, read_scores, capsys, tmp_path):
    scored(run, "--n", 60, "--seed", 7)
    written = read_scores(run / "scores-inception.json")
    (samples,) = batches(load_trained(run).game, 60, 7, 256)
    config, real = ScoreConfig("inception", n=60), load_images(DIGITS)
    judge = Scorer(config, real, data="digits", ema=0.5, cache=str(tmp_path), extractor=tiny)
    assert written["scores"] == pytest.approx(judge.score([to_uint8(samples)]), rel=1e-5)
    assert written["protocol"] == judge.protocol
    assert written["protocol"]["ema"] is True
    assert written["provenance"]["command"] == f"python -m train evaluate {run} --n 60 --seed 7"
    said = capsys.readouterr().out
    assert "60 images of gan at iteration 2 from" in said
    assert "against 100 of digits" in said
    assert title("fid", written["protocol"]) in said
    assert f"scores and protocol in {run}/scores-inception.json" in said


def test_a_runs_weights_are_chosen(run, read_scores):
    scored(run, "--n", 20, "--snapshot", "raw")
    assert read_scores(run / "scores-inception-raw.json")["protocol"]["ema"] is False
    with pytest.raises(ValueError, match="has no best snapshot"):
        scored(run, "--snapshot", "best")


def test_a_run_is_scored_against_another_part_of_its_data(run, folders, draw, tmp_path, read_scores):
    with pytest.raises(ValueError, match="subset"):  # digits has no parts
        scored(run, "--n", 20, "--subset", "test")
    with pytest.raises(ValueError, match=r"evaluate: path is of a data set, and --against .*real is a file"):
        scored(run, "--n", 20, "--against", folders("real", draw(20)), "--path", tmp_path)
    np.savez(tmp_path / "real.npz", draw(20).permute(0, 2, 3, 1).numpy())
    with pytest.raises(ValueError, match=r"evaluate: subset is of a data set, and --against .*npz is a file"):
        scored(run, "--n", 20, "--against", tmp_path / "real.npz", "--subset", "test")


def test_an_export_needs_real_images(run, tmp_path, read_scores):
    with pytest.raises(ValueError, match="against what"):
        scored(run / "export")
    scored(run / "export", "--against", "digits", "--n", 20, "--reference", 50)
    protocol = read_scores(run / "export" / "scores-inception.json")["protocol"]
    assert (protocol["data"], protocol["reference"], protocol["size"]) == ("digits", 50, [1, 8, 8])


def test_folders_and_npz_agree(folders, draw, tmp_path, read_scores):
    images, real = draw(30), draw(40, noise=60)
    np.savez(tmp_path / "x.npz", images.permute(0, 2, 3, 1).numpy())
    np.savez(tmp_path / "real.npz", real.permute(0, 2, 3, 1).numpy())
    place = folders("x", images)
    scored(place, "--against", folders("real", real))
    scored(tmp_path / "x.npz", "--against", tmp_path / "real.npz")
    ours, theirs = (read_scores(tmp_path / f"{name}.scores-inception.json") for name in ("x", "x.npz"))
    assert ours["scores"] == theirs["scores"]
    assert ours["protocol"]["fingerprint"] == theirs["protocol"]["fingerprint"]
    assert (ours["protocol"]["n"], ours["protocol"]["ema"]) == (30, None)


def test_grey_samples_meet_grey_images(folders, draw, read_scores, tmp_path):
    grey = draw(30, shape=(1, 8, 8))
    scored(folders("grey", grey), "--against", "digits")
    found = read_scores(tmp_path / "grey.scores-inception.json")
    np.savez(tmp_path / "grey.npz", grey.permute(0, 2, 3, 1).numpy())
    scored(tmp_path / "grey.npz", "--against", "digits")
    assert read_scores(tmp_path / "grey.npz.scores-inception.json")["scores"] == found["scores"]
    with pytest.raises(ValueError, match="the samples have colours, but the real images are grey"):
        scored(folders("colours", draw(30, shape=(3, 8, 8))), "--against", "digits")
    scored(tmp_path / "grey.npz", "--against", tmp_path / "colours")
    assert read_scores(tmp_path / "grey.npz.scores-inception.json")["protocol"]["size"] == [3, 8, 8]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "evaluate: of what"),
        (["nowhere"], "evaluate: there is no nowhere"),
        (["images"], "evaluate: against what"),
        (["images", "--against", "ring8"], "evaluate: ring8 has points"),
        (["images", "--against", "nowhere"], "there is no .*nowhere"),
        (["images", "--against", "cifar10"], "data: cifar10 needs a path"),
        (["images", "--against", "digits", "--n", "31"], "n is 31, but images has 30 images"),
        (["images", "--against", "digits", "--n", "9"], "n must be at least 10, got 9"),
        (["images", "--against", "digits", "--n", "0"], "evaluate: n must be at least 1, got 0"),
        (["images", "--against", "digits", "--batch-size", "0"], "evaluate: batch_size must be at least 1, got 0"),
        (["images", "--against", "digits", "--reference", "1798"], r"reference must lie in 10..1797"),
        (["images", "--against", "digits", "--extractor", "none"], "extractor must be one, got none"),
        (["images", "--against", "digits", "--snapshot", "raw"], "snapshot raw is of a run, but images is none"),
        (["images", "--against", "digits", "--out", "absent/x.json"], "out: absent/x.json cannot be written"),
        (["images", "--against", "digits", "--threads", "0"], "threads must be at least 1"),
        (["images", "--against", "digits", "--device", "tpu"], "device must be cpu, cuda or cuda:N"),
    ],
)
def test_what_cannot_be_scored_is_refused_first(words, message, folders, draw, tiny, tmp_path, monkeypatch):
    folders("images", draw(30))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        scored(*words)
    assert "\n" not in str(error.value)
    assert tiny._network.seen == 0


def test_samples_of_another_size_are_refused_first(folders, draw, tiny, tmp_path):
    np.savez(tmp_path / "real.npz", draw(20, shape=(3, 16, 16)).permute(0, 2, 3, 1).numpy())
    with pytest.raises(ValueError, match=r"the samples are 32 x 32 pixels, the real images 16 x 16"):
        scored(folders("images", draw(20)), "--against", tmp_path / "real.npz")
    assert tiny._network.seen == 0


def test_points_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "toy_metrics", lambda *_: {})
    with pytest.raises(ValueError, match="gan makes points here, and extractors take images"):
        scored(train(tmp_path / "points", DataConfig(name="ring8"), game=small()))


def test_missing_weights_are_said_before_anything_is_read(folders, draw, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(evaluate, "read_files", lambda *_: pytest.fail("the images were read first"))
    with pytest.raises(ValueError, match="there is no file of weights"):
        scored(folders("images", draw(20)), "--against", "digits", "--weights", tmp_path / "absent.pth")
