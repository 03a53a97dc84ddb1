"""A disk that is full under each writer of a run: one line, exit status 1, and a resumed run that is the same again."""

from __future__ import annotations

import pkgutil
import resource
from pathlib import Path

import pytest

from tests.chaos.cases import make_pictures
from tests.chaos.compare import differences
from train.__main__ import main
from train.cli import guarded
from train.run import checkpoint, play

FIELDS = ["--preset", "folder32-cpu", "--data.path", "../pictures", "--data.size", "8", "--batch-size", "8"]
FIELDS += ["--iterations", "12", "--log-every", "2", "--sample-every", "6", "--checkpoint-every", "4"]
FIELDS += ["--vae.iterations", "8", "--vae.batch-size", "8", "--scores.n", "10", "--scores.every", "4"]
FIELDS += ["--scores.extractor", "efficientnet-lite2"]  # see Scorer
for game in ("game", "vae.game"):
    FIELDS += [f"--{game}.networks.name", "mlp", f"--{game}.networks.width", "4", f"--{game}.networks.depth", "1"]

# Where a disk is full, in the order in which a run comes there: which function then writes, and at which of its calls.
ENDING = [
    ("train.report.plots.loss_curves", 1, "losses.png"),
    ("models.export.save_file", 1, "export/model.safetensors"),
    ("train.run.outputs.write_json", 1, "figures.json"),
    ("train.report.page.Page.write", 1, "report.html"),
]
TRAINING = [
    ("torch.save", 1, ".pt"),
    ("train.run.log.RunLog.row", 1, "metrics.jsonl"),
    ("train.run.events.Events.row", 1, "tensorboard"),
    ("train.report.plots.image_grid", 1, ".png"),
]
FULL = [
    ("train.data.cache._Stage.add", 1, "cache"),
    ("train.data.cache._Stage.write", 1, "cache"),
    ("train.run.build.save_config", 1, "config.json"),
    ("torch.save", 2, ".pt"),  # one is there already: the run goes on from it
    ("train.run.config.write_json", 1, "config.json"),
    *TRAINING,
    *ENDING,
    ("train.run.scoring.write_json", 1, "scores.json"),
    ("models.export.save_file", 1, "export-best/model.safetensors"),
    TRAINING[0],
    *ENDING,
]


class Scorer:
    """Stands in for the real one, whose network takes seconds to load."""

    label, protocol = "FID", {"extractor": "some", "frechet distance": "FID", "fingerprint": "some"}

    def __init__(self, images):
        self.real_features = self.features(images)

    def features(self, images):
        return images.flatten(1).float()

    def score(self, draw):
        return {"fid": float((self.features(draw(0, 10)).mean(0) - self.real_features.mean(0)).square().sum())}


@pytest.fixture
def disk():
    """A function: from now on no file may grow, which to a writer is a full disk of another number; undone in the end.

    A small file system would have to be mounted: ``python -m tests.chaos`` does that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda full: resource.setrlimit(resource.RLIMIT_FSIZE, (0 if full else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of images, and a stand-in for the scores' network, which takes seconds to load."""
    make_pictures(tmp_path / "pictures", 16)
    monkeypatch.setattr(play, "make_scorer", lambda config, data: Scorer(data.images))


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """A function: the name of a folder and a command line -> the exit status and what was written to stderr."""

    def call(name: str, *argv: str) -> tuple[int, str]:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name / "cache"))
        capsys.readouterr()
        status = guarded(lambda: main(["potgan", *argv]))
        return status, capsys.readouterr().err

    return call


def full_at(patch, disk, place: str, call: int) -> None:
    """Have the disk full from the ``call``-th call of the function at ``place`` on."""
    owner, _, name = place.rpartition(".")
    written, calls = pkgutil.resolve_name(place), []

    def write(*arguments, **named):
        calls.append(place)
        disk(full=len(calls) >= call)
        return written(*arguments, **named)

    patch.setattr(pkgutil.resolve_name(owner), name, write)


def newest(run: Path) -> int:
    return max(map(checkpoint.step_of, checkpoint.checkpoints(run / "checkpoints")), default=-1)


def test_a_run_that_meets_full_disks_everywhere_is_the_same_in_the_end(train, images, disk, monkeypatch, tmp_path):
    whole, parts = tmp_path / "whole" / "run", tmp_path / "parts" / "run"
    assert train("whole", *FIELDS, "--out", "run")[0] == 0
    for place, call, file in FULL:
        begun = (parts / "config.json").exists()
        before = newest(parts)
        with monkeypatch.context() as patch:
            full_at(patch, disk, place, call)
            status, said = train("parts", *(["--resume", "run"] if begun else [*FIELDS, "--out", "run"]))
            disk(full=False)
        assert status == 1, (place, said)
        *others, line = said.splitlines()
        assert line.startswith("error: "), (place, said)
        assert all(other.startswith(("data: ", "warning: ")) for other in others), (place, said)
        assert file in line, (place, said)
        assert "the file size limit is reached (ulimit -f)" in line, (place, said)
        for folder in parts.rglob("checkpoints"):
            assert all(checkpoint.load(path) for path in checkpoint.checkpoints(folder)), place
        assert newest(parts) >= before, place
    status, said = train("parts", "--resume", "run")
    assert status == 0, said
    assert differences(whole, parts) == []
