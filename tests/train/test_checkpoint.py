"""Checkpoints: whole or absent, newest valid first, old ones removed; exports that load again."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
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
    state = checkpoint.newest_valid(tmp_path, warnings.append)
    assert state is not None
    assert state["step"] == 1
    assert torch.equal(state["weights"], torch.full((1000,), 1.0))
    assert len(warnings) == 2
    assert "step_00000003.pt is damaged" in warnings[0]
    assert "step_00000002.pt is damaged" in warnings[1]
    assert all("\n" not in warning for warning in warnings)


def test_an_empty_or_missing_file_is_damage_and_an_empty_folder_is_none(tmp_path):
    assert checkpoint.newest_valid(tmp_path / "missing", pytest.fail) is None
    (tmp_path / "step_00000001.pt").touch()
    warnings: list[str] = []
    assert checkpoint.newest_valid(tmp_path, warnings.append) is None
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
    state = checkpoint.newest_valid(tmp_path, warnings.append)
    assert state is not None
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
