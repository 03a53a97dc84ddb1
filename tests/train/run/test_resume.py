"""A resumed run: what contradicts its past is refused by name and changes nothing, what changes is said."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train.__main__ import main
from train.cli import guarded
from train.run.directory import LOCK, locked
from train.scores import toy

ROOT = Path(__file__).resolve().parents[3]
TINY = ["--preset", "ring8", "--game.networks.width", "8", "--game.networks.depth", "1", "--batch-size", "16"]
IMAGES = ["--preset", "folder32-cpu", "--data.size", "8", "--batch-size", "4", "--game.networks.width", "2"]


@pytest.fixture(autouse=True)
def cheap(monkeypatch, tmp_path):
    """Each test in a folder of its own; the reverse KL of 10,000 points takes seconds."""
    monkeypatch.setattr(toy, "toy_metrics", lambda samples, target: {"reverse_kl": 0.5})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def train(capsys):
    """A function: a command line -> its exit status and everything that it printed."""

    def call(*argv: str) -> tuple[int, str]:
        capsys.readouterr()
        status = guarded(lambda: main(list(argv)))
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


def files(directory: Path) -> dict[str, str]:
    """Every file of a run and a digest of its bytes; the lock is no part of it."""
    found = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def tree(directory: Path) -> dict[str, bytes | None]:
    """Every folder and file of a run, the lock among them, and what is in it."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def images(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


REFUSED = {
    "width": ("gan", ["--game.networks.width", "16"], "game.networks.width 8 -> 16"),
    "depth": ("gan", ["--game.networks.depth", "2"], "game.networks.depth 1 -> 2"),
    "weights": ("gan", ["--game.networks.init", "normal"], "game.networks.init he -> normal"),
    "two at once": (
        "gan",
        ["--game.networks.width", "16", "--game.networks.noise-dim", "5"],
        "game.networks.width 8 -> 16, game.networks.noise_dim 2 -> 5",
    ),
    "seed": ("gan", ["--seed", "7"], "seed 0 -> 7"),
    "device": ("gan", ["--device", "cuda"], "device cpu -> cuda"),
    "average": ("gan", ["--ema", "0"], "ema 0.998 -> 0.0"),
    "data": ("gan", ["--data.name", "ball3d"], "data.name ring8 -> ball3d"),
    "limit": ("gan", ["--data.limit", "50"], "data.limit None -> 50"),
    "fewer": ("gan", ["--iterations", "3"], "iterations must be at least the 4 that are done, got 3"),
    "forest": ("potgan", ["--game.forest.trees", "5"], "game.forest.trees 16 -> 5"),
    "leaves": ("potgan", ["--game.forest.leaves", "normal"], "game.forest.leaves identity -> normal"),
    "transform": ("potgan", ["--game.transform", "affine"], "game.transform forest -> affine"),
    "mover": ("3p-wgan", ["--game.mover", "identity"], "game.mover"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_contradicts_the_run_is_refused_by_name_and_changes_nothing(train, case):
    game, change, message = REFUSED[case]
    assert train(game, *TINY, "--iterations", "4", "--out", "r")[0] == 0
    before = tree(Path("r"))
    status, said = train(game, "--resume", "r", *([] if case == "fewer" else ["--iterations", "6"]), *change)
    assert status == 2
    assert message in said
    assert said.startswith("error: resume: " if case != "fewer" else "")
    assert len(said.splitlines()[-1]) < 300
    assert tree(Path("r")) == before
    assert train(game, "--resume", "r", "--iterations", "6")[0] == 0


def test_what_may_change_is_said_and_written_down(train):
    assert train("wgan-gp", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    status, said = train("wgan-gp", "--resume", "r", "--iterations", "6", "--lr", "0.5", "--game.critic-steps", "2")
    assert status == 0
    for line in ("iterations 4 -> 6", "lr 0.001 -> 0.5", "game.critic_steps 5 -> 2"):
        assert f"resume: {line}\n" in said
    stored = json.loads(Path("r/config.json").read_text())["config"]
    assert (stored["iterations"], stored["lr"], stored["game"]["critic_steps"]) == (6, 0.5, 2)


def test_a_linear_decay_that_jumps_is_said(train):
    assert train("3p-wgan", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    status, said = train("3p-wgan", "--resume", "r", "--iterations", "16")
    assert status == 0
    assert "the learning rate falls linearly over all iterations, so at step 4 it jumps from 0 to 0.75 of lr" in said
    assert "the game anneals over all iterations, so at step 4 it jumps from 1 to 0.25 of its way" in said


def test_a_run_that_has_ended_says_so_and_changes_nothing(train):
    assert train("gan", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    before = files(Path("r"))
    for arguments in ([], ["--lr", "0.5"]):
        status, said = train("gan", "--resume", "r", *arguments)
        assert status == 0
        assert "gan: all 4 iterations are done; --iterations N asks for more" in said
        assert files(Path("r")) == before


def test_what_a_kill_after_the_last_checkpoint_left_out_is_made_up(train):
    assert train("gan", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    whole = set(files(Path("r")))
    Path("r/report.html").unlink()
    shutil.rmtree("r/export")
    assert train("gan", "--resume", "r")[0] == 0
    assert set(files(Path("r"))) >= whole
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert len([row for row in rows if "metrics/reverse_kl" in row]) == 1


@pytest.mark.parametrize("kept", ["checkpoints", "metrics.jsonl", "export"])
def test_a_new_run_never_continues_what_lies_in_its_folder(train, kept):
    assert train("gan", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    for entry in list(Path("r").iterdir()):
        if entry.name != kept:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    before = files(Path("r"))
    status, said = train("gan", *TINY, "--iterations", "8", "--seed", "5", "--out", "r")
    assert status == 2
    assert f"r holds {kept} of an earlier run" in said
    assert files(Path("r")) == before


def test_a_run_in_use_is_refused(train):
    assert train("gan", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    with locked(Path("r")):
        before = tree(Path("r"))
        for arguments in (["--resume", "r", "--iterations", "8"], [*TINY, "--out", "r"]):
            status, said = train("gan", *arguments)
            assert status == 2
            assert "r is in use by another run" in said or "r holds a run" in said
            assert tree(Path("r")) == before


def test_an_empty_name_is_no_folder(train):
    for arguments in (["--resume", ""], [*TINY, "--out", ""]):
        status, said = train("gan", *arguments)
        assert status == 2
        assert "got an empty" in said
    assert not list(Path().iterdir())


def test_other_images_of_the_same_number_are_refused_unless_allowed(train):
    images(Path("one"), 8)
    assert train("gan", *IMAGES, "--data.path", "one", "--iterations", "2", "--out", "r")[0] == 0
    images(Path("one"), 8, seed=1)
    before = tree(Path("r"))
    status, said = train("gan", "--resume", "r", "--iterations", "3")
    assert status == 2
    assert "other images" in said
    assert "--other-data" in said
    assert tree(Path("r")) == before
    status, said = train("gan", "--resume", "r", "--iterations", "3", "--other-data")
    assert status == 0, said
    assert "other" in said


def test_a_set_that_has_grown_is_refused_unless_allowed(train):
    images(Path("one"), 8)
    assert train("gan", *IMAGES, "--data.path", "one", "--iterations", "2", "--out", "r")[0] == 0
    images(Path("one"), 12)
    assert train("gan", "--resume", "r", "--iterations", "3")[0] == 2
    assert train("gan", "--resume", "r", "--iterations", "3", "--other-data")[0] == 0
    assert train("gan", "--resume", "r", "--iterations", "4")[0] == 0  # the larger set is the run's own now


def test_other_images_after_the_vae_are_refused(train):
    images(Path("one"), 8)
    vae = ["--vae.iterations", "2", "--vae.batch-size", "4", "--vae.game.networks.width", "2"]
    arguments = [*IMAGES, *vae, "--data.path", "one", "--iterations", "2", "--out", "r"]
    assert train("potgan", *arguments)[0] == 0
    shutil.rmtree("r/checkpoints")  # as if it had been killed when the VAE was ready
    images(Path("one"), 8, seed=1)
    status, said = train("potgan", "--resume", "r")
    assert status == 2
    assert "other images" in said


def test_settings_of_a_trained_vae_are_refused(train):
    images(Path("one"), 8)
    vae = ["--vae.iterations", "2", "--vae.batch-size", "4", "--vae.game.networks.width", "2"]
    assert train("potgan", *IMAGES, *vae, "--data.path", "one", "--iterations", "2", "--out", "r")[0] == 0
    before = files(Path("r"))
    status, said = train("potgan", "--resume", "r", "--iterations", "3", "--vae.iterations", "50", "--vae.lr", "0.5")
    assert status == 2
    assert "vae.iterations 2 -> 50, vae.lr 0.001 -> 0.5" in said
    assert files(Path("r")) == before
    assert train("potgan", "--resume", "r", "--iterations", "3")[0] == 0


def test_a_run_can_be_resumed_from_another_folder(train, monkeypatch, tmp_path):
    images(Path("one"), 8)
    assert train("gan", *IMAGES, "--data.path", "one", "--iterations", "2", "--out", "r")[0] == 0
    monkeypatch.chdir(tmp_path)
    status, said = train("gan", "--resume", "here/r", "--iterations", "3")
    assert status == 0, said


def test_code_that_only_the_stored_settings_name_is_not_run(train, monkeypatch):
    assert train("3p-wgan", *TINY, "--iterations", "2", "--out", "r")[0] == 0
    Path("strange_cost.py").write_text(
        "open('ran', 'w').close()\ndef cost(x, y):\n    return (x - y).abs().sum(-1)\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    config = Path("r/config.json")
    config.write_text(config.read_text().replace('"cost": "l2"', '"cost": "strange_cost:cost"'))
    status, said = train("3p-wgan", "--resume", "r", "--iterations", "3")
    assert status == 2
    assert "asks to import 'strange_cost:cost' (game.cost)" in said
    assert not Path("ran").exists()
    status, said = train("3p-wgan", "--resume", "r", "--iterations", "3", "--game.cost", "strange_cost:cost")
    assert status == 0, said
    assert Path("ran").exists()


WRONG = [
    ("iterations", "forty"), ("iterations", 20.5), ("iterations", True), ("lr", None), ("lr", float("inf")),
    ("lr", float("nan")), ("betas", None), ("betas", [0.5]), ("betas", ["a", "b"]), ("batch_size", [1]),
    ("batch_size", "64"), ("device", 3), ("data", None), ("data", []), ("data.limit", "x"), ("data.size", "x"),
    ("data.name", 7), ("game", None), ("game.networks", None), ("game.networks.width", "big"),
    ("game.networks.width", 8.5), ("game.networks.name", "x"), ("game.critic_steps", 1.5), ("keep", 1.5),
    ("seed", "x"), ("seed", 2**64), ("out", 5), ("unheard_of", 1),
    ("game.gradient_penalty_weight", float("nan")),
]  # fmt: skip


def test_a_config_edited_by_hand_is_one_line_that_names_the_field(train):
    assert train("wgan-gp", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    path = Path("r/config.json")
    good = path.read_text()
    for field, value in WRONG:
        edited = json.loads(good)
        *parents, last = field.split(".")
        place = edited["config"]
        for parent in parents:
            place = place[parent]
        place[last] = value
        path.write_text(json.dumps(edited))
        status, said = train("wgan-gp", "--resume", "r", "--iterations", "6")
        assert status == 2, (field, value, said)
        assert len(said.splitlines()) == 1
        assert last in said, (field, value, said)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "", "7", "null", '{"game": "wgan-gp"}', "\x00", '{"game": "wgan-gp", "config": []}']
)
def test_a_damaged_config_is_one_line(train, text):
    assert train("wgan-gp", *TINY, "--iterations", "4", "--out", "r")[0] == 0
    Path("r/config.json").write_text(text)
    status, said = train("wgan-gp", "--resume", "r")
    assert status == 2
    assert len(said.splitlines()) == 1
    assert len(said) < 300
    assert "config.json" in said


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def put(name, value):
    return lambda state: {**state, name: value}


def put_moment(state):
    next(iter(state["optimizers"]["critic"]["state"].values()))["exp_avg"] = torch.zeros(3, 3)
    return state


EDITS = {
    **{f"no {name}": without(name) for name in ("rng", "noise", "step", "game", "optimizers", "ema", "data")},
    "nothing": lambda state: {"x": 1},
    "step": put("step", "forty"),
    "data": put("data", {}),
    "rng": put("rng", torch.zeros(3, dtype=torch.uint8)),
    "optimizers": put("optimizers", {"critic": "x", "generator": "x"}),
    "no critic": put("optimizers", {}),
    "ema": put("ema", {"updates": 1, "average": {"nope": torch.zeros(1)}}),
    "moments": put_moment,
    "weights": lambda state: {**state, "game": {name: value[:1] for name, value in state["game"].items()}},
}


def test_a_checkpoint_with_wrong_parts_is_passed_over_for_the_older_one(train):
    run = ["--iterations", "20", "--checkpoint-every", "10", "--out", "base"]
    assert train("wgan-gp", *TINY, *run)[0] == 0
    for name, edit in EDITS.items():
        shutil.rmtree("r", ignore_errors=True)
        shutil.copytree("base", "r")
        newest = Path("r/checkpoints/step_00000020.pt")
        torch.save(edit(torch.load(newest)), newest)
        status, said = train("wgan-gp", "--resume", "r")
        assert status == 0, (name, said)
        assert "warning: " in said, name
        assert "step_00000020.pt" in said, name
        assert "continues at step 10" in said, name
        Path("r/checkpoints/step_00000010.pt").unlink()
        torch.save(edit(torch.load(Path("base/checkpoints/step_00000020.pt"))), newest)
        before = files(Path("r"))
        status, said = train("wgan-gp", "--resume", "r")
        assert status == 2, (name, said)
        assert said.splitlines()[-1].startswith("error: "), name
        assert len(said.splitlines()[-1]) < 400, name
        assert files(Path("r")) == before, name


def test_two_processes_that_start_together_never_share_a_folder(tmp_path):
    arguments = [*TINY, "--iterations", "30", "--log-every", "10", "--sample-every", "1000"]

    def together(*runs: list[str]) -> list[int]:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "train", "gan", *run], cwd=tmp_path, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            )
            for run in runs
        ]  # fmt: skip
        return sorted(process.wait(timeout=120) for process in started)

    assert together([*arguments, "--out", "same"], [*arguments, "--out", "same", "--seed", "1"]) == [0, 2]
    more = ["--resume", "same", "--iterations", "60"]
    assert together(more, more) in ([0, 0], [0, 2])  # the second may come when the first is done
    steps = [json.loads(line)["step"] for line in (tmp_path / "same" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps.count(60) == 2  # losses and metrics
