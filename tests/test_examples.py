"""Each script of examples/, run as its reader would run it, and the figures that it prints."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """figures(script, *arguments): {text before the last number of a printed line: that number}."""

    def run(script: str, *arguments: str) -> dict[str, float]:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        lines = re.findall(r"^(.*?)\s+([-+.\de]+)$", capsys.readouterr().out, re.MULTILINE)
        return {name: float(number) for name, number in lines}

    return run


def test_every_example_is_tested():
    source = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'figures("{path.name}"' not in source] == []


def test_every_example_is_short():
    assert {path.name: n for path in EXAMPLES.glob("*.py") if (n := path.read_text().count("\n")) > 90} == {}


def test_kmeans_finds_the_clusters_of_scikit_learn(figures):
    found = figures("kmeans.py")
    # the same seeds and updates; a point between two centres may change sides by rounding
    assert found["relative difference"] < 1e-3


def test_vector_quantizer_learns_digits(figures, tmp_path):
    found = figures("vq_layer.py", str(tmp_path / "digits.png"))
    assert found["variance explained"] > 0.5  # without the straight-through gradient it is 0.03
    assert (tmp_path / "digits.png").stat().st_size > 0


def test_soft_forest_beats_a_linear_model(figures):
    found = figures("forest_layer.py")
    assert found["linear regression  R^2"] + 0.1 < found["soft forest        R^2"] <= found["the noise allows   R^2"]


def test_transport_covers_the_target(figures, tmp_path):
    found = figures("transport.py", str(tmp_path / "clouds.png"))
    first, last = (float(found[name]) for name in ("matched cost, first step", "matched cost, last step"))
    assert last < first / 100
    assert found["one-to-one, moved"] < found["one-to-one, source"]
    assert (tmp_path / "clouds.png").stat().st_size > 0
