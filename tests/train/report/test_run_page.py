"""The report of a run: a section for what its directory holds, whatever that is."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from tests.train.report.runs import images, write_pictures, write_run, write_scores
from train.__main__ import main
from train.report import pictures as module
from train.report import plots
from train.report.pictures import chosen, frames
from train.report.record import read_record
from train.report.run_page import run_page, write_run_report


def page(directory) -> str:
    return run_page(read_record(directory, "test")).html()


def headings(text: str) -> list[str]:
    return re.findall(r"<h[23]>(.*?)</h[23]>", text)


def titles(text: str) -> list[str]:
    return [chart["title"] for chart in data(text)]


def data(text: str) -> list[dict]:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])["charts"]


def test_a_run_on_points(tmp_path):
    text = page(write_run(tmp_path / "run"))
    assert "<h1>potgan on ring8</h1>" in text
    assert "800 of 800 iterations, not ended; 16 s of training on cpu; seed 0" in text
    assert headings(text) == ["Curves", "Figures of the samples", "Losses", "Settings"]
    assert titles(text) == ["Reverse KL (nats)", "critic: loss"]
    assert "<dt>Reverse KL (nats)</dt><dd>0.2085 <small>true samples: 0.006</small></dd>" in text
    assert "At iteration 800, measured with n 10000." in text


def test_a_run_on_images(tmp_path):
    run = write_pictures(write_scores(write_run(tmp_path / "run"), {200: 90.0, 400: 50.0, 800: 60.0}), [200, 400], 800)
    text = page(run)
    expected = ["Curves", "Figures of the samples", "Losses", "Pictures", "Samples", "Moved", "Interpolations"]
    assert headings(text) == [*expected, "Nearest training images", "In pixels", "Settings"]
    assert titles(text)[:2] == ["FID[efficientnet-lite2]", "KID[efficientnet-lite2]"]
    assert "<dd>60 <small>best 50 at 400</small></dd>" in text
    assert re.findall(r'data-when="([^"]+)"', text) == ["200", "400", "800"] * 2
    assert "At iteration 800, measured with extractor efficientnet-lite2, n 5000." in text
    assert f"<td>fingerprint</td><td>{'cd' * 32}</td>" in text
    # Of 64 samples at 10, 10.125, ... 16 are below 12, the nearest hundredth of the training images.
    assert "16 of 64 samples are nearer to a training image than 99 % of the training images are to another one" in text
    assert "Searched: 500 training images." in text


def test_errors_are_a_band_and_terms_that_are_the_loss_are_shown_once(tmp_path):
    run = write_run(tmp_path / "run", steps=0)
    rows = [
        {"step": i, "seconds": i, "forest/loss": 2.0 * i, "forest/transport": 2.0 * i, "forest/used": 0.5}
        for i in (1, 2)
    ]
    rows += [{"step": 2, "metrics/reverse_kl": 1.0, "metrics/reverse_kl_error": 0.25}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = page(run)
    charts = {chart["title"]: chart["lines"][0] for chart in data(text)}
    assert list(charts) == ["Reverse KL (nats)", "forest: loss", "forest: used"]
    assert (charts["Reverse KL (nats)"]["low"], charts["Reverse KL (nats)"]["high"]) == ([0.75], [1.25])
    assert "the share of generated samples with a pair" in text
    assert "<dd>1.00 ± 0.25</dd>" in text


def test_an_empty_run_has_a_page(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    text = page(run)
    assert "0 of 800 iterations, not ended" in text
    assert headings(text) == ["Settings"]


def test_a_game_that_is_not_known_here_has_a_page(tmp_path):
    assert "<h1>new-game on ring8</h1>" in page(write_run(tmp_path / "run", "new-game"))


def test_a_phase_with_a_report_is_linked(tmp_path):
    run = write_run(tmp_path / "run")
    write_run_report(read_record(write_run(run / "vae", "vae"), "test"))
    assert '<a href="vae/report.html">The report of the phase vae</a>' in page(run)


def test_the_command_writes_the_page_of_each_run_or_of_none(tmp_path, capsys):
    runs = [write_run(tmp_path / str(i)) for i in range(2)]
    with pytest.raises(ValueError, match=r"^report: .*nothing is no run directory: it has no config\.json$"):
        main(["report", str(runs[0]), str(tmp_path / "nothing")])
    assert not (runs[0] / "report.html").exists()
    main(["report", *map(str, runs)])
    assert capsys.readouterr().out.split() == ["report", f"{runs[0]}/report.html", "report", f"{runs[1]}/report.html"]
    assert "<h1>potgan on ring8</h1>" in (runs[1] / "report.html").read_text()
    with pytest.raises(ValueError, match=r"^report: which run\? give its directory$"):
        main(["report"])


def test_frames_are_few_and_equal_or_damaged_ones_are_left_out(tmp_path):
    pictures = {}
    for step in range(50):
        pictures[step] = tmp_path / f"{step}.png"
        Image.new("RGB", (4, 4), ("red", "blue")[step // 25]).save(pictures[step])
    assert [frame.when for frame in frames(pictures, "a")] == ["0", "26"]
    pictures[0].write_bytes(pictures[0].read_bytes()[:40])
    assert [frame.when for frame in frames(pictures, "a")] == ["3", "26"]


@pytest.mark.parametrize(
    ("n", "most", "expected"), [(3, 20, [0, 1, 2]), (21, 3, [0, 10, 20]), (100, 4, [0, 33, 66, 99])]
)
def test_chosen_steps_are_evenly_spaced_with_both_ends(n, most, expected):
    assert chosen(list(range(n)), most) == expected


def test_a_slider_of_large_pictures_has_fewer_frames(tmp_path, monkeypatch):
    pictures = {step: tmp_path / f"{step}.png" for step in range(9)}
    for step, path in pictures.items():
        plots.image_grid(images(4, step), path)
    monkeypatch.setattr(module, "MOST_BYTES", sum(len(frame.uri) for frame in frames(pictures, "a")) * 5 // 9 + 1)
    assert [frame.when for frame in frames(pictures, "a")] == ["0", "2", "4", "6", "8"]
