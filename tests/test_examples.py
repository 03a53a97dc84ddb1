"""Each script of examples/: the figures that its main returns, with settings small enough for every test run."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def main(script: str) -> Callable[..., Any]:
    return runpy.run_path(str(EXAMPLES / script))["main"]


def test_every_example_is_tested():
    source = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'main("{path.name}"' not in source] == []


def test_every_example_is_short():
    assert {path.name: n for path in EXAMPLES.glob("*.py") if (n := path.read_text().count("\n")) > 80} == {}


def test_kmeans_finds_the_clusters_of_scikit_learn():
    found = main("kmeans.py")(points=5_000)
    # the same seeds and updates; a point between two centres may change sides by rounding
    assert found["relative difference"] < 1e-3


def test_vq_layer_learns_digits(tmp_path, capsys):
    found = main("vq_layer.py")(str(tmp_path / "digits.png"), steps=400)
    assert found["variance explained"] > 0.5  # without the straight-through gradient it is 0.05
    assert 16 < found["perplexity"] <= 64  # 64 codes
    assert f"{found['reconstruction error']:.4g}" in capsys.readouterr().out
    assert (tmp_path / "digits.png").stat().st_size > 0


def test_forest_layer_beats_a_linear_model():
    found = main("forest_layer.py")(steps=300)
    assert found["linear regression"] + 0.1 < found["soft forest"] <= found["the noise allows"]


def test_matchings_are_what_their_names_say(tmp_path):
    found = main("matchings.py")(str(tmp_path / "matchings.png"))
    kept = {name: row["mass in place"] for name, row in found.items()}
    cost = {name: row["mean squared distance"] for name, row in found.items()}
    assert kept["one-to-one"] == pytest.approx(1, abs=1e-5)
    assert kept["entropic"] == pytest.approx(1, abs=1e-3)
    assert kept["nearest"] < kept["semidiscrete"] < 1
    assert cost["nearest"] < cost["one-to-one"] < cost["entropic"]
    assert (tmp_path / "matchings.png").stat().st_size > 0


def test_flow_matching_is_the_same_with_either_sampler(tmp_path):
    """The losses of single runs of 250 steps differ by a fifth; that of independent pairs is thirty times as high."""
    np.random.seed(0)  # torchcfm draws from it
    found = main("flow_matching.py")(str(tmp_path / "moons.png"), steps=250)
    theirs, ours = found["OTPlanSampler"], found["ExactOT"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.5)
    assert found["the moons"]["W2"] < ours["W2"] < 1.5
    assert (tmp_path / "moons.png").stat().st_size > 0


def test_transport_covers_the_target(tmp_path):
    found = main("transport.py")(str(tmp_path / "clouds.png"), steps=200)
    assert found["matched cost, last step"] < found["matched cost, first step"] / 100
    assert math.isfinite(found["one-to-one, moved"])
    assert found["one-to-one, moved"] < found["one-to-one, source"]
    assert (tmp_path / "clouds.png").stat().st_size > 0
