"""Reading a run directory, whatever is in it."""

from __future__ import annotations

import json

import pytest

from tests.train.report.runs import PROTOCOL, write_pictures, write_run, write_scores
from train.report.record import read_record


def test_a_run_on_points(tmp_path):
    run = read_record(write_run(tmp_path / "run", steps=3), "test")
    assert (run.game, run.data, run.step, run.iterations, run.seconds, run.ended) == (
        "potgan",
        "ring8",
        300,
        300,
        6,
        False,
    )
    rows = run.measured()
    assert [(row["step"], row["seconds"], row["n"]) for row in rows] == [
        (100, 2, 10000),
        (200, 4, 10000),
        (300, 6, 10000),
    ]
    assert run.protocol == {}


def test_scores_take_the_place_of_figures_of_points(tmp_path):
    run = read_record(write_scores(write_run(tmp_path / "run"), {400: 30.0, 200: 40.0}), "test")
    assert run.measured() == [
        {"step": 200, "seconds": 4, "fid": 40.0, "kid": 0.004},
        {"step": 400, "seconds": 8, "fid": 30.0, "kid": 0.003},
    ]
    assert run.protocol == PROTOCOL


def test_a_run_has_ended_when_its_last_outputs_are_there(tmp_path):
    directory = write_pictures(write_run(tmp_path / "run"), [400], 800)
    assert read_record(directory, "test").ended
    config = json.loads((directory / "config.json").read_text())
    config["config"]["iterations"] = 900  # resumed, to go on
    (directory / "config.json").write_text(json.dumps(config))
    assert not read_record(directory, "test").ended


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"name": "folder", "path": "/a/b.tar"}, "b.tar"),
        ({"name": "cifar10", "path": "/a"}, "cifar10"),
        ({}, "unknown data"),
    ],
)
def test_a_folder_of_images_is_called_by_its_own_name(tmp_path, data, name):
    assert read_record(write_run(tmp_path / "run", data=data), "test").data == name


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "is no run directory: it has no config.json"),
        ("config.json", "{", "config.json is damaged: "),
        ("config.json", "[]", "config.json is damaged: it holds no mapping"),
        ("config.json", '{"game": "gan", "config": {}}', "config.json does not describe a run"),
        ("scores.json", '{"rows": [{"step": "x"}]}', "scores.json must hold a protocol and rows of scores"),
        ("scores.json", '{"rows": [{"step": 1, "fid": "<b>"}]}', "scores.json must hold a protocol and rows of scores"),
        (
            "figures.json",
            '{"step": 1, "pairs": ["../moved"]}',
            "figures.json must hold a step, pairs and distances of neighbours",
        ),
        ("figures.json", "x", "figures.json is damaged: "),
        (
            "figures.json",
            '{"step": 1, "neighbours": []}',
            "figures.json must hold a step, pairs and distances of neighbours",
        ),
        (
            "figures.json",
            '{"step": 1, "neighbours": {"pixels": {"samples": ["x"], "training": [1], "images": 2, "shown": 1}}}',
            "figures.json must hold a step, pairs and distances of neighbours",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, file, content, message):
    directory = write_run(tmp_path / "run")
    if content is None:
        (directory / file).unlink()
    else:
        (directory / file).write_text(content)
    with pytest.raises(ValueError, match=f"^test: .*{message}") as error:
        read_record(directory, "test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [None, [], {"name": "folder", "path": 3}])
def test_a_config_without_a_known_data_set_still_has_a_page(tmp_path, data):
    directory = write_run(tmp_path / "run", data=data)
    assert read_record(directory, "test").data in ("unknown data", "folder")


def test_a_run_that_has_logged_nothing_yet(tmp_path):
    directory = write_run(tmp_path / "run")
    (directory / "metrics.jsonl").unlink()
    run = read_record(directory, "test")
    assert (run.step, run.seconds, run.measured()) == (0, 0, [])
