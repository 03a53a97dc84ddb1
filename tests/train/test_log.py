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


def test_damaged_lines_are_named_once_and_all_good_rows_kept(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    bad = ["not json", "[1]", '{"loss": 1.0}', '{"step": "x"}', '{"step": 3, "loss": "high"}', "[" * 100_000, "7"]
    lines = ['{"step": 1, "a/loss": 0.5}', *bad, '{"step": 2, "a/loss": null}', '{"step": 9, "a/loss": 1.0}']
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe{}")
    RunLog(tmp_path, "tiny", 2, 10).close()
    assert "is damaged in line 2, 3, 4, 5, 6 and 3 more; the other rows are kept" in capsys.readouterr().out
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    RunLog(tmp_path, "tiny", 2, 10).close()
    assert "damaged" not in capsys.readouterr().out


def test_a_history_that_is_whole_is_not_written_again(tmp_path):
    log = RunLog(tmp_path, "tiny", 0, 10)
    log.row(1, {"a/loss": 1.0})
    log.close()
    path = tmp_path / "metrics.jsonl"
    before = path.stat()
    RunLog(tmp_path, "tiny", 1, 10).close()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_kill_while_rows_are_dropped_leaves_the_old_file(tmp_path, monkeypatch):
    log = RunLog(tmp_path, "tiny", 0, 10)
    for step in range(1, 9):
        log.row(step, {"a/loss": 1.0})
    log.close()
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes()

    def killed(self, target):
        assert len(path.read_bytes()) == len(before)  # never empty on the way
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        RunLog(tmp_path, "tiny", 4, 10)
    assert path.read_bytes() == before


def test_a_last_line_without_its_end_does_not_swallow_the_next_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a/loss": 1.0}')
    log = RunLog(tmp_path, "tiny", 1, 10)
    log.row(2, {"a/loss": 2.0})
    log.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_it_knows_where_samples_were_measured(tmp_path):
    log = RunLog(tmp_path, "tiny", 0, 10)
    log.row(2, {"metrics/reverse_kl": 1.0})
    log.row(4, {"a/loss": 1.0})
    assert (log.measured(2), log.measured(4)) == (True, False)
    log.close()
    log = RunLog(tmp_path, "tiny", 4, 10)
    assert (log.measured(2), log.measured(4)) == (True, False)
    log.close()
