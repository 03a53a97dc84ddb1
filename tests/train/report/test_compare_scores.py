"""A table of files of scores, whatever they are of, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.train.report.runs import PROTOCOL, write_run
from train.report.compare import compare_main

SCORES = {"inception_score": 2.0, "inception_score_error": 0.04, "fid": 40.25, "kid": 0.1, "coverage": 0.5}


def write(path, samples="some", scores=SCORES, **protocol):
    path.write_text(json.dumps({"samples": samples, "scores": scores, "protocol": {**PROTOCOL, **protocol}}))
    return str(path)


def test_a_row_for_each_file_with_its_errors(tmp_path, capsys):
    a = write(tmp_path / "a.json", "x|y.npz")
    b = write(tmp_path / "b.json", "a run", {"fid": 9.0, "precision": 1.0}, data="another name")
    compare_main([a, b])
    assert capsys.readouterr().out.splitlines() == [
        "|  | FID\\[efficientnet-lite2] ↓ | IS\\[efficientnet-lite2] ↑ | KID\\[efficientnet-lite2] ↓ | Precision ↑ "
        "| Coverage ↑ |",
        "| --- | --- | --- | --- | --- | --- |",
        "| x\\|y.npz | 40.25 | 2.000 ± 0.040 | 0.1 |  | 0.5 |",
        "| a run | 9 |  |  | 1 |  |",
    ]


def test_unlike_protocols_are_refused(tmp_path):
    files = [write(tmp_path / "a.json"), write(tmp_path / "b.json", n=50_000)]
    with pytest.raises(ValueError, match=r"^scores: \S+a.json and \S+b.json cannot be compared: n 5000 and 50000$"):
        compare_main(files)


def test_other_files_are_refused_in_one_line(tmp_path):
    good, other = write(tmp_path / "a.json"), tmp_path / "other.json"
    line = r"^compare: \S+other\.json is no file of scores that evaluate writes: .*$"
    for text in ("", "[]", "{}", "nonsense", '{"samples": 3, "scores": {}, "protocol": {}}'):
        other.write_text(text)
        with pytest.raises(ValueError, match=line) as caught:
            compare_main([good, str(other)])
        assert "\n" not in str(caught.value)
    other.unlink()
    with pytest.raises(ValueError, match=line):
        compare_main([good, str(other)])
    with pytest.raises(ValueError, match=r"^compare: runs or files of scores, not both: \S+a\.json is a file$"):
        compare_main([good, str(write_run(tmp_path / "run"))])
