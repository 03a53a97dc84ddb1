"""A finished phase is kept and taken by other runs, which then equal the run that trained it."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.games import VaeGame
from models.games.potgan import ForestConfig, PotGanConfig
from models.games.vae import VaeConfig
from models.networks import NetworkConfig
from train.__main__ import main
from train.data.config import DataConfig
from train.errors import ResourceError, Stopped
from train.report.record import FIGURES
from train.run import checkpoint, shelf
from train.run.config import load_config, run_config
from train.run.files import write_json
from train.run.outputs import Outputs
from train.run.play import play
from train.run.resume import Resume

MLP = NetworkConfig(name="mlp", width=8, depth=1, noise_dim=4)
POTGAN = run_config("potgan")
BASE = POTGAN(
    data=DataConfig(name="digits", size=8, limit=64),
    iterations=2,
    batch_size=8,
    checkpoint_every=1,
    game=PotGanConfig(networks=MLP, critic_steps=1, forest=ForestConfig(trees=2, depth=2)),
)
VAE = replace(BASE.vae, iterations=3, batch_size=8, game=VaeConfig(networks=MLP))
BASE = replace(BASE, vae=VAE)


@pytest.fixture
def plain(monkeypatch):
    """No pictures or reports, which take most of a tiny run's time."""

    def final(self, log, seconds):
        self.export(self._directory / "export")
        write_json(self._directory / FIGURES, {"step": self._loop.step})
        (self._directory / "report.html").write_text("")
        return {}

    monkeypatch.setattr(Outputs, "final", final)
    monkeypatch.setattr(Outputs, "at_interval", lambda self, log: None)
    monkeypatch.setattr(Outputs, "make_up", lambda self, log: None)


@pytest.fixture
def steps(plain, monkeypatch):
    """How many steps VAEs have taken."""
    taken, step = [], VaeGame.step
    monkeypatch.setattr(VaeGame, "step", lambda self, *arguments: (taken.append(1), step(self, *arguments))[1])
    return taken


@pytest.fixture
def run(tmp_path):
    """A function: play BASE with changes in the folder of that name."""

    def start(name: str, resume: bool = False, **changes) -> Path:
        directory = tmp_path / name
        config = replace(BASE, out=str(directory), **changes)
        stored = load_config(directory, "potgan", POTGAN) if resume else None
        play("potgan", config, None if stored is None else Resume(directory, stored), "potgan")
        return directory

    return start


def kept() -> list[Path]:
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "otkernels" / "phases"
    return sorted(path for path in folder.iterdir() if path.is_dir())


def state(directory: Path) -> dict:
    return next(checkpoint.valid_states(directory / "checkpoints", pytest.fail))[1]


def same(ours, theirs) -> bool:
    """Whether two states are equal bit for bit."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def test_a_run_that_takes_a_phase_equals_the_run_that_trained_it(run, steps, capsys):
    first = run("first")
    assert len(steps) == 3
    torch.manual_seed(99)
    second = run("second")
    assert len(steps) == 3
    assert f"vae: it was trained before; taken from {kept()[0]}" in capsys.readouterr().out
    ours, theirs = state(second), state(first)
    del ours["seconds"], theirs["seconds"]
    assert same(ours, theirs)
    own = run("own", vae=replace(VAE, reuse=False))
    theirs = state(own)
    del theirs["seconds"]
    assert same(ours, theirs)
    assert len(steps) == 6


def test_what_is_taken_is_a_whole_run_with_its_newest_checkpoint(run, monkeypatch):
    first, second = run("first"), run("second")
    names = {str(path.relative_to(first)) for path in (first / "vae").rglob("*") if path.is_file()}
    theirs = {str(path.relative_to(second)) for path in (second / "vae").rglob("*") if path.is_file()}
    assert names - theirs == {"vae/.lock", "vae/checkpoints/step_00000002.pt"}
    assert not theirs - names
    assert (second / "vae" / "report.html").read_text().count("reconstruction") > 0
    monkeypatch.chdir(second)
    main(["vae", "--resume", "vae", "--iterations", "4"])
    assert (second / "vae" / "checkpoints" / "step_00000004.pt").exists()


OTHERS = {
    "rate": {"vae": replace(VAE, lr=1e-3)},
    "iterations": {"vae": replace(VAE, iterations=4)},
    "game": {"vae": replace(VAE, game=VaeConfig(networks=MLP, noise_scale=0.4))},
    "seed": {"seed": 1},
    "data": {"data": replace(BASE.data, limit=63)},
    "threads": {"threads": 2},
    "precision": {"precision": "bf16"},
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_another_phase_is_trained_anew(name, run, steps):
    run("first", threads=1)
    taken = len(steps)
    run("other", **{"threads": 1, **OTHERS[name]})
    assert len(steps) > taken
    assert len(kept()) == 2


def test_other_code_trains_anew(run, steps, monkeypatch):
    run("first")
    monkeypatch.setattr(shelf, "code_digest", lambda *modules: "of changed sources")
    run("other")
    assert len(steps) == 6


def test_settings_of_the_game_and_intervals_do_not_matter(run, steps):
    run("first")
    run("other", game=replace(BASE.game, transport_weight=1.0), iterations=1, log_every=1, sample_every=1)
    assert len(steps) == 3


def test_a_seed_of_its_own_is_shared_by_runs_with_other_seeds(run, steps):
    first = run("first", seed=1, vae=replace(VAE, seed=7))
    second = run("second", seed=2, vae=replace(VAE, seed=7))
    alone = run("alone", seed=7)
    assert len(steps) == 3  # a run of seed 7 has the same, too
    encoders = [
        {name: value for name, value in state(directory)["game"].items() if name.startswith("encoder.")}
        for directory in (first, second, alone)
    ]
    assert encoders[0]
    assert same(encoders[0], encoders[1])
    assert same(encoders[0], encoders[2])
    assert not same(state(first)["game"], state(second)["game"])


def test_a_damaged_phase_is_said_removed_and_trained_anew(run, steps, capsys):
    run("first")
    weights = kept()[0] / "export" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    run("second")
    assert "is damaged and will be made again" in capsys.readouterr().out
    assert len(steps) == 6
    run("third")
    assert len(steps) == 6


def interrupt(monkeypatch, step):
    original, calls = VaeGame.step, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(VaeGame, "step", interrupted)


@pytest.mark.parametrize(("changes", "count"), [({}, 1), ({"vae": replace(VAE, lr=1e-3)}, 0)])
def test_an_interrupted_phase_is_kept_unless_its_settings_changed_on_the_way(plain, run, monkeypatch, changes, count):
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Stopped):
            run("parts")
    assert kept() == []
    run("parts", resume=True, **changes)
    assert len(kept()) == count


def test_a_phase_whose_settings_changed_and_changed_back_is_not_kept(plain, run, monkeypatch):
    longer = replace(VAE, iterations=4)
    for changes in ({"vae": longer}, {"vae": replace(longer, lr=1e-3), "resume": True}):
        with monkeypatch.context() as patch:
            interrupt(patch, 1)
            with pytest.raises(Stopped):
                run("parts", **changes)
    run("parts", resume=True, vae=longer)
    assert kept() == []


def test_an_interrupted_phase_goes_on_although_another_run_has_finished_it(run, monkeypatch, steps):
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Stopped):
            run("parts")
    whole = run("whole")
    parts = run("parts", resume=True)
    assert len(steps) == 2 + 3 + 1
    assert same(state(parts)["game"], state(whole)["game"])


def test_a_phase_that_left_no_checkpoint_is_taken(run, steps):
    first = run("first")
    second = shutil.copytree(first, first.with_name("second"))
    for name in ("checkpoints", "export", "vae/checkpoints", "vae/export"):
        shutil.rmtree(second / name)
    (second / "report.html").unlink()
    stored = json.loads((second / "config.json").read_text())
    stored["config"]["out"] = str(second)
    (second / "config.json").write_text(json.dumps(stored))
    run("second", resume=True)
    assert len(steps) == 3
    assert (second / "vae" / "export" / "config.json").exists()


def test_one_run_waits_for_another_that_trains_the_same(run, steps, tmp_path, capsys):
    run("first")
    lock = kept()[0].with_name(f".{kept()[0].name}.lock")
    holder = lock.open("a")
    fcntl.flock(holder, fcntl.LOCK_EX)
    waiting = threading.Thread(target=run, args=("second",))
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive()
    assert "another run is training the same phase; this one waits for it" in capsys.readouterr().out
    assert not (tmp_path / "second" / "vae").exists()
    holder.close()
    waiting.join(60)
    assert (tmp_path / "second" / "vae" / "export").exists()
    assert len(steps) == 3


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(plain, run, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    directory = run("first")
    assert (directory / "vae" / "export" / "config.json").exists()
    assert "phases: nothing is kept for other runs: data: the cache folder" in capsys.readouterr().out


def fill_disk(patch):
    """While a phase is copied no file may grow, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    copy = shelf._copy

    def full(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            copy(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    patch.setattr(shelf, "_copy", full)


def test_a_disk_that_is_full_when_a_phase_is_kept_is_said_and_the_run_goes_on(plain, run, monkeypatch, capsys):
    fill_disk(monkeypatch)
    assert (run("first") / "report.html").exists()
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("phases: ")]
    assert said.startswith("phases: nothing is kept for other runs: ")
    assert "was not written: the file size limit is reached (ulimit -f)" in said
    assert list((Path(os.environ["XDG_CACHE_HOME"]) / "otkernels" / "phases").glob("vae*")) == []


def test_a_disk_that_is_full_when_a_phase_is_taken_ends_a_run_that_can_be_resumed(run, steps, monkeypatch, tmp_path):
    first = run("first")
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(ResourceError, match=r"second/vae was not written: the file size limit is reached"):
            run("second")
    assert not (tmp_path / "second" / "vae").exists()
    assert same(state(run("second", resume=True))["game"], state(first)["game"])


def test_a_shelf_that_takes_no_lock_is_used_without_one(run, steps, capsys):
    run("first")
    lock = kept()[0].with_name(f".{kept()[0].name}.lock")
    lock.unlink()
    lock.mkdir()  # cannot be opened
    assert (run("second") / "vae" / "export" / "config.json").exists()
    assert len(steps) == 3


def test_the_folder_of_the_data_cache_is_that_of_phases_too(plain, run, tmp_path):
    run("first", data=replace(BASE.data, cache=str(tmp_path / "mine")))
    assert len(list((tmp_path / "mine" / "phases").glob("vae-digits-*"))) == 1


def test_phases_are_listed_and_cleared(plain, run, capsys):
    run("first")
    run("second", seed=5)
    first, second = kept()
    capsys.readouterr()
    main(["phases"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("vae on 64 images of digits, 3 iterations, seed " in line for line in lines[:2])
    assert lines[2].startswith("2 phases in ")
    with pytest.raises(ValueError, match="no none in"):
        main(["phases", "--clear", "none"])
    with pytest.raises(ValueError, match=r"usage: python -m train phases \[--clear"):
        main(["phases", "--all"])
    main(["phases", "--clear", first.name])
    assert kept() == [second]
    main(["phases", "--clear"])
    assert kept() == []
    assert "1 phases removed" in capsys.readouterr().out


def test_the_digest_of_code_changes_with_what_a_module_imports(tmp_path, monkeypatch):
    for name in ("models/games", "models/networks", *(str(Path(name).parent) for name in shelf.TRAINING)):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    sources = {
        "models/games/mine.py": "from models.networks import layer\nimport torch\n",
        "models/games/other.py": "from models.games import mine\n",
        "models/networks/__init__.py": "from models.networks.deep import layer\n",
        "models/networks/deep.py": "layer = 1\n",
        **dict.fromkeys(shelf.TRAINING, "from models.games import other\n"),
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(shelf, "ROOT", tmp_path)

    def digest() -> str:
        return shelf.code_digest.__wrapped__("models.games.mine", "builtins")

    before = digest()
    for name, matters in (
        ("models/networks/deep.py", True),
        ("models/networks/__init__.py", True),
        ("models/games/mine.py", True),
        ("train/run/loop.py", True),
        ("models/games/other.py", False),
    ):
        (tmp_path / name).write_text(sources[name] + "# changed\n")
        assert (digest() != before) == matters, name
        (tmp_path / name).write_text(sources[name])
    assert digest() == before
