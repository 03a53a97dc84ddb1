"""Markdown, units and pictures from rows; the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import options, output, report
from benchmarks.contestants import OURS
from benchmarks.fma_peak import FmaPeak
from benchmarks.plots import plot
from benchmarks.suites import SUITES
from train import provenance

PEAK = {"vector_bits": 512, "threads": {"1": {"median_gflops": 99.6, "max_gflops": 110.2, "samples": 3}}}


def row(contestant: str, **fields: object) -> dict:
    case = {"op": "l2_argmin", "n": 64, "m": 32, "d": 2, "mode": "forward", "device": "cpu", "threads": 1}
    timed = {
        "status": "ok", "error": 1.5e-7, "median_s": 2e-3, "first_quartile_s": 1.5e-3, "third_quartile_s": 2.5e-3,
        "ratio_to_ours": 1.0, "gflops": 50.0, "peak_share": 0.5, "extra_bytes": 3 << 20,
    }  # fmt: skip
    return case | {"contestant": contestant} | timed | fields


WRONG = {"status": "wrong", "error": 0.25, "median_s": None, "ratio_to_ours": None, "gflops": None, "peak_share": None}


def test_a_row_shows_times_ratio_speed_memory_and_error():
    lines = report.table(SUITES["l2_argmin"], [row("cdist", ratio_to_ours=2.345)]).splitlines()
    cells = "1 | 64 x 32 x 2 | cdist | 2 ms | 1.5 ms .. 2.5 ms | 2.35x | 50.0 | 50 % | 3.0 MiB | 1.5e-07"
    assert lines[2] == f"| {cells} |"
    assert len({line.count("|") for line in lines}) == 1


def test_a_wrong_contestant_shows_its_error_and_no_time():
    line = report.table(SUITES["l2_argmin"], [row("hasty", **WRONG)]).splitlines()[2]
    assert line == "| 1 | 64 x 32 x 2 | hasty | wrong: not timed | - | - | - | - | 3.0 MiB | 2.5e-01 |"


def test_a_reason_cannot_break_the_table():
    failed = row("absent", status="failed", reason="no a|b", error=None, gflops=None, peak_share=None)
    lines = report.table(SUITES["l2_argmin"], [failed]).splitlines()
    assert lines[2].count("|") == lines[0].count("|")


@pytest.mark.parametrize(
    ("value", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (1e-3, "1 ms"), (4.56e-5, "45.6 us"), (7e-8, "70 ns")]
)
def test_times_have_three_digits_and_a_unit(value, text):
    assert report.seconds(value) == text


def test_the_document_carries_hardware_versions_commit_date_and_command():
    machine = provenance.describe("python -m benchmarks --quick") | {"fma_peak": PEAK}
    text = report.document(SUITES["l2_argmin"], [row(OURS)], machine, [], [])
    for fact in ("cpu", "isa", "torch", "commit", "date", "command"):
        assert str(machine[fact]) in text
    assert "100 (median) and 110 (largest) GFLOP/s on 1 thread." in text
    assert str(Path.cwd()) not in text


def test_rows_of_a_run_that_was_killed_on_the_cpu_make_a_report_without_its_peak(tmp_path):
    path, suite = tmp_path / "l2_argmin-cpu.jsonl", SUITES["l2_argmin"]
    output.Rows(path, suite, suite.quick, provenance.describe("python -m benchmarks")).write(row(OURS))
    output.write_report(path)
    assert "FMA peak not measured: the run did not come to its end." in path.with_suffix(".md").read_text()


def test_facts_that_come_late_are_of_the_machine(tmp_path):
    path, suite = tmp_path / "l2_argmin-cpu.jsonl", SUITES["l2_argmin"]
    with output.Rows(path, suite, suite.quick, provenance.describe("python -m benchmarks")) as rows:
        rows.write(row(OURS))
        rows.note(fma_peak=PEAK)
    assert output.read(path)[1]["fma_peak"] == PEAK


def test_a_skipped_peak_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    peak = FmaPeak(tmp_path)
    assert peak.sample(1) is None
    assert report.peak_sentence(peak.summary()) == "FMA peak not measured: no C++ compiler."


def test_the_picture_leaves_out_what_was_not_timed(tmp_path):
    rows = [row(OURS), row("cdist", ratio_to_ours=3.0), row("hasty", **WRONG)]
    plot(rows, {"cpu": "a processor", "date": "today"}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_recorded_command_repeats_the_run_without_its_paths(tmp_path):
    parsed = options.parse(["--device", "cpu", "--ops", "l2_argmin", "--threads", "1,2", "--output", str(tmp_path)])
    assert parsed.command == "python -m benchmarks --device cpu --ops l2_argmin --threads 1,2"
    assert options.parse(parsed.command.split()[3:]).threads == (1, 2)


@pytest.mark.parametrize(
    "argv",
    [["--ops", "nearest"], ["--threads", "0"], ["--threads", "two"], ["--minutes", "0"], ["--report", "none.jsonl"]],
)
def test_a_wrong_option_is_one_clear_error(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        options.parse(argv)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err
