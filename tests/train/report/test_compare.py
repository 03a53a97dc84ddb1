"""Comparisons: what is one curve, what is refused, and the numbers of the table."""

from __future__ import annotations

import math

import pytest
from PIL import Image

from tests.train.report.runs import PROTOCOL, write_run, write_scores
from train.report.compare import charts, compare_main, grouped
from train.report.compare_outputs import table, write_comparison
from train.report.record import read_record


def read(*directories):
    return [read_record(directory, "test") for directory in directories]


def three(tmp_path, values=(30.0, 36.0, 33.0)):
    """Runs of three seeds whose last FIDs are ``values``, and one of another game."""
    runs = [
        write_scores(
            write_run(tmp_path / f"p{i}", seed=i, threads=i, data={"name": "folder", "path": f"/{i}"}), {800: v}
        )
        for i, v in enumerate(values)
    ]
    return [*runs, write_scores(write_run(tmp_path / "w", "wgan-gp", data={"name": "folder"}), {400: 50.0, 800: 40.0})]


def test_runs_that_differ_by_their_seed_are_one_group_with_mean_and_standard_error(tmp_path):
    groups = grouped(read(*three(tmp_path)))
    assert [(group.label, len(group.runs)) for group in groups] == [("potgan", 3), ("wgan-gp", 1)]
    mean, error = groups[0].at(800, "fid")
    assert (mean, error) == (pytest.approx(33), pytest.approx(3 / math.sqrt(3)))  # deviations -3, 3, 0: s = 3
    head, rows = table(groups, PROTOCOL)
    assert head[:5] == ["", "runs", "iteration", "training", "FID[efficientnet-lite2] ↓"]
    assert [row[:5] for row in rows] == [
        ["potgan", "3 runs", "800", "16 s", "33.0 ± 1.7"],
        ["wgan-gp", "one run", "800", "16 s", "40"],
    ]


def test_a_curve_has_the_steps_that_all_runs_have_and_a_band_of_one_error(tmp_path):
    a = write_scores(write_run(tmp_path / "a", seed=0), {200: 10.0, 400: 8.0, 600: 7.0})
    b = write_scores(write_run(tmp_path / "b", seed=1), {400: 4.0, 600: None, 800: 3.0})
    (chart, _) = charts(grouped(read(a, b)), PROTOCOL)
    (line,) = chart.lines
    assert line.x == {"step": [400], "seconds": [8]}
    assert (line.y, line.low, line.high) == ([6], [4], [8])  # s / sqrt(2) of 8 and 4


def test_a_run_that_goes_on_is_shown_as_far_as_it_is(tmp_path):
    a = write_scores(write_run(tmp_path / "a", seed=0, iterations=2000), {800: 10.0})
    b = write_scores(write_run(tmp_path / "b", "gan"), {800: 12.0})
    _, rows = table(grouped(read(a, b)), PROTOCOL)
    assert [row[2] for row in rows] == ["800 of 2,000", "800"]


def test_groups_of_one_game_are_named_by_what_differs(tmp_path):
    runs = [write_run(tmp_path / str(w), game={"transport_weight": w}) for w in (0.01, 0.1)]
    runs.append(write_run(tmp_path / "lr", lr=0.5, game={"transport_weight": 0.1}))
    assert [group.label for group in grouped(read(*runs))] == [
        "potgan (lr 0.001, transport_weight 0.01)",
        "potgan (lr 0.001, transport_weight 0.1)",
        "potgan (lr 0.5, transport_weight 0.1)",
    ]


def test_groups_that_differ_in_much_are_named_by_their_directories(tmp_path):
    runs = [write_run(tmp_path / name, a=name, b=name, c=name, d=name) for name in ("one", "two")]
    assert [group.label for group in grouped(read(*runs))] == ["potgan (one)", "potgan (two)"]
    twins = [write_run(tmp_path / name / "run", a=name, b=name, c=name, d=name) for name in ("x", "y")]
    assert [group.label for group in grouped(read(*twins))] == [f"potgan (run) ({twin})" for twin in twins]


def test_unlike_protocols_and_data_are_refused(tmp_path):
    a = write_scores(write_run(tmp_path / "a"), {800: 1.0})
    other = write_scores(write_run(tmp_path / "b", "gan"), {800: 1.0}, {**PROTOCOL, "n": 10000})
    with pytest.raises(ValueError, match=r"^scores: .*a and .*b cannot be compared: n 5000 and 10000$"):
        grouped(read(a, other))
    with pytest.raises(
        ValueError, match=r"^scores: .*a and .*p cannot be compared: extractor efficientnet-lite2 and nothi"
    ):
        grouped(read(a, write_run(tmp_path / "p", "gan")))
    ball = write_run(tmp_path / "c", data={"name": "ball3d"})
    with pytest.raises(
        ValueError, match=r"^compare: data.name must be the same in all runs, got ring8 in .*a and ball3d in"
    ):
        grouped(read(a, ball))


def test_figures_of_points_by_other_means_are_refused(tmp_path):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", "gan")
    log = b / "metrics.jsonl"
    log.write_text(log.read_text().replace('"metrics/n": 10000', '"metrics/n": 500'))
    with pytest.raises(ValueError, match=r"^scores: .*a and .*b cannot be compared: n 10000 and 500$"):
        grouped(read(a, b))


def test_the_same_run_twice_is_refused(tmp_path):
    a, copy = write_run(tmp_path / "a"), write_run(tmp_path / "copy", threads=2)
    with pytest.raises(ValueError, match=r"^compare: .*a and .*copy have the same settings and the same seed$"):
        grouped(read(a, copy))


def test_what_has_nothing_to_compare_is_refused(tmp_path):
    a, silent = write_run(tmp_path / "a"), write_run(tmp_path / "b", "gan", steps=0)
    with pytest.raises(ValueError, match=r"^compare: .*b has no scores, and no figures of points$"):
        grouped(read(a, silent))
    c, d = (write_scores(write_run(tmp_path / str(i), seed=i), {step: 1.0}) for i, step in enumerate((100, 200)))
    with pytest.raises(ValueError, match=r"^compare: the runs of potgan have no iteration with figures in common$"):
        grouped(read(c, d))


def test_the_command_writes_three_files(tmp_path, capsys):
    directories = three(tmp_path)
    compare_main([*map(str, directories), "--out", str(tmp_path / "out" / "deep")])
    paths = [tmp_path / "out" / "deep" / f"compare.{suffix}" for suffix in ("html", "md", "png")]
    assert capsys.readouterr().out.split() == list(map(str, paths))
    text = paths[1].read_text()
    assert "| potgan | 3 runs | 800 | 16 s | 33.0 ± 1.7 |" in text
    assert "| wgan-gp | one run | 800 | 16 s | 40 |" in text
    assert f"| fingerprint | {'cd' * 32} |" in text
    assert "33.0 ± 1.7" in paths[0].read_text()
    with Image.open(paths[2]) as picture:
        picture.load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare: two runs or more are needed, got 0"),
        (["RUN"], "compare: two runs or more are needed, got 1"),
        (["RUN", "nowhere"], "compare: nowhere is no run directory: it has no config.json"),
    ],
)
def test_a_wrong_command_line_is_a_line(tmp_path, arguments, message):
    run = str(write_run(tmp_path / "run"))
    with pytest.raises(ValueError, match=f"^{message}$"):
        compare_main([run if argument == "RUN" else argument for argument in arguments])


def test_markdown_shows_names_as_they_are(tmp_path):
    strange = "a|b<i>[c]`"
    runs = [write_run(tmp_path / f"{strange}{i}", a=i, b=i, c=i, d=strange * i) for i in range(2)]
    write_comparison(grouped(read(*runs)), tmp_path)
    text = (tmp_path / "compare.md").read_text()
    assert r"| potgan (a\|b&lt;i>\[c]\`0) | one run |" in text


def test_dollars_in_a_name_are_no_formula(tmp_path):
    runs = [write_run(tmp_path / f"{i}", a=f"a$_$b{i}") for i in range(2)]
    assert len(write_comparison(grouped(read(*runs)), tmp_path)) == 3
    assert "(a a$_$b0)" in (tmp_path / "compare.md").read_text()


def test_where_data_came_from_is_no_difference(tmp_path):
    runs = [write_run(tmp_path / f"{i}", seed=i, data={"name": "ring8", "download": bool(i)}) for i in range(2)]
    assert len(grouped(read(*runs))) == 1


def test_settings_that_differ_are_those_of_groups_that_have_them(tmp_path):
    """What one game alone has is no difference between runs; what its own runs differ in is."""
    runs = [write_run(tmp_path / str(w), game={"transport_weight": w, "pairing": "cover"}) for w in (0.01, 0.1)]
    runs.append(write_run(tmp_path / "w", "wgan-gp", game={"penalty": 10}, lr=0.5))
    write_comparison(grouped(read(*runs)), tmp_path)
    text = (tmp_path / "compare.md").read_text()
    assert "| lr | 0.001 | 0.001 | 0.5 |" in text
    assert "| game.transport_weight | 0.01 | 0.1 |  |" in text
    assert "pairing" not in text
    assert "penalty" not in text
