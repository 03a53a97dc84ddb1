"""What a kill between a checkpoint and its picture takes is made up; pictures are whole; every seed has its noise."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from tests.train.conftest import TinyGame
from train.data.datasets import ImageSet
from train.errors import TrainingError
from train.run import outputs
from train.run.log import RunLog, read_rows
from train.scores import toy


@pytest.fixture(autouse=True)
def cheap_metrics(monkeypatch):
    """The reverse KL of 10,000 points takes seconds."""
    monkeypatch.setattr(toy, "toy_metrics", lambda samples, target: {"reverse_kl": float(samples.mean())})


@pytest.fixture
def shown(make_trainer):
    """A trainer at step 3 whose picture and row are made, its log, and the picture's path."""
    trainer = make_trainer()
    trainer.directory.mkdir(parents=True)
    for _ in range(3):
        trainer.loop.iterate()
    log = RunLog(trainer.directory, "tiny", 3, 10)
    trainer.outputs.at_interval(log)
    yield trainer, log, trainer.directory / "samples" / "00000003.png"
    log.close()


def rows(trainer) -> list[int]:
    return [json.loads(line)["step"] for line in (trainer.directory / "metrics.jsonl").read_text().splitlines()]


def test_what_is_there_is_left_alone(shown):
    trainer, log, path = shown
    before = path.stat()
    trainer.outputs.make_up(log)
    after = path.stat()  # not compared whole: to read the picture sets its time of access
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert rows(trainer) == [3]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-3000]),
        lambda path: Image.new("RGB", (4, 4)).save(path, format="GIF"),
    ],
)
def test_a_picture_that_is_missing_or_partial_is_made_again(shown, spoil):
    trainer, log, path = shown
    whole, before = path.read_bytes(), torch.get_rng_state()
    spoil(path)
    trainer.outputs.make_up(log)
    assert path.read_bytes() == whole
    assert rows(trainer) == [3]  # the row was there
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_row_is_made_up_and_comes_once(shown):
    trainer, log, _path = shown
    log.close()
    row = (trainer.directory / "metrics.jsonl").read_text()
    (trainer.directory / "metrics.jsonl").write_text('{"step": 3, "critic/loss": 1.0}\n')
    again = RunLog(trainer.directory, "tiny", 3, 10)
    trainer.outputs.make_up(again)
    trainer.outputs.make_up(again)
    again.close()
    assert (trainer.directory / "metrics.jsonl").read_text() == '{"step": 3, "critic/loss": 1.0}\n' + row


def test_images_have_no_row_to_make_up(shown, monkeypatch):
    trainer, log, path = shown
    drawn: list[int] = []
    monkeypatch.setattr(trainer.source.data, "target", None)
    monkeypatch.setattr(trainer.outputs, "at_interval", lambda log: drawn.append(trainer.loop.step))
    log._kinds.clear()
    trainer.outputs.make_up(log)
    assert drawn == []
    path.unlink()
    trainer.outputs.make_up(log)
    assert drawn == [3]


def test_the_final_row_is_not_doubled_by_a_second_ending(make_trainer):
    trainer = make_trainer(log_every=10)
    trainer.run("")
    again = make_trainer(log_every=10)
    again.run("")
    assert rows(trainer) == [10, 10]  # losses and metrics


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_every_seed_of_64_bits_has_a_noise_of_its_own(make_trainer, seed):
    trainer = make_trainer(seed=seed)
    samples = trainer.outputs.samples(5)
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed((seed + 1) % 2**64))
    with trainer.loop.sampling() as game:
        assert torch.equal(samples, game.players["generator"](noise))


def test_a_resumed_run_makes_up_the_interval_in_which_it_was_killed(make_trainer, monkeypatch):
    settings = {"iterations": 8, "sample_every": 4, "checkpoint_every": 4}
    killed = make_trainer(**settings)

    def die(log):
        raise KeyboardInterrupt

    monkeypatch.setattr(killed.outputs, "at_interval", die)
    with pytest.raises(KeyboardInterrupt):
        killed.run("")
    resumed = make_trainer(**settings)
    resumed.resume()
    resumed.run("")
    whole = make_trainer("whole", **settings)
    whole.run("")
    for name in ("samples/00000004.png", "samples.png"):
        assert (resumed.directory / name).read_bytes() == (whole.directory / name).read_bytes()

    def measured(trainer):
        return [row for row in read_rows(trainer.directory / "metrics.jsonl") if "metrics/reverse_kl" in row]

    assert measured(resumed) == measured(whole)
    assert [row["step"] for row in measured(resumed)] == [4, 8]


def test_reconstructions_that_are_not_finite_are_a_failure_of_training(make_trainer, monkeypatch):
    """The export is there by then, and the message names the last checkpoint."""
    trainer = make_trainer()
    images = ImageSet("few", torch.zeros(9, 1, 4, 4, dtype=torch.uint8), seed=0)
    monkeypatch.setattr(trainer.outputs, "_data", images)
    monkeypatch.setattr(trainer.outputs, "_show", lambda log, path: write_picture(path))
    trainer.loop.game.reconstruct = lambda real: real * torch.nan
    with pytest.raises(
        TrainingError, match=r"^train: the reconstructions at step 10 are not finite; .*step_00000010.pt$"
    ):
        trainer.run("")
    assert (trainer.directory / "export" / "config.json").exists()


def write_picture(path) -> dict[str, float]:
    Image.new("RGB", (4, 4)).save(path)
    return {}


class Swapper(TinyGame):
    """Images of 8 x 8; shows its real images, and what it makes of them: their negatives."""

    def sample(self, noise):
        return noise[:, :1, None, None].tanh().expand(-1, 1, 8, 8)

    def pictures(self, real, noise):
        return {"negatives": (real, -real)}


@pytest.fixture
def shows_pairs(make_trainer):
    """A trainer of Swapper on images, and its log."""
    trainer = make_trainer()
    trainer.directory.mkdir(parents=True)
    images = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).expand(40, 1, 8, 8).contiguous()
    trainer.outputs._data, trainer.loop.game = ImageSet("few", images, seed=0), Swapper()
    log = RunLog(trainer.directory, "tiny", 0, 10)
    log.row(0, {"critic/loss": 1.0})
    yield trainer, log
    log.close()


def test_pairs_are_drawn_at_intervals_and_at_the_end(shows_pairs):
    trainer, log = shows_pairs
    trainer.outputs.at_interval(log)
    trainer.outputs.final(log, 1.0)
    at_interval, at_end = (
        trainer.directory / "pictures" / "negatives" / "00000000.png",
        trainer.directory / "negatives.png",
    )
    assert at_interval.read_bytes() == at_end.read_bytes()
    side, first = 512 // 8 + 2, trainer.outputs._data.preview(32)
    with Image.open(at_end) as picture:
        assert picture.size == (8 * side + 2, 8 * side + 2)
        for row, column, value in ((0, 3, first[3]), (1, 3, -first[3]), (6, 7, first[31]), (7, 7, -first[31])):
            shown = picture.getpixel((column * side + 10, row * side + 10))[0]
            assert shown == round((value.flatten()[0].item() + 1) * 127.5)


def test_the_end_leaves_what_the_report_is_made_from(shows_pairs):
    trainer, log = shows_pairs
    trainer.outputs.final(log, 1.0)
    found = json.loads((trainer.directory / "figures.json").read_text())
    assert (found["step"], found["seconds"], found["metrics"]) == (0, 1.0, {})
    assert len(found["neighbours"]["pixels"]["samples"]) == 256
    report = (trainer.directory / "report.html").read_text()
    for name in ("samples", "negatives", "interpolations", "neighbours-pixels"):
        assert (trainer.directory / f"{name}.png").exists()
    assert report.count("<img ") == 4


def test_a_pair_that_is_not_finite_is_a_failure_of_training(shows_pairs):
    trainer, log = shows_pairs
    trainer.loop.game.pictures = lambda real, noise: {"negatives": (real, real * torch.nan)}
    with pytest.raises(TrainingError, match=r"^train: the negatives at step 0 are not finite$"):
        trainer.outputs.at_interval(log)


def test_the_report_of_a_run_that_goes_on_is_written_from_time_to_time(shown, monkeypatch):
    trainer, log, _ = shown
    report = trainer.directory / "report.html"
    assert not report.exists()
    trainer.outputs._reported -= outputs.REPORT_SECONDS
    trainer.outputs.at_interval(log)
    assert "3 of 10 iterations, not ended" in report.read_text()
    report.unlink()
    trainer.outputs.at_interval(log)
    assert not report.exists()


@pytest.mark.parametrize("lost", ["report.html", "figures.json"])
def test_a_run_has_ended_when_the_last_of_its_outputs_is_there(make_trainer, lost):
    """A report alone is no sign: it is written while the run goes on, too."""
    trainer = make_trainer()
    trainer.run("")
    assert trainer.ended()
    (trainer.directory / lost).unlink()
    assert not trainer.ended()
