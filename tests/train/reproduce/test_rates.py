"""Convergence rates: exact W1, the fit and its standard error, resuming, the report."""

from __future__ import annotations

import json
import math

import numpy as np
import ot
import pytest

from train.reproduce import rates, rates_report
from train.reproduce.rates import Fit, RatesConfig, distances, fit_exponent
from train.reproduce.statistics import pm

TINY = ["--dims", "2", "3", "--sizes", "8", "16", "32", "--points", "128", "--tail", "16", "--seed", "5"]
SETTINGS = {(2, 8): 16, (3, 8): 16, (2, 16): 8, (3, 16): 8, (2, 32): 4, (3, 32): 4}  # (d, n) -> repeats


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


def run(folder, *extra):
    rates.main([*TINY, "--out", str(folder), *extra], "python -m train.reproduce rates")
    lines = [json.loads(line) for line in (folder / "rates.jsonl").read_text().splitlines()]
    return {(line["d"], line["n"]): line for line in lines}


def test_w1_of_tiny_clouds_by_hand():
    assert distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])) == (5.0, 5.0)
    x, y = np.array([[0.0, 0.0], [4.0, 0.0]]), np.array([[1.0, 0.0], [-3.0, 0.0]])
    # (0 -> -3) + (4 -> 1) = 6 and (0 -> 1) + (4 -> -3) = 8: the assignment may not take each point's nearest, 1 and 3
    assert distances(x, y) == (3.0, 2.0)


def test_w1_on_a_line_is_the_mean_sorted_difference(random):
    x, y = random.random((200, 1)), random.random((200, 1))
    sorted_difference = np.abs(np.sort(x, 0) - np.sort(y, 0)).mean()
    # several plans are optimal on a line; each sums 200 distances below 1, each rounded by at most 2^-53
    assert distances(x, y)[0] == pytest.approx(sorted_difference, rel=0, abs=200 * 2**-53)


@pytest.mark.parametrize("d", [1, 2, 16])
def test_w1_agrees_with_pot(d, random):
    x, y = random.random((64, d)), random.random((64, d))
    uniform = np.full(64, 1 / 64)
    # both plans are optimal; costs <= 4 are rounded by at most (d + 3) 2^-53 relatively, and 64 of them are averaged
    bound = 4 * (d + 3 + 64) * 2**-53
    cost = ot.dist(x, y, metric="euclidean")
    exact = ot.emd2(uniform, uniform, cost)
    assert distances(x, y)[0] == pytest.approx(exact, rel=0, abs=bound)
    assert distances(x, y)[1] == pytest.approx(cost.min(1).mean(), rel=0, abs=bound)


def test_a_power_law_without_noise_is_found_exactly():
    n = np.array([64.0, 256.0, 1024.0])
    exponent, error, misfit = fit_exponent(n, 3 * n**-0.25, 3 * n**-0.25 * np.array([0.1, 0.2, 0.3]))
    # by hand, in units of log 4: x = 0, 1, 2 with weights 100, 25, 100/9: the mean is 17/49, the spread 54.08...
    weight, x = np.array([100, 25, 100 / 9]), np.array([0, 1, 2])
    spread = (weight * (x - (weight * x).sum() / weight.sum()) ** 2).sum()
    assert exponent == pytest.approx(-0.25, abs=1e-12)
    assert error == pytest.approx(1 / (math.log(4) * math.sqrt(spread)), rel=1e-12)
    assert misfit == pytest.approx(0, abs=1e-20)
    assert fit_exponent(n[:2], n[:2] ** -0.5, n[:2] ** -0.5).misfit is None


def test_the_standard_error_is_the_spread_of_fits_to_noisy_power_laws(random):
    n = 2.0 ** np.arange(6, 14)
    relative = np.array([0.02, 0.01, 0.03, 0.01, 0.02, 0.04, 0.01, 0.02])  # 4% at most: log is straight enough
    truth, runs = 0.7 * n**-0.3, 2000
    fits = [fit_exponent(n, truth * (1 + relative * random.standard_normal(8)), truth * relative) for _ in range(runs)]
    slope, error, misfit = (np.array(column, dtype=float) for column in zip(*fits, strict=True))
    # the mean of 2000 slopes has 1/45 of a standard error, their deviation is known to 1/63: 5 of these each;
    # second order of the logarithm: the intercept moves by relative^2 / 2 <= 0.0008, the slope by less than 0.1 error
    assert abs(slope.mean() + 0.3) < (5 / math.sqrt(runs) + 0.1) * error.mean()
    assert slope.std(ddof=1) == pytest.approx(error.mean(), rel=5 / math.sqrt(2 * runs))
    assert misfit.mean() == pytest.approx(1, abs=5 * math.sqrt(2 / 6 / runs))  # chi^2 with 6 degrees of freedom


def test_in_two_dimensions_the_theory_has_a_logarithm(random):
    n = 2.0 ** np.arange(6, 14)
    rate = np.sqrt(np.log(n) / n)
    curve = rates.Curve(2, n, 0.4 * rate, 0.004 * rate, 0.5 * n**-0.5, 0.005 * n**-0.5)
    fits = rates.fit_all(curve, 1024)
    assert fits["log factor"].exponent == pytest.approx(fits["tail"].exponent, abs=1e-12)
    assert -0.5 < fits["all"].exponent < -0.4
    assert fits["nearest"].exponent == pytest.approx(-0.5, abs=1e-12)
    assert "log factor" not in rates.fit_all(curve._replace(d=4), 1024)


def test_resuming_measures_only_what_is_missing_and_gives_the_same_numbers(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    assert {cell: row["repeats"] for cell, row in whole.items()} == SETTINGS
    (tmp_path / "part").mkdir()
    kept = [json.dumps(whole[cell]) for cell in ((2, 8), (3, 16))]
    (tmp_path / "part" / "rates.jsonl").write_text("\n".join(kept) + '\n{"d": 3, "n":')  # killed while writing
    measured, measure = [], rates.measure
    monkeypatch.setattr(rates, "measure", lambda d, n, *rest: measured.append((d, n)) or measure(d, n, *rest))
    resumed = run(tmp_path / "part")
    assert measured == [(3, 8), (2, 16), (2, 32), (3, 32)]
    assert {cell: row["w1"] for cell, row in resumed.items()} == {cell: row["w1"] for cell, row in whole.items()}
    again = run(tmp_path / "part")
    assert again == resumed
    assert len(measured) == 4


def test_every_cloud_of_every_repeat_and_cell_is_drawn_anew_from_the_cube(monkeypatch):
    clouds = []
    monkeypatch.setattr(rates, "distances", lambda x, y: clouds.extend((x, y)) or (1.0, 1.0))
    for d, n, seed in ((2, 4, 0), (2, 5, 0), (3, 4, 0), (2, 4, 1)):
        rates.measure(d, n, 3, seed)
        assert [cloud.shape for cloud in clouds[-6:]] == [(n, d)] * 6
    assert len({cloud[0, 0] for cloud in clouds}) == 4 * 6
    assert all(((cloud >= 0) & (cloud < 1)).all() for cloud in clouds)


@pytest.mark.parametrize("extra", [("--seed", "6"), ("--points", "64")])
def test_rows_of_other_settings_are_one_clear_error(extra, tmp_path):
    run(tmp_path)
    before = (tmp_path / "rates.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"^rates: .* must hold .* for d = 2, n = 8, got .*; choose another out$"):
        run(tmp_path, *extra)
    assert (tmp_path / "rates.jsonl").read_bytes() == before


def test_the_report_has_the_numbers(tmp_path, capsys):
    rows = run(tmp_path)
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path}/rates.md, .json, .jsonl, .png\n")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "rates.png").stat().st_size < 200_000
    saved = json.loads((tmp_path / "rates.json").read_text())
    assert saved["rows"] == list(rows.values())
    assert saved["config"]["seed"] == 5
    text = (tmp_path / "rates.md").read_text()
    fits = {int(d): {name: Fit(**fit) for name, fit in lines.items()} for d, lines in saved["fits"].items()}
    for d in (2, 3):
        mean, error = (np.array([f(rows[d, n]["w1"]) for n in (8, 16, 32)]) for f in (np.mean, standard_error))
        assert fits[d]["all"] == pytest.approx(fit_exponent(np.array([8, 16, 32]), mean, error), rel=1e-12)
        late = fit_exponent(np.array([16, 32]), mean[1:], error[1:])
        assert fits[d]["tail"][:2] == pytest.approx(late[:2], rel=1e-12)
        assert f"| {d} | {-1 / d:.4f} | {pm(*fits[d]['all'][:2])} | {fits[d]['all'].misfit:.1f} " in text
        assert pm(mean[2], error[2]) in text
    slope = fits[2]["all"].exponent + fits[3]["all"].exponent
    error = math.hypot(fits[2]["all"].error, fits[3]["all"].error)
    share = fits[2]["tail"].exponent / (fits[2]["tail"].exponent + fits[3]["tail"].exponent)
    assert f"| 3 | 2 | -0.8333 | {pm(slope, error)} |" in text
    assert f"| 60% | {share:.0%} |\n" in text
    assert f"slope of {fits[2]['log factor'].exponent:.3f}." in text
    assert "`python -m train.reproduce rates --dims 2 3 --sizes" in text
    for fact in ("scipy", "commit"):
        assert f"{fact} {rows[2, 8]['machine'][fact]}" in text
    # r of a disc of area 1/32 and of a ball of volume 1/32
    assert f" | {math.sqrt(1 / 32 / math.pi):.3f} |\n" in text
    assert f" | {(3 / 4 / 32 / math.pi) ** (1 / 3):.3f} |\n" in text


def test_the_report_says_which_slopes_are_steeper_and_which_flatter():
    config = RatesConfig(dims=(2, 4, 8, 16), sizes=(64, 128, 256), tail=64)
    machine = dict.fromkeys(("command", "cpu", "system", "python", "numpy", "scipy", "commit", "date"), "this")
    rows = []
    for d, slope in ((2, -0.4), (4, -0.25), (8, -0.15), (16, -0.08)):  # standard error: 0.01 / (log 2 sqrt(2)) = 0.0102
        for n in config.sizes:
            w1 = [n**slope * (1 + noise) for noise in (0.01, -0.01)]
            rows.append({"d": d, "n": n, "w1": w1, "nearest": (1.0, 0.1), "seconds": 31.0, "machine": machine})
    curves = [rates.curve(rows, d) for d in config.dims]
    text = rates_report.document(config, rows, curves, {c.d: rates.fit_all(c, 64) for c in curves})
    assert "steeper than -1/d for\nd = 8, flatter for d = 2." in text
    assert "processor time 6 min 12 s." in text
    assert text.count("`this`") == 1


def standard_error(values):
    return np.std(values, ddof=1) / math.sqrt(len(values))


def test_numbers_show_two_digits_of_their_error():
    assert pm(-0.26912, 0.00123) == "-0.2691 ± 0.0012"
    assert pm(123.4, 17.2) == "123 ± 17"


WRONG = {
    "dimension 1": (("--dims", "1", "2"), r"^rates: dims must be distinct and at least 2, got \(1, 2\)$"),
    "a size twice": (("--sizes", "8", "8", "16"), r"^rates: sizes must be distinct and at least 2, got \(8, 8, 16\)$"),
    "one repeat": (("--max-repeats", "1"), "^rates: max_repeats must be at least 2, got 1$"),
    "no points": (("--points", "0"), "^rates: points must be at least 1, got 0$"),
    "seed": (("--seed", "-1"), "^rates: seed must be at least 0, got -1$"),
    "tail": (("--tail", "17"), r"^rates: tail must leave at least two of the sizes \(8, 16, 32\), got 17$"),
    "field": (("--repeats", "3"), "^train: .*--repeats"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_settings_are_one_clear_error(name, tmp_path):
    extra, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", *extra)
    assert not (tmp_path / "out").exists()


def test_clouds_of_different_sizes_are_an_error():
    with pytest.raises(ValueError, match=r"^distances: x and y must both be \[n > 0, d\], got \[3, 2\] and \[4, 2\]$"):
        distances(np.zeros((3, 2)), np.zeros((4, 2)))


def test_repeats_follow_from_the_points():
    assert [RatesConfig().repeats(n) for n in (64, 1024, 8192, 2**20)] == [256, 64, 8, 2]
