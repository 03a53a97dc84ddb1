"""The one script for a machine with a GPU: steps, limits, what a failing step leaves, the table at the end."""

from __future__ import annotations

import json
import sys
import time

import pytest

from benchmarks import on_gpu, sanitize
from tests.benchmarks.gpu_actors import MACHINE, row

PYTHON = sys.executable


@pytest.fixture
def log(tmp_path):
    return on_gpu.Log(tmp_path / "on_gpu.log")


def test_a_step_passes_fails_and_leaves_its_output(log):
    passed = log.run("one", (PYTHON, "-c", "import os; print('said', os.environ['GIVEN'])"), 30, GIVEN="this")
    failed = log.run("two", (PYTHON, "-c", "print('a'); raise SystemExit(3)"), 30)
    assert (passed.result, passed.remark, passed.ok) == ("passed", "said this", True)
    assert (failed.result, failed.remark, failed.ok) == ("failed", "a", False)
    text = log.path.read_text()
    assert text.index("==== one") < text.index("said this") < text.index("==== two")


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_step_that_hangs_is_stopped_with_all_that_it_started(log, stubborn, monkeypatch, tmp_path):
    monkeypatch.setattr(on_gpu, "MERCY", 0.3)
    mark = tmp_path / "still here"
    inner = f"import pathlib, time; time.sleep(3); pathlib.Path({str(mark)!r}).touch()"
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    body = f"import signal, subprocess, sys, time; {ignore} subprocess.Popen([sys.executable, '-c', {inner!r}]); "
    start = time.monotonic()
    outcome = log.run("hanging", (PYTHON, "-c", body + "print('began', flush=True); time.sleep(60)"), 1.0)
    assert (outcome.result, outcome.remark, outcome.ok) == ("out of time", "began", False)
    assert time.monotonic() - start < 8
    time.sleep(2)
    assert not mark.exists()


class PretendLog(on_gpu.Log):
    """Notes the steps; `results` say how they end."""

    def __init__(self, path, results):
        super().__init__(path, clock=lambda: self.now)
        self.now, self.results, self.ran = 0.0, results, []

    def run(self, step, command, limit, **environment):
        self.ran.append((step, command, limit, environment))
        self.now += 20.0
        result = self.results.get(step, "passed")
        return on_gpu.Outcome(step, result, 20.0, "the last line")


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "find_sanitizer", lambda: "compute-sanitizer")
    monkeypatch.setattr(on_gpu, "cmake_arguments", lambda: "-DCMAKE_CUDA_ARCHITECTURES=90a-real")

    def make(**results):
        made = PretendLog(tmp_path / "on_gpu.log", results)
        monkeypatch.setattr(on_gpu, "Log", lambda path: made)
        return made

    return make


def test_a_step_that_fails_does_not_stop_the_later_ones(pretend, tmp_path, capsys):
    log = pretend(build="failed", memcheck="out of time")
    assert on_gpu.main(["--output", str(tmp_path)]) == 1
    assert [step for step, *_ in log.ran] == ["build", "test", "memcheck", "synccheck", "racecheck", "benchmarks"]
    lines = capsys.readouterr().out.splitlines()
    assert "build       failed           20 s  the last line" in lines
    assert "benchmarks  passed           20 s  the last line" in lines


def test_all_steps_passed_is_zero_and_the_benchmarks_get_the_time_that_is_left(pretend, tmp_path):
    log = pretend()
    assert on_gpu.main(["--minutes", "9.5", "--output", str(tmp_path)]) == 0
    _, command, limit, _ = log.ran[-1]
    left = 570 - 5 * 20 - on_gpu.MERCY
    assert limit == left
    minutes = float(command[command.index("--minutes") + 1])
    assert minutes == pytest.approx((left - on_gpu.START) / 60, abs=0.01)
    assert log.ran[0][3] == {"OTKERNELS_CUDA": "1", "OTKERNELS_CMAKE_ARGS": "-DCMAKE_CUDA_ARCHITECTURES=90a-real"}
    assert sum(step_limit for _, _, step_limit, _ in log.ran[:5]) < 570 - 120  # two minutes of benchmarks at worst


def test_without_the_sanitizer_its_steps_are_skipped(pretend, tmp_path, monkeypatch, capsys):
    log = pretend()
    monkeypatch.setattr(on_gpu, "find_sanitizer", lambda: None)
    assert on_gpu.main(["--output", str(tmp_path)]) == 0
    assert [step for step, *_ in log.ran] == ["build", "test", "benchmarks"]
    assert "memcheck: skipped, compute-sanitizer was not found" in capsys.readouterr().out


def test_rows_of_killed_benchmarks_are_reported_and_older_ones_left_alone(pretend, tmp_path):
    (tmp_path / "old-cpu.jsonl").write_text("{}\n{}\n")
    log = pretend()
    run = log.run

    def killed(step, command, limit, **environment):
        if step == "benchmarks":
            (tmp_path / "l2_argmin-gpu.jsonl").write_text("{}\n{}\n")
            (tmp_path / "soft_forest-gpu.jsonl").write_text("{}\n")  # no case was finished
        return run(step, command, limit, **environment)

    log.run = killed
    on_gpu.main(["--output", str(tmp_path)])
    assert log.ran[-1][0] == "report"
    assert log.ran[-1][1][-2:] == ("--report", str(tmp_path / "l2_argmin-gpu.jsonl"))


def test_the_targets_stand_last(pretend, tmp_path, capsys):
    pretend()
    target = {"target": "fast", "measured": "0.5x", "met": False}
    whole = {"machine": MACHINE, "targets": [target], "rows": [row("l2_argmin", "a", 1.0)]}
    (tmp_path / "l2_argmin-gpu.json").write_text(json.dumps(whole))
    (tmp_path / "l2_argmin-cpu.json").write_text(json.dumps({"machine": {}, "rows": []}))
    on_gpu.main(["--output", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1] == "NOT met      fast: 0.5x"


@pytest.mark.parametrize(
    ("capability", "flag"), [("9 0", "90a-real"), ("10 0", "100a-real"), ("8 6", "86-real"), ("12 0", "120-real")]
)
def test_the_build_is_for_this_gpu(capability, flag, monkeypatch):
    monkeypatch.delenv("OTKERNELS_CMAKE_ARGS", raising=False)
    monkeypatch.setattr(on_gpu, "CAPABILITY", f"print('{capability}')")
    assert on_gpu.cmake_arguments() == f"-DCMAKE_CUDA_ARCHITECTURES={flag}"
    monkeypatch.setenv("OTKERNELS_CMAKE_ARGS", "-DMINE=1")
    assert on_gpu.cmake_arguments() == "-DMINE=1"


def test_the_sanitizers_script_calls_every_op(capsys):
    assert sanitize.main(["--impl", "cpu", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for op in sanitize.OPS:
        assert f"{op} cpu " in printed
    assert sanitize.main(["--impl", "cpu", "cuda", "--device", "cpu"]) == 1
