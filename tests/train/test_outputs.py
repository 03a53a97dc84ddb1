"""What a kill left out of a run's pictures and rows is made when the run is resumed."""

from __future__ import annotations

import pytest
from PIL import Image

from train import metrics
from train.log import read_rows


@pytest.fixture(autouse=True)
def cheap_metrics(monkeypatch):
    monkeypatch.setattr(metrics, "toy_metrics", lambda samples, target: {"reverse_kl": float(samples.mean())})


def killed_between_checkpoint_and_picture(make_trainer, monkeypatch, how):
    """A run of 8 iterations that dies in the interval of iteration 4."""
    trainer = make_trainer(iterations=8, sample_every=4, checkpoint_every=4, log_every=4)
    show = trainer.outputs.at_interval

    def die(log):
        if how != "before the picture":
            show(log)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.outputs, "at_interval", die)
    with pytest.raises(KeyboardInterrupt):
        trainer.run("")
    return trainer.directory


@pytest.mark.parametrize("how", ["before the picture", "empty picture", "cut picture", "no row", "after both"])
def test_a_resume_makes_the_picture_and_the_row_once(make_trainer, monkeypatch, how):
    directory = killed_between_checkpoint_and_picture(make_trainer, monkeypatch, how)
    picture, rows = directory / "samples" / "00000004.png", directory / "metrics.jsonl"
    if how == "empty picture":
        picture.write_bytes(b"")
    if how == "cut picture":
        picture.write_bytes(picture.read_bytes()[:200])
    if how == "no row":
        rows.write_text("".join(line for line in rows.open() if "metrics/" not in line))
    resumed = make_trainer(iterations=8, sample_every=4, checkpoint_every=4, log_every=4)
    resumed.resume()
    resumed.run("")
    with Image.open(picture) as image:
        image.load()
    assert [row["step"] for row in read_rows(rows) if "metrics/reverse_kl" in row] == [4, 8]
    assert [row["step"] for row in read_rows(rows) if "critic/loss" in row] == [4, 8]


def test_the_made_up_row_is_what_the_run_would_have_written(make_trainer, monkeypatch):
    whole = make_trainer("whole", iterations=8, sample_every=4, checkpoint_every=4)
    whole.run("")
    directory = killed_between_checkpoint_and_picture(make_trainer, monkeypatch, "before the picture")
    resumed = make_trainer(iterations=8, sample_every=4, checkpoint_every=4)
    resumed.resume()
    resumed.run("")

    def measured(folder):
        return [row for row in read_rows(folder / "metrics.jsonl") if "metrics/reverse_kl" in row]

    assert measured(directory) == measured(whole.directory)
    picture = "samples/00000004.png"
    assert (directory / picture).read_bytes() == (whole.directory / picture).read_bytes()
