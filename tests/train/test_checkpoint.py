"""Checkpoints: whole or absent, newest valid first, old ones removed; exports that load again."""

from __future__ import annotations

import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from typing import cast

import pytest
import torch

from models.games import GAMES, PotGan, Vae
from models.games.export import load_game
from models.games.potgan import PotGanConfig
from models.games.vae import VaeConfig
from models.networks import NetworkConfig
from train import checkpoint
from train.errors import TrainingError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def save(folder, step, keep=3):
    return checkpoint.save(folder, {"step": step, "weights": torch.full((1000,), float(step))}, step, keep)


def test_newest_valid_wins_and_damage_is_named(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    truncated = tmp_path / "step_00000003.pt"
    truncated.write_bytes(truncated.read_bytes()[:-500])
    flipped = tmp_path / "step_00000002.pt"
    content = bytearray(flipped.read_bytes())
    content[content.index(torch.full((4,), 2.0).numpy().tobytes()) + 6] ^= 1  # one bit of a weight
    flipped.write_bytes(content)
    warnings: list[str] = []
    ((path, state),) = checkpoint.valid_states(tmp_path, warnings.append)
    assert (path.name, state["step"]) == ("step_00000001.pt", 1)
    assert torch.equal(state["weights"], torch.full((1000,), 1.0))
    assert len(warnings) == 2
    assert "step_00000003.pt is damaged" in warnings[0]
    assert "step_00000002.pt is damaged" in warnings[1]
    assert all("\n" not in warning for warning in warnings)


def test_an_empty_or_missing_file_is_damage_and_an_empty_folder_is_none(tmp_path):
    assert list(checkpoint.valid_states(tmp_path / "missing", pytest.fail)) == []
    (tmp_path / "step_00000001.pt").touch()
    warnings: list[str] = []
    assert list(checkpoint.valid_states(tmp_path, warnings.append)) == []
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "error", [EOFError(), struct.error("short"), NotImplementedError("method"), zlib.error("-3"), KeyError("name")]
)
def test_whatever_the_parser_raises_the_older_checkpoint_is_taken(tmp_path, monkeypatch, error):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    test = zipfile.ZipFile.testzip

    def broken(self):
        if self.filename == str(newest):
            raise error
        return test(self)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", broken)
    warnings: list[str] = []
    ((_, state),) = checkpoint.valid_states(tmp_path, warnings.append)
    assert state["step"] == 1
    assert warnings == [f"checkpoint: {newest} is damaged: {str(error) or 'EOFError'}; skipped"]


def test_the_newest_k_stay(tmp_path):
    for step in (5, 900, 10_000, 123_456_789):
        save(tmp_path, step, keep=2)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [123_456_789, 10_000]


def test_a_damaged_later_file_does_not_push_out_the_new_one(tmp_path):
    save(tmp_path, 10, keep=1)
    (tmp_path / "step_00000010.pt").write_bytes(b"damaged")
    path = save(tmp_path, 5, keep=1)
    assert checkpoint.checkpoints(tmp_path) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "state.json"
    checkpoint.write_json(path, {"a": 1})
    before = path.read_bytes()

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.write_atomically(path, fail)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_the_file_is_synced_before_its_name_appears_and_the_folder_after(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    events: list[tuple[str, bool]] = []
    sync = checkpoint._sync
    monkeypatch.setattr(checkpoint, "_sync", lambda p: (events.append((p.name, path.exists())), sync(p)))
    checkpoint.write_json(path, {})
    assert events == [(f".state.json.{os.getpid()}.part", False), (tmp_path.name, True)]


def test_what_is_no_checkpoint_is_damage(tmp_path):
    """A folder is passed over; a dangling link, compressed parts, which could hide any size, and a pickle are damage."""
    good = save(tmp_path, 0)
    (tmp_path / "step_00000001.pt").mkdir()
    (tmp_path / "step_00000002.pt").symlink_to(tmp_path / "nowhere")
    with zipfile.ZipFile(tmp_path / "step_00000003.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10_000_000))
    torch.save({"trap": pathlib.PurePosixPath("x")}, tmp_path / "step_00000004.pt")
    warnings: list[str] = []
    assert [path for path, _ in checkpoint.valid_states(tmp_path, warnings.append)] == [good]
    expected = ("holds more than tensors and plain values", "its parts are compressed", "it is no file")
    for warning, reason in zip(warnings, expected, strict=True):
        assert reason in warning
        assert "weights_only" not in warning


def test_what_killed_writers_left_is_swept(tmp_path):
    left = [".step_00000015.pt.999999.part", "deep/er/.report.html.12.part"]
    kept = ["step_00000015.pt", ".hidden.part", "a.1.part", ".lock"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    checkpoint.sweep(tmp_path)
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in kept)


@pytest.mark.parametrize("kind", ["checkpoint", "json", "export", "picture"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, kind):
    """In a process whose files may have 50 kB, as on a full disk; afterwards the same write succeeds."""
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\nfrom train import checkpoint, plots\n"
        "from train.errors import TrainingError\nfrom models.games import Vae\n"
        "from models.networks import NetworkConfig\n"
        "folder, kind = Path(sys.argv[1]), sys.argv[2]\n"
        "def write():\n"
        "    if kind == 'checkpoint': checkpoint.save(folder, {'w': torch.randn(100_000)}, 7, 2)\n"
        "    if kind == 'json': checkpoint.write_json(folder / 'a.json', 'x' * 400_000)\n"
        "    if kind == 'export':\n"
        "        game = Vae.build(Vae.Config(networks=NetworkConfig('mlp', width=256)), (2,))\n"
        "        checkpoint.export(folder, 'vae', game, (2,))\n"
        "    if kind == 'picture': plots.image_grid(torch.rand(64, 3, 64, 64) * 2 - 1, folder / 'a.png')\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))\n"
        "try: write()\n"
        "except TrainingError as error: print(error)\n"
        "print(sorted(p.name for p in folder.iterdir()))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))\nwrite()\n"
        "print(len(list(folder.iterdir())) > 1)\n"
    )
    (tmp_path / "before").write_text("kept")
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), kind], cwd=ROOT, capture_output=True, text=True, check=True
    )
    message, left, after = run.stdout.splitlines()
    assert message.startswith(f"train: {tmp_path}")
    assert "larger than is allowed" in message
    assert "--resume DIR continues the run" in message
    assert left == "['before']"
    assert after == "True"


def test_weights_that_are_not_finite_are_never_exported(tmp_path):
    game = GAMES["vae"].build(GAMES["vae"].Config(networks=NetworkConfig("mlp", width=4)), (2,))
    with torch.no_grad():
        next(game.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(TrainingError, match="is not finite"):
        checkpoint.export(tmp_path / "export", "vae", game, (2,))
    assert not (tmp_path / "export" / "config.json").exists()


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    path = tmp_path / "step_00000001.pt"
    torch.save({"trap": Trap()}, path)
    with pytest.raises(ValueError, match=r"step_00000001\.pt is damaged"):
        checkpoint.load(path)
    assert not (tmp_path / "sprung").exists()
    with path.open("wb") as file:
        pickle.dump(Trap(), file)
    with pytest.raises(ValueError, match=r"step_00000001\.pt is damaged"):
        checkpoint.load(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", list(GAMES))
def test_an_export_loads_as_the_same_game(tmp_path, name):
    kind = GAMES[name].Config
    config = kind(networks=kind().networks.__class__(name="mlp", width=8, depth=1, noise_dim=2))
    torch.manual_seed(0)
    game = GAMES[name].build(config, (2,)).eval()
    checkpoint.export(tmp_path / name, name, game, (2,))
    loaded, shape = load_game(tmp_path / name, GAMES)
    assert shape == (2,)
    noise = torch.randn(5, 2)
    assert torch.equal(loaded.sample(noise), game.sample(noise))


def test_an_export_with_an_encoder_loads_after_the_run_has_moved(tmp_path):
    small, large = NetworkConfig("mlp", width=8, noise_dim=2), NetworkConfig("mlp", width=4, depth=1, noise_dim=5)
    checkpoint.export(tmp_path / "run/vae", "vae", Vae.build(VaeConfig(large), (3,)), (3,))
    game = PotGan.build(PotGanConfig(small, encoder=str(tmp_path / "run/vae")), (3,)).eval()
    checkpoint.export(tmp_path / "run/export", "potgan", game, (3,))
    (tmp_path / "run/export").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    loaded, _ = load_game(tmp_path / "elsewhere", GAMES)
    x = torch.randn(4, 3)
    assert torch.equal(cast(PotGan, loaded).encoder(x), game.encoder(x))
    checkpoint.export(tmp_path / "again", "potgan", loaded, (3,))  # an export of an export is as complete
    assert (tmp_path / "again/config.json").read_text() == (tmp_path / "elsewhere/config.json").read_text()
