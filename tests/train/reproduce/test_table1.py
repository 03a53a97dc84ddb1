"""The toy table: cells, resuming, statistics, and what the page says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from models.games import GAMES
from train.cli import guarded
from train.reproduce import table1, table1_report
from train.reproduce.__main__ import main
from train.reproduce.cells import ROWS, SETTINGS, cell_config
from train.reproduce.statistics import apart, ratio, summarise
from train.run.loop import Loop
from train.scores import toy

TINY = ["--runs", "2", "--iterations", "2", "--targets", "ring8"]


@pytest.fixture(autouse=True)
def cheap_metrics(monkeypatch):
    """The reverse KL of 10,000 points takes seconds; a run's first sample stands in for it."""

    def figures(samples, target, seed):
        return {
            "reverse_kl": float(samples[0, 0].abs()),
            "reverse_kl_floor": 0.005,
            "modes_covered": 7,
            "modes": target.modes,
            "within_3_sigma": 0.9,
            "within_3_sigma_target": 0.989,
        }

    monkeypatch.setattr(table1, "toy_metrics", figures)


def run(out, *arguments):
    main(["table1", *TINY, "--out", str(out), *arguments])


def cell(out, name):
    return json.loads((out / "cells" / f"{name}.json").read_text())


def test_every_cell_builds_its_game_and_no_two_are_alike():
    seen = set()
    for target, dim in (("ring8", 2), ("ball3d", 3)):
        for setting in SETTINGS:
            for row in ROWS:
                config = cell_config(target, setting, row)
                game = GAMES[ROWS[row].game].build(config.game, (dim,))
                assert game.sample(game.draw_noise(4)).shape == (4, dim)
                assert config.data.name == target
                seen.add((repr(config), ROWS[row].game))
    assert len(seen) == 2 * len(SETTINGS) * len(ROWS)


def test_the_ball_comes_from_noise_in_two_dimensions():
    assert all(cell_config("ball3d", setting, row).game.networks.noise_dim == 2 for setting in SETTINGS for row in ROWS)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("target", ["ring8", "ball3d"])
def test_rows_of_a_setting_share_budget_data_and_networks(target, setting):
    configs = [cell_config(target, setting, row) for row in ROWS]
    assert len({(c.iterations, c.batch_size, c.ema, c.lr_decay) for c in configs}) == 1
    assert len({(c.game.networks.name, c.game.networks.width, c.game.networks.depth) for c in configs}) == 1


def test_the_papers_settings_are_the_papers():
    config = cell_config("ring8", "paper", "potgan")
    assert (config.lr, config.betas, config.batch_size, config.game.transport_weight) == (2e-4, (0.5, 0.9), 64, 0.01)
    assert config.game.gradient_penalty_weight == 10
    assert [ROWS[row].stated["ring8"] for row in ("gan", "veegan", "wgan-gp", "potgan")] == [
        0.2417,
        0.1540,
        0.0046,
        0.0020,
    ]
    assert [ROWS[row].stated["ball3d"] for row in ("gan", "veegan", "wgan-gp", "potgan")] == [
        3.0772,
        2.5153,
        0.9438,
        0.7428,
    ]


def test_a_stopped_table_goes_on_with_the_missing_cells(tmp_path, monkeypatch, capsys):
    run(tmp_path, "--rows", "gan", "--settings", "paper")
    first = cell(tmp_path, "ring8-paper-gan")
    trained = []
    original = table1.train_cell
    monkeypatch.setattr(table1, "train_cell", lambda row, *rest: trained.append(row) or original(row, *rest))
    run(tmp_path, "--rows", "gan", "wae-gan", "--settings", "paper")
    assert trained == ["wae-gan"]
    assert cell(tmp_path, "ring8-paper-gan") == first
    for other, named in ((["--runs", "3"], "runs 2"), (["--iterations", "3"], "iterations 2")):
        with pytest.raises(ValueError, match=rf"ring8-paper-gan.json holds runs with other settings \({named}\)"):
            run(tmp_path, "--rows", "gan", "--settings", "paper", *other)
    assert trained == ["wae-gan"]


def test_a_cell_is_the_samples_of_its_runs(tmp_path):
    run(tmp_path, "--rows", "gan", "--settings", "best")
    found = cell(tmp_path, "ring8-best-gan")
    loop = table1.side_by_side("gan", table1.replace(cell_config("ring8", "best", "gan"), iterations=2), range(2))
    for _ in range(2):
        loop.iterate()
    samples = loop.samples(10_000)
    assert [m["reverse_kl"] for m in found["metrics"]] == [float(samples[r, 0, 0].abs()) for r in range(2)]
    assert found["samples"][0] == [round(x, 3) for x in samples[0, 0].tolist()]
    assert found["machine"]["command"].startswith("python -m train.reproduce table1 --runs 2")


def test_a_run_that_diverges_is_counted_and_left_out(tmp_path, monkeypatch):
    original = Loop.samples

    def broken(self, n):
        samples = original(self, n)
        samples[1] = torch.nan
        return samples

    monkeypatch.setattr(Loop, "samples", broken)
    run(tmp_path, "--rows", "gan", "--settings", "paper")
    found = cell(tmp_path, "ring8-paper-gan")
    assert found["metrics"][1] is None
    assert "(one run) (1 of 2 diverged)" in (tmp_path / "table1.md").read_text()
    rows = json.loads((tmp_path / "table1.json").read_text())["cells"]
    assert (rows[0]["diverged"], rows[0]["error"]) == (1, None)


def test_the_page_has_the_numbers_and_the_verdicts(tmp_path):
    run(tmp_path, "--rows", "wgan-gp", "potgan", "potgan-identity", "--settings", "paper")
    values = {
        row: [m["reverse_kl"] for m in cell(tmp_path, f"ring8-paper-{row}")["metrics"]] for row in ("wgan-gp", "potgan")
    }
    page = (tmp_path / "table1.md").read_text()
    assert "scores." not in page  # points have none
    assert "data." not in page
    for row, label in (("wgan-gp", "WGAN-GP"), ("potgan", "POT-GAN")):
        mean = sum(values[row]) / 2
        error = abs(values[row][0] - values[row][1]) / 2  # of two values: their distance over 2
        digits = max(0, 1 - math.floor(math.log10(error)))
        assert (
            f"| {label} | {ROWS[row].stated['ring8']:.4f} | {mean:.{digits}f} ± {error:.{digits}f} | 7 of 8 | 0.900 |"
            in page
        )
    quotient = math.prod(values["potgan"]) ** 0.5 / math.prod(values["wgan-gp"]) ** 0.5
    assert f"POT-GAN against WGAN-GP, each with its own settings: reverse KL {quotient:.2f} times as large" in page
    assert "POT-GAN against POT-GAN, F = identity, all else equal" in page
    assert page.count("![samples by game](ring8-paper.png)") == 1
    assert "| *floor* |  | 0.0050 |  | 0.989 |" in page
    for name in ("table1.png", "ring8-paper.png", "table1.json"):
        assert (tmp_path / name).stat().st_size > 0


def test_statistics_by_hand():
    found = summarise([1.0, 2.0, None, 3.0])
    assert (found.mean, found.runs, found.diverged) == (2.0, 3, 1)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    reach = 4.302653 / math.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    assert (found.low, found.high) == pytest.approx((2 - reach, 2 + reach), abs=1e-5)
    assert math.isnan(summarise([1.0]).error)
    assert math.isnan(summarise([None]).mean)


def test_a_ratio_by_hand():
    """Equal sizes and spreads of the logarithms: Welch's interval is Student's with 2 (n - 1) degrees of freedom."""
    one, other = [math.e**x for x in (0.0, 0.1, 0.2)], [math.e**x for x in (1.0, 1.1, 1.2)]
    found = ratio(one, [None, *other])
    assert found is not None
    assert found.value == pytest.approx(math.exp(-1))
    reach = 2.776445 * 0.1 * math.sqrt(2 / 3)  # Student's t, 4 degrees of freedom, 97.5 %
    assert (found.low, found.high) == pytest.approx((math.exp(-1 - reach), math.exp(-1 + reach)), rel=1e-6)
    assert ratio(one, [1.0, None]) is None


def test_one_run_gives_no_verdict(tmp_path):
    main(["table1", "--runs", "1", "--iterations", "2", "--targets", "ring8", "--rows", "wgan-gp", "potgan",
          "--settings", "best", "--out", str(tmp_path)])  # fmt: skip
    page = (tmp_path / "table1.md").read_text()
    assert "one run, seed 0" in page
    assert "against" not in page
    assert "nan" not in page


def test_intervals_are_apart_only_if_no_number_is_in_both():
    low, high = summarise([1.0, 1.1, 1.2]), summarise([2.0, 2.1, 2.2])
    assert apart(low, high)
    assert apart(high, low)
    assert not apart(low, summarise([1.1, 1.2, 1.3]))
    assert not apart(low, low)


@pytest.mark.parametrize(
    ("figure", "text"),
    [((0.05634, 0.0031), "0.0563 ± 0.0031"), ((17.1234, 3.2), "17.1 ± 3.2"), ((0.36, 0.042), "0.360 ± 0.042")],
)
def test_a_figure_has_as_many_digits_as_its_error(figure, text):
    mean, error = figure
    spread = error * math.sqrt(2)  # two values this far from the mean have this standard error
    values = [mean - spread / math.sqrt(2), mean + spread / math.sqrt(2)]
    assert table1_report.measured(summarise(values)) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table1", "--rows", "gam"], "table1: rows must be of gan, veegan"),
        (["table1", "--targets", "ring9"], "table1: targets must be of ring8, ball3d, got ring9"),
        (["table1", "--runs", "0"], "table1: runs must be at least 1, got 0"),
        (["table3"], "reproduce: experiment must be one of table1, mover, studies, rates, table2, three-player-table1"),
        (["mover", "--points", "0"], "mover: points must be at least 2, got 0"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, message, capsys):
    assert guarded(lambda: main(arguments)) == 2
    assert message in capsys.readouterr().err


def test_help_names_the_experiments(capsys):
    main([])
    text = capsys.readouterr().out
    assert all(name in text for name in ("table1", "mover", "rates"))


def test_run_metrics_are_seeded_and_none_for_nan(monkeypatch):
    monkeypatch.setattr(table1, "toy_metrics", toy.toy_metrics)
    from train.data.distributions import ring8

    target = ring8()
    samples = target.sample(200, torch.Generator().manual_seed(0))
    first, again, other = (table1.run_metrics(samples, target, seed) for seed in (0, 0, 1))
    assert first == again
    assert first["reverse_kl"] != other["reverse_kl"]
    samples[3] = torch.inf
    assert table1.run_metrics(samples, target, 0) is None


def test_the_committed_cells_still_count_as_done():
    """A setting that a run gains later must not make the published table's runs those of other settings."""
    folder = Path(__file__).resolve().parents[3] / "results" / "table1" / "cells"
    names = [path.stem for path in sorted(folder.glob("*.json"))]
    assert len(names) > 40
    for name in names:
        target, setting, row = name.split("-", 2)
        assert table1.is_done(folder / f"{name}.json", cell_config(target, setting, row), 10), name
