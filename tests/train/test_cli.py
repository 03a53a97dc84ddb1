"""The commands as a person runs them: one clear line and status 2 for a mistake, signals, resume."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.games import GAMES
from train.__main__ import main
from train.cli import guarded, one_line, summary
from train.run.config import run_config, save_config

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--preset", "ring8", "--game.networks.width", "8", "--game.networks.depth", "1", "--batch-size", "16"]
RARE = ["--sample-every", "1000000", "--checkpoint-every", "1000000"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python ...`` from the checkout."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


MISTAKES = {
    "no game": ([], "which game"),
    "game": (["gann"], "there is no game 'gann'"),
    "no settings": (["vae"], "no settings given"),
    "field": (["vae", "--iteration", "3"], "--iteration, 3; did you mean --iterations?"),
    "value": (["vae", "--lr", "fast"], "--lr"),
    "range": (["vae", "--lr", "-1"], "train: lr must be positive, got -1.0"),
    "choice": (["potgan", "--game.pairing", "random"], "invalid choice 'random'"),
    "nested": (["wgan-gp", "--game.critic-steps", "0"], "critic_steps must be at least 1, got 0"),
    "deeper": (
        ["potgan", "--game.forest.lr", "-1"],
        "error: train: ForestConfig: forest.lr must be positive, got -1.0",
    ),
    "phase": (["potgan", "--vae.lr", "-1"], "error: train: vae.lr must be positive, got -1.0"),
    "weight": (["wgan-gp", "--game.gradient-penalty-weight", "nan"], "gradient_penalty_weight must be a finite number"),
    "large seed": (["gan", "--preset", "ring8", "--seed", "18446744073709551616"], "seed must lie in 0..2^64 - 1"),
    "empty out": (["gan", "--preset", "ring8", "--out", ""], "out must be a folder's name, got an empty one"),
    "empty path": (["gan", "--preset", "folder32", "--data.path", ""], "path must name a file or folder"),
    "one point": (["3p-wgan", "--preset", "ring8", "--batch-size", "1"], "batch_size must be at least 2 for 3p-wgan"),
    "huge": (["gan", "--preset", "ring8", "--batch-size", "100000000000"], "batch_size 100000000000 needs at least"),
    "other data": (["gan", "--preset", "ring8", "--other-data"], "--other-data goes with --resume"),
    "no command": (["data"], "usage: python -m train data --cache"),
    "preset": (["vae", "--preset", "ring9"], "vae has no preset 'ring9'; presets: ring8"),
    "device name": (["vae", "--preset", "ring8", "--device", "gpu"], "device must be cpu, cuda or cuda:N, got gpu"),
    "device": (["vae", "--preset", "ring8", "--device", "cuda:99"], "device cuda:99 is not available"),
    "no path": (["vae", "--data.name", "cifar10"], "cifar10 needs a path"),
    "path": (["potgan", "--preset", "folder32", "--data.path", "missing"], "missing"),
    "batch": (["gan", "--preset", "ring8", "--data.limit", "99"], "batch_size must be at most data.limit=99, got 128"),
    "resume": (["vae", "--resume", "missing"], "missing is no run directory"),
    "both": (["vae", "--preset", "ring8", "--resume", "missing"], "not allowed with"),
    "shape": (["wgan-gp", "--data.name", "ring8"], "dcgan: shape must be"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_clear_line_and_status_2(mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES[mistake]
    assert guarded(lambda: main(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_the_process_itself_exits_with_2_and_no_traceback():
    run = command("train/potgan.py", "--batch-size", "0")
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "error: train: batch_size must be at least 1, got 0\n")


def test_help_documents_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["potgan", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for expected in ("--data.name", "--game.transport-weight", "--vae.iterations", "--resume", "ball3d"):
        assert expected in text
    options = re.split(r"^[│ ]+--(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(options) > 30
    assert [option for option in options if "(default:" not in option] == []


def test_list_names_games_presets_and_data_sets(capsys):
    main(["list"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    for name, kind in GAMES.items():
        assert f"  {name:<8} {summary(kind)}" in lines
        assert "20" in summary(kind)  # the year of its paper
    for name in ("ring8", "digits", "folder"):
        assert name in text


@pytest.mark.parametrize(
    "box",
    [
        "╭─ Title ─╮\n│ wrong --a │\n│ ─────── │\n│ Perhaps you meant: │\n│   --b INT │\n╰─────────╯\n",
        " Title \n ------ \n  wrong --a \n  ------\n  Perhaps you meant: \n    --b INT \n",
    ],
)
def test_one_line_reads_frames_in_unicode_and_in_ascii(box):
    assert one_line(box) == "wrong --a; did you mean --b?"


def test_one_line_keeps_text_that_is_not_a_frame():
    assert one_line("plain\n text") == "plain text"


def test_the_folder_of_a_resumed_run_is_fixed(tmp_path, capsys):
    save_config(tmp_path, "vae", run_config("vae")(out=str(tmp_path)))
    before = (tmp_path / "config.json").read_bytes()
    assert guarded(lambda: main(["vae", "--resume", str(tmp_path), "--out", "elsewhere"])) == 2
    assert capsys.readouterr().err == "error: train: out cannot change when a run is resumed\n"
    assert (tmp_path / "config.json").read_bytes() == before


def test_an_interruption_claims_nothing_about_what_was_saved(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert guarded(interrupted) == 130
    text = capsys.readouterr().err.strip()
    assert text == "interrupted; --resume DIR continues a run from its last checkpoint, if it has one"


def test_an_existing_run_is_not_written_over(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert guarded(lambda: main(["vae", *TINY, "--out", str(tmp_path)])) == 2
    assert f"{tmp_path} holds a run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("script", [["train/potgan.py"], ["-m", "train", "potgan"]])
def test_ctrl_c_saves_and_resume_ends_the_run(tmp_path, script):
    out = tmp_path / "run"
    start = [sys.executable, *script, *TINY, *RARE, "--iterations", "1000000", "--log-every", "1", "--out", str(out)]
    running = subprocess.Popen(
        start, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size > 0, running)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert errors == ""
    assert f"resume with: python {' '.join(script)} --resume {out}" in output
    (saved,) = (out / "checkpoints").iterdir()
    step = int(saved.stem.split("_")[1])
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").open()][-1] == step

    resumed = command(*script, "--resume", str(out), "--iterations", str(step + 2))
    assert resumed.returncode == 0, resumed.stderr
    assert f"continues at step {step}" in resumed.stdout
    assert "reverse_kl" in resumed.stdout
    assert json.loads((out / "config.json").read_text())["config"]["iterations"] == step + 2
    assert (out / "samples.png").exists()


def wait_for(condition, process: subprocess.Popen, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"the run ended or hung: {process.communicate()}")
        time.sleep(0.05)
