"""The log of a run: rows, durations, and what a plain terminal shows."""

from __future__ import annotations

import json

import pytest

from train.log import RunLog, duration, read_rows


def test_rows_are_json_without_nan_and_those_past_the_step_go(tmp_path):
    log = RunLog(tmp_path, "tiny", 0, 10)
    for step in (2, 4, 6):
        log.row(step, {"critic/loss": float("inf") if step == 4 else step / 2})
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 8, "critic/l')  # a crash in mid-line
    RunLog(tmp_path, "tiny", 4, 10).close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 2, "critic/loss": 1.0},
        {"step": 4, "critic/loss": None},
    ]
    assert read_rows(path)[1]["critic/loss"] is None


def test_the_plain_line_tells_speed_and_time_left(tmp_path, capsys):
    log = RunLog(tmp_path, "tiny", 100, 400)
    log.row(300, {"critic/loss": 0.25, "generator/loss": -1.5, "generator/score": 3.0})
    log.tick(200, 1.0)
    assert capsys.readouterr().out == ""  # not yet
    log._printed = (log._printed[0] - 60, 100, 0.0)
    log.tick(300, 4.0)  # 200 iterations in 4 seconds of training: 50 a second, 100 left
    assert capsys.readouterr().out == "tiny  300/400  75%  50 it/s  2 s left  critic 0.25  generator -1.5\n"
    log.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
