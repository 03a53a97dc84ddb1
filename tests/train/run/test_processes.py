"""A run over several processes: the run of one but for rounding, with one set of files, whatever stops it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.games import GAMES, Gan, Loss
from tests.processes import unused_port
from tests.train.scores.conftest import TINY, TinyNetwork
from train.__main__ import main
from train.cli import guarded
from train.scores import evaluate, images, toy
from train.scores.extractors import Extractor

ROOT = Path(__file__).resolve().parents[3]
RING = ["--preset", "ring8", "--game.networks.width", "8", "--game.networks.depth", "1", "--batch-size", "16"]
OFTEN = ["--iterations", "9", "--log-every", "3", "--sample-every", "6", "--checkpoint-every", "3", "--ema", "0.9"]
SMALL = ["--data.size", "8", "--batch-size", "8", "--game.networks.width", "2", "--vae.game.networks.width", "2"]


@pytest.fixture(autouse=True)
def cheap(monkeypatch, tmp_path):
    """Each test in a folder of its own; the reverse KL of 10,000 points takes seconds."""
    monkeypatch.setattr(toy, "toy_metrics", lambda samples, target: {"reverse_kl": float(samples.mean())})
    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"):
        monkeypatch.delenv(name, raising=False)


def child(rank: int, size: int, port: int, argv: list[str], out: Path) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    with out.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        status = guarded(lambda: main(argv))
    os._exit(status)


def together(size: int, *argv: str, at: str = "", send: dict[int, int] = {}) -> tuple[list[int | None], list[str]]:  # noqa: B006
    """Run a command line in ``size`` forked processes as torchrun would; their exit statuses and what they printed.

    send: signals by rank, when the file ``at`` appears.
    """
    port = unused_port()
    outs = [Path(f"output{rank}") for rank in range(size)]
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=child, args=(rank, size, port, list(argv), outs[rank])) for rank in range(size)]
    for process in children:
        process.start()
    while at and not Path(at).exists() and any(process.is_alive() for process in children):
        time.sleep(0.01)
    for rank, number in send.items():
        os.kill(children[rank].pid or 0, number)
    for process in children:
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in children], [out.read_text() for out in outs]


def alone(*argv: str) -> None:
    assert guarded(lambda: main(list(argv))) == 0


def checkpoint(folder: str, step: int) -> dict:
    return torch.load(f"{folder}/checkpoints/step_{step:08d}.pt", weights_only=True)


def rows(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def close(a: object, b: object, where: str = "") -> None:
    """The same but for float32's rounding over a few steps, in which Adam magnifies that of small gradients."""
    if isinstance(a, Tensor):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True, msg=lambda text: f"{where}: {text}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds", "threads"}:
            close(a[key], b[key], f"{where} {key}")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4), where
    else:
        assert a == b, where


@pytest.mark.parametrize("size", [2, 4])
def test_a_run_over_processes_is_that_of_one(size):
    command = ["potgan", *RING, *OFTEN]
    alone(*command, "--out", "one")
    statuses, printed = together(size, *command, "--out", "many")
    assert statuses == [0] * size, printed
    assert printed[1:] == [""] * (size - 1)
    names = ["samples/00000006.png", "samples.png", "report.html", "export/model.safetensors", "config.json"]
    assert all(Path("many", name).is_file() for name in names)
    close(checkpoint("one", 9), checkpoint("many", 9))
    assert [row["step"] for row in rows("many")] == [row["step"] for row in rows("one")]
    for one, many in zip(rows("one"), rows("many"), strict=True):
        close(one, many)


def test_a_run_goes_on_with_another_number_of_processes():
    command = ["3p-wgan", *RING, *OFTEN, "--sync-batch-norm"]
    alone(*command, "--out", "one")
    shutil.copytree("one", "rest")
    for name in ("step_00000009.pt",):
        Path("rest/checkpoints", name).unlink()
    statuses, printed = together(2, "3p-wgan", "--resume", "rest")
    assert statuses == [0, 0], printed
    assert "continues at step 6" in printed[0]
    close(checkpoint("one", 9), checkpoint("rest", 9))


def test_statistics_of_batch_norm_agree_without_synchronisation():
    statuses, printed = together(2, "dcgan", *RING, *OFTEN, "--out", "run")
    assert statuses == [0, 0], printed
    state = checkpoint("run", 9)
    assert all(value.isfinite().all() for value in state["game"].values())
    again, printed = together(2, "dcgan", *RING, *OFTEN, "--out", "again")
    assert again == [0, 0], printed
    assert all(torch.equal(value, checkpoint("again", 9)["game"][name]) for name, value in state["game"].items())


@pytest.fixture
def pictures():
    draw = np.random.default_rng(0)
    Path("pictures").mkdir()
    for i in range(40):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(f"pictures/{i}.png")
    return "pictures"


def test_phases_scores_and_samples_over_processes(pictures, monkeypatch):
    tiny = Extractor(TINY, TinyNetwork(), "0", torch.device("cpu"), 8)
    for module in (images, evaluate):
        monkeypatch.setattr(module, "load_extractor", lambda *_: tiny)
    data = [
        "--preset",
        "folder32-cpu",
        "--data.path",
        pictures,
        *SMALL,
        "--vae.iterations",
        "3",
        "--vae.batch-size",
        "8",
    ]
    scored = [
        "--sync-batch-norm",
        "--scores.extractor",
        "efficientnet-lite2",
        "--scores.n",
        "21",
        "--scores.every",
        "3",
    ]
    command = ["potgan", *data, *OFTEN, *scored]
    alone(*command, "--out", "one")
    statuses, printed = together(2, *command, "--out", "two")
    assert statuses == [0, 0], printed
    assert printed[1] == ""
    close(checkpoint("one", 9), checkpoint("two", 9))
    one, two = (json.loads(Path(run, "scores.json").read_text())["rows"] for run in ("one", "two"))
    assert [row["step"] for row in two] == [3, 6, 9]
    for first, second in zip(one, two, strict=True):
        close(first, second)
    assert Path("two/vae/export/model.safetensors").is_file()

    alone("sample", "one", "--n", "23", "--batch-size", "5", "--out", "one.npz")
    statuses, printed = together(2, "sample", "one", "--n", "23", "--batch-size", "5", "--out", "two.npz")
    assert statuses == [0, 0], printed
    first, second = (np.load(f"{name}.npz")["arr_0"].astype(int) for name in ("one", "two"))
    assert first.shape == second.shape == (23, 8, 8, 3)
    assert abs(first - second).max() <= 1  # float32 rounded to whole numbers

    alone("evaluate", "one", "--n", "23", "--extractor", "efficientnet-lite2", "--out", "one.json")
    statuses, printed = together(
        2, "evaluate", "one", "--n", "23", "--extractor", "efficientnet-lite2", "--out", "two.json"
    )
    assert statuses == [0, 0], printed
    first, second = (json.loads(Path(f"{name}.json").read_text())["scores"] for name in ("one", "two"))
    assert first == pytest.approx(second, rel=1e-2, abs=1e-2)


def test_what_is_wrong_over_processes_is_said():
    statuses, printed = together(2, "potgan", *RING, "--batch-size", "15", "--out", "odd")
    assert 2 in statuses
    assert "train: the batch_size of potgan must be a multiple of the 2 processes, got 15" in "".join(printed)
    statuses, printed = together(2, "3p-wgan", *RING, "--batch-size", "2", "--out", "few")
    assert 2 in statuses
    assert "batch_size must be at least 2 in each of the 2 processes, or sync_batch_norm on, for 3p-wgan" in printed[0]
    statuses, printed = together(2, "potgan", *RING, "--device", "cuda:0")
    assert statuses == [2, 2]
    assert "train: device must be cpu or cuda over several processes, got cuda:0" in printed[0]


def test_without_a_folder_lost_processes_could_not_come_back(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert guarded(lambda: main(["gan", *RING])) == 2
    assert "torchrun --max-restarts needs a folder to come back to: add --out DIR" in capsys.readouterr().err


LONG = [
    "--lr-decay",
    "constant",
    "--iterations",
    "100000",
    "--log-every",
    "100",
    "--sample-every",
    "100000",
    "--checkpoint-every",
    "5",
]


def test_a_signal_to_one_process_ends_all_at_one_step_with_a_checkpoint():
    command = ["gan", *RING, *LONG, "--keep", "100000"]
    statuses, printed = together(
        2, *command, "--out", "run", at="run/checkpoints/step_00000010.pt", send={1: signal.SIGTERM}
    )
    assert statuses == [128 + signal.SIGTERM] * 2, printed
    steps = sorted(int(path.stem[5:]) for path in Path("run/checkpoints").glob("*.pt"))
    assert f"SIGTERM at step {steps[-1]}: saved in run" in printed[0]
    assert printed[1] == ""
    last = checkpoint("run", steps[-1])
    # From an earlier checkpoint, two processes come by the same step with the same bits.
    for step in [step for step in steps if step > 5]:
        Path(f"run/checkpoints/step_{step:08d}.pt").unlink()
    statuses, printed = together(2, "gan", "--resume", "run", "--iterations", str(max(steps[-1], 6)))
    assert statuses == [0, 0], printed
    again = checkpoint("run", steps[-1])
    for part in ("game", "ema"):
        assert str(again[part]) == str(last[part])
    assert all(torch.equal(value, again["game"][name]) for name, value in last["game"].items())


def test_a_process_that_is_killed_ends_the_others_with_a_line():
    statuses, printed = together(
        2, "gan", *RING, *LONG, "--out", "run", at="run/checkpoints/step_00000010.pt", send={1: signal.SIGKILL}
    )
    assert statuses == [1, -signal.SIGKILL]
    error = printed[0].splitlines()[-1]
    assert error == "error: train: process 0 lost its connection to another one, which has ended"


def test_a_loss_that_is_not_finite_in_one_process_is_named_by_all(monkeypatch):
    class Poisoned(Gan):
        """NaN in one process."""

        def discriminator_loss(self, real: Tensor, noise: Tensor) -> Loss:
            loss = super().discriminator_loss(real, noise)
            self.played = getattr(self, "played", 0) + 1
            bad = self.played == 4 and self.processes.rank == 1
            return Loss(loss.value * float("nan"), loss.terms) if bad else loss

    monkeypatch.setitem(GAMES, "gan", Poisoned)
    statuses, printed = together(2, "gan", *RING, *OFTEN, "--out", "run")
    assert statuses == [1, 1], printed
    for text in printed:
        assert "train: the loss of player 'discriminator' is not finite at step 4; the last good checkpoint is" in text
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step_00000003.pt"]


def test_processes_that_drift_apart_are_stopped(monkeypatch):
    class Drifting(Gan):
        """Another step in each process."""

        def step(self, player: str, real: Tensor, noise: Tensor, optimizer: torch.optim.Optimizer) -> Loss:
            loss = super().step(player, real, noise, optimizer)
            with torch.no_grad():
                next(self.players["generator"].parameters()).add_(1e-3 * self.processes.rank)
            return loss

    monkeypatch.setitem(GAMES, "gan", Drifting)
    statuses, printed = together(2, "gan", *RING, *OFTEN, "--out", "run")
    assert statuses == [1, 1], printed
    said = "train: the processes' parameters of player 'generator' are no longer the same after step 3"
    assert all(said in text for text in printed)


@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_brings_a_lost_process_back_and_the_run_goes_on(nodes):
    """Killed by SIGKILL at any moment; the bits are those of a run that nobody touched.

    Each of 2 nodes has one process and an agent of its own, which counts its own losses alone.
    """
    small = ["--data.name", "digits", "--data.size", "8", "--game.networks.name", "mlp", "--game.networks.width", "8"]
    command = ["gan", *small, *OFTEN, "--iterations", "80", "--checkpoint-every", "5", "--sample-every", "1000"]
    statuses, printed = together(2, *command, "--out", "whole")
    assert statuses == [0, 0], printed
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{unused_port()}", "--local-addr", "localhost"]
    where = ["--standalone"] if nodes == 1 else ["--nnodes", "2", *meeting]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", str(2 // nodes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with Path("log").open("w") as log:
        agents = [
            subprocess.Popen(
                [*torchrun, "--max-restarts", "3", "-m", "train", *command, "--out", "lost"],
                env=environment, stdout=log, stderr=log,
            )
            for _ in range(nodes)
        ]  # fmt: skip
        try:
            until = time.monotonic() + 100
            while not list(Path("lost/checkpoints").glob("step_*.pt")) and time.monotonic() < until:
                time.sleep(0.01)
            worker = subprocess.run(["pgrep", "-P", str(agents[-1].pid)], capture_output=True, text=True).stdout
            os.kill(int(worker.split()[-1]), signal.SIGKILL)
            assert [agent.wait(200) for agent in agents] == [0] * nodes, Path("log").read_text()
        finally:
            for agent in agents:
                agent.kill()
    printed = Path("log").read_text()
    assert printed.count("continues at step") == 1, printed
    assert "holds a run" not in printed
    whole, lost = checkpoint("whole", 80), checkpoint("lost", 80)
    assert all(torch.equal(value, lost["game"][name]) for name, value in whole["game"].items())
    assert [row["step"] for row in rows("lost")] == [row["step"] for row in rows("whole")]
