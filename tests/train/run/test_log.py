"""The log of a run: rows, durations, and what a plain terminal shows."""

from __future__ import annotations

import json
import os
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.errors import ResourceError
from train.run import files
from train.run.log import RunLog, duration, read_history, read_rows


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


ROWS = [{"step": 2, "critic/loss": 1.0}, {"step": 4, "metrics/modes": 8}, {"step": 6, "critic/loss": None}]
DAMAGED = [
    b'{"step": 3, "critic/l',
    b"3",
    b"null",
    b'{"critic/loss": 1.0}',
    b'{"step": "4"}',
    b'{"step": true}',
    b'{"step": 4.0}',
    b'{"step": -1}',
    b'{"step": 4, "critic/loss": "high"}',
    b'{"step": 4, "critic/loss": [1.0]}',
    b'{"step": 4, "\xff\xfe": 1.0}',
    b"[" * 100_000,
    b'{"step": ' + b"1" * 5000 + b"}",
    bytes(64),
]


def lines(*items) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in items)


@pytest.mark.parametrize("damage", DAMAGED, ids=lambda damage: repr(damage[:30]))
def test_rows_after_a_damaged_line_stay_and_the_line_is_named(tmp_path, capsys, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(ROWS[0], damage, *ROWS[1:]))
    assert read_history(path) == ROWS
    assert capsys.readouterr().err == f"warning: {path}: line 2 is damaged and left out\n"
    RunLog(tmp_path, "tiny", 6, 10).close()
    assert path.read_bytes() == lines(*ROWS)
    assert capsys.readouterr().err == f"warning: {path}: line 2 is damaged and left out\n"
    RunLog(tmp_path, "tiny", 6, 10).close()
    assert capsys.readouterr().err == ""  # it is gone


def test_many_damaged_lines_are_one_warning(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(*[b"x"] * 4, ROWS[0], *[b"x"] * 4))
    warnings: list[str] = []
    assert read_history(path, warnings.append) == ROWS[:1]
    assert warnings == [f"{path}: lines 1, 2, 3, 4, 6 and 3 more are damaged and left out"]


def test_other_files_of_rows_need_no_step(tmp_path):
    path = tmp_path / "rates.jsonl"
    path.write_bytes(lines({"d": 2, "w1": [1.0]}, b"3", {"d": 3, "name": "x"}))
    assert read_rows(path, lambda text: None) == [{"d": 2, "w1": [1.0]}, {"d": 3, "name": "x"}]


@pytest.mark.parametrize("last", [b'{"step": 4, "criti', b'{"step": 4, "critic/loss": 1.0}'])
def test_a_last_line_without_its_end_does_not_swallow_the_next_row(tmp_path, last):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(ROWS[0]) + last)
    log = RunLog(tmp_path, "tiny", 4, 10)
    log.row(5, {"critic/loss": 2.0})
    log.close()
    kept = [{"step": 4, "critic/loss": 1.0}] if last.endswith(b"}") else []
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        ROWS[0],
        *kept,
        {"step": 5, "critic/loss": 2.0},
    ]


def test_rows_that_all_stay_are_not_written_again(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    odd = b'{ "step": 2,  "critic/loss": 1.50 }'  # not as json.dumps has it
    path.write_bytes(lines(odd, *ROWS[1:]))
    monkeypatch.setattr("train.run.log.write_atomically", lambda *arguments: pytest.fail("rewritten"))
    RunLog(tmp_path, "tiny", 6, 10).close()
    monkeypatch.undo()
    RunLog(tmp_path, "tiny", 2, 10).close()
    assert path.read_bytes() == lines(odd)


def test_a_kill_while_rows_are_dropped_loses_none(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(*ROWS))

    def killed(temporary):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_sync", killed)
    with pytest.raises(KeyboardInterrupt):
        RunLog(tmp_path, "tiny", 2, 10)
    assert path.read_bytes() == lines(*ROWS)


def test_the_log_knows_which_steps_were_measured(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(lines(*ROWS))
    log = RunLog(tmp_path, "tiny", 6, 10)
    assert [step for step in range(10) if log.has(step, "metrics")] == [4]
    log.row(8, {"metrics/modes": 7.0})
    log.row(9, {"critic/loss": 7.0})
    assert [step for step in range(10) if log.has(step, "metrics")] == [4, 8]
    log.close()


def test_what_is_said_is_shown_as_text(tmp_path, capsys):
    log = RunLog(tmp_path, "tiny", 0, 10)
    log.say("samples a\x1b[31m\udcff.png\nlosses  b.png")
    log.close()
    assert capsys.readouterr().out == "samples a\\x1b[31m\\udcff.png\nlosses  b.png\n"


def scalars(folder, name) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def test_tensorboard_reads_each_step_once_after_a_kill_and_a_resume(tmp_path):
    killed = RunLog(tmp_path, "tiny", 0, 10)
    for step in (2, 4, 6):
        killed.row(step, {"critic/loss": float(step)})  # on disk at once: nothing is closed
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-5])  # the last record is cut short
    assert scalars(tmp_path / "tensorboard", "critic/loss") == [(2, 2.0), (4, 4.0)]
    time.sleep(0.01)
    resumed = RunLog(tmp_path, "tiny", 2, 10)
    resumed.row(4, {"critic/loss": 40.0})
    resumed.close()
    killed.close()
    assert scalars(tmp_path / "tensorboard", "critic/loss") == [(2, 2.0), (4, 40.0)]


def test_tensorboard_has_every_row_after_a_kill_between_metrics_and_events(tmp_path, monkeypatch):
    killed = RunLog(tmp_path, "tiny", 0, 10)
    killed.row(4, {"critic/loss": 4.0})

    def die(step, values):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # after the checkpoint of step 4
        patch.setattr(killed._events, "row", die)
        with pytest.raises(KeyboardInterrupt):
            killed.row(4, {"metrics/modes": 8.0, "metrics/kl": float("inf")})
    time.sleep(0.01)
    for _ in range(2):  # killed once more before the next row
        resumed = RunLog(tmp_path, "tiny", 4, 10)
        time.sleep(0.01)
    resumed.row(5, {"critic/loss": 5.0})
    assert scalars(tmp_path / "tensorboard", "critic/loss") == [(4, 4.0), (5, 5.0)]
    assert scalars(tmp_path / "tensorboard", "metrics/modes") == [(4, 8.0)]
    assert len(scalars(tmp_path / "tensorboard", "metrics/kl")) == 1


def test_events_after_the_clock_was_set_back_are_read_last(tmp_path, monkeypatch):
    for step, now in ((2, 2_000_000_000), (4, 1_900_000_000)):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now * 10**9)
        log = RunLog(tmp_path, "tiny", step, 10)
        log.row(5, {"critic/loss": float(step)})
        log.close()
    assert scalars(tmp_path / "tensorboard", "critic/loss") == [(5, 4.0)]


def test_all_files_are_closed_although_one_cannot_be(tmp_path, monkeypatch):
    log = RunLog(tmp_path, "tiny", 0, 10)

    def refuse():
        raise BrokenPipeError

    monkeypatch.setattr(log, "end_progress", refuse)
    with pytest.raises(BrokenPipeError):
        log.close()
    assert log._file.closed
    assert log._events._records.closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_tensorboard_ends_the_run_like_one_under_the_rows(tmp_path):
    log = RunLog(tmp_path, "tiny", 0, 10)
    log._events._records._writer = open("/dev/full", "ab")  # noqa: SIM115
    with pytest.raises(ResourceError, match=r"tensorboard/events\S* was not written: no space is left on the disk; "):
        log.row(1, {"critic/loss": 1.0})
    log.close()  # tries to write once more, which is no second error


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_rows_names_the_file(tmp_path):
    log = RunLog(tmp_path, "tiny", 0, 10)
    log._file = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(ResourceError, match=r"metrics\.jsonl was not written: no space is left on the disk; "):
        log.row(1, {"critic/loss": 1.0})
    log.close()
    assert log._file.closed
