"""Checkpoints: whole or absent, newest valid first, old ones removed."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from train.errors import ResourceError
from train.run import checkpoint


def state_at(step) -> dict:
    """The least that is a state."""
    rng = torch.get_rng_state()
    parts = {"seconds": 1.5, "device": "cpu", "optimizers": {}, "ema": None, "data": {}, "cuda_rng": None}
    return {"step": step, "game": {"weights": torch.full((1000,), float(step))}, **parts, "noise": rng, "rng": rng}


def save(folder, step, keep=3):
    return checkpoint.save(folder, state_at(step), step, keep)


def steps(folder) -> tuple[list[int], list[str]]:
    """Of the valid states, and the warnings on the way."""
    warnings: list[str] = []
    found = [state["step"] for _, state in checkpoint.valid_states(folder, warnings.append)]
    assert all(warning.isprintable() for warning in warnings)  # one line each
    return found, warnings


def test_the_newest_valid_one_wins_and_damage_is_named(tmp_path):
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
    assert torch.equal(state["game"]["weights"], torch.full((1000,), 1.0))
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


def test_torch_s_advice_to_run_the_code_is_not_passed_on(tmp_path):
    save(tmp_path, 1)
    torch.save({**state_at(2), "extra": Path("here")}, tmp_path / "step_00000002.pt")
    found, warnings = steps(tmp_path)
    assert found == [1]
    assert "holds something other than tensors" in warnings[0]
    assert "weights_only" not in warnings[0]


def lacking(part):
    def write(path):
        torch.save({name: value for name, value in state_at(2).items() if name != part}, path)

    return write


def with_part(**parts):
    return lambda path: torch.save({**state_at(2), **parts}, path)


def link_to_nothing(path):
    path.symlink_to(path.with_name("gone"))


def compressed(path):
    """A zip that is small on disk and large in memory."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(2**20))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.touch, "cut short or no checkpoint"),
        (Path.mkdir, "it is no file"),
        (os.mkfifo, "it is no file"),  # reading it would wait for ever
        (link_to_nothing, "it does not exist, or is a link to nothing"),
        (compressed, "declares more bytes than it holds"),
        (lacking("rng"), "it lacks rng"),
        (with_part(step="forty"), "step must be an integer >= 0, got str"),
        (with_part(rng=torch.zeros(3, dtype=torch.uint8)), "rng must be the state of a random generator"),
        (lambda path: torch.save([1], path), "must hold a mapping, got list"),
        (lambda path: torch.save({"\x1b[31m": torch.zeros(1)}, path), "it lacks step"),
    ],
)
def test_what_is_no_whole_state_is_named_and_the_older_one_taken(tmp_path, spoil, reason):
    save(tmp_path, 1)
    path = tmp_path / "step_00000002.pt"
    spoil(path)
    found, warnings = steps(tmp_path)
    assert found == [1]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert reason in warnings[0]


def test_a_file_without_permission_is_passed_over(tmp_path, monkeypatch):
    save(tmp_path, 1)
    newest, archive = save(tmp_path, 2), zipfile.ZipFile

    def refuse(path):  # root may read any file
        if path == newest:
            raise PermissionError(13, "Permission denied", str(path))
        return archive(path)

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    found, warnings = steps(tmp_path)
    assert found == [1]
    assert warnings == [f"checkpoint: {newest} is damaged: Permission denied; skipped"]


def test_too_little_memory_to_read_is_no_damage(tmp_path, monkeypatch):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    monkeypatch.setattr(torch, "load", lambda *a, **k: torch.empty(10**15))
    with pytest.raises(ResourceError, match=r"step_00000002\.pt was not read: there is not enough memory"):
        next(checkpoint.valid_states(tmp_path, pytest.fail))
    assert newest.exists()


def test_a_tensor_that_declares_more_than_the_file_holds_takes_no_memory(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    pickled = parts["archive/data.pkl"] if "archive/data.pkl" in parts else parts["step_00000002/data.pkl"]
    number = b"M" + struct.pack("<H", 1000)  # how pickle writes the tensor's size
    assert number in pickled
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            huge = content.replace(number, b"\x8a\x05" + struct.pack("<q", 10**11)[:5])
            archive.writestr(name, huge if name.endswith("data.pkl") else content)
    found, warnings = steps(tmp_path)
    assert found == [1]
    assert "step_00000002.pt is damaged" in warnings[0]


def test_two_names_of_one_step(tmp_path):
    save(tmp_path, 1).rename(tmp_path / "step_1.pt")
    assert steps(tmp_path) == ([1], [])
    path = save(tmp_path, 1, keep=1)
    assert checkpoint.checkpoints(tmp_path) == [path]  # not the one that was there
    for foreign in ("step_x.pt", "step_1.pt.bak", "step_\u0661.pt"):
        (tmp_path / foreign).touch()
    assert checkpoint.checkpoints(tmp_path) == [path]


def test_a_folder_with_a_checkpoint_s_name_is_left_alone(tmp_path):
    (tmp_path / "step_00000001.pt").mkdir()
    (tmp_path / "step_00000009.pt").symlink_to(tmp_path / "gone")
    for step in (2, 3):
        save(tmp_path, step, keep=1)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["step_00000001.pt", "step_00000003.pt"]
