"""--dry-run: what it says is true, it fails where the run would, and nothing is left behind."""

from __future__ import annotations

import pytest

from train.__main__ import main
from train.cli import guarded

SMALL = ["--preset", "digits", "--data.size", "8", "--game.networks.width", "2", "--batch-size", "8"]
SMALL += ["--vae.game.networks.width", "2", "--vae.batch-size", "4", "--iterations", "2000"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_game_with_a_phase_is_described(capsys, tmp_path):
    assert (
        guarded(
            lambda: main(
                ["potgan", *SMALL, "--dry-run", "--scores.extractor", "efficientnet-lite2", "--scores.n", "300"]
            )
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "potgan on digits, samples [1, 8, 8]" in said
    assert "first the phase vae" in said
    assert "real [4, 1, 8, 8], noise [4, 128], samples [4, 1, 8, 8]" in said
    assert "real [8, 1, 8, 8], noise [8, 128], samples [8, 1, 8, 8]" in said
    # dcgan at 8 pixels, width 2: a convolution 1 -> 2 of 5 x 5 with its bias, and a linear layer 2 x 4 x 4 -> 1
    critic = next(line for line in said.splitlines() if line.strip().startswith("critic"))
    assert f"{25 * 2 + 2 + 32 + 1} parameters, Adam with lr 0.0002, 5 times an iteration" in critic
    assert "every 1,000 iterations a picture of samples: 2 times" in said
    assert "at the end scores of 300 samples by efficientnet-lite2" in said
    assert "no run was written" in said
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_the_plan(capsys, tmp_path):
    assert guarded(lambda: main(["gan", "--dry-run", "--preset", "ring8", "--log-every", "7", "--out", "x"])) == 0
    said = capsys.readouterr().out
    assert "every 7 iterations a row of losses: 858 times" in said  # of 6,000, and the last
    assert "seed 0, on cpu, in x" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "folder32", "--data.path", "nowhere"], "data: there is no "),
        (["--preset", "ring8", "--batch-size", "100000000000"], "batch_size 100000000000 needs at least"),
    ],
)
def test_what_the_run_could_not_do_is_said(argv, message, capsys):
    assert guarded(lambda: main(["gan", *argv, "--dry-run"])) == 2
    assert message in capsys.readouterr().err


def test_a_resumed_run_has_no_dry_run(capsys, tmp_path):
    run = ["gan", "--preset", "ring8", "--iterations", "1", "--game.networks.width", "4", "--out", "run"]
    assert guarded(lambda: main(run)) == 0
    said = capsys.readouterr().out
    assert "python -m train gan --resume run --iterations 2  train as long again" in said
    assert guarded(lambda: main(["gan", "--resume", "run", "--dry-run"])) == 2
    assert "--dry-run describes a new run, and --resume continues one" in capsys.readouterr().err
