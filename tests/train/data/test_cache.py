"""The cache of decoded images: where it lies, what is pruned, shown and cleared."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from train.__main__ import main
from train.data import cache
from train.data.cache import Notes, cache_file, cache_folder, read_cache, write_cache

IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
NOTES = Notes(["a.png: cut"], ["left out 1 hidden"], 3)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def stored(source: Path, listing: object = 1, size: int = 4) -> Path:
    file = cache_file(cache_folder(None), source, (size, None, "white"), listing)
    write_cache(file, source, IMAGES, NOTES)
    return file


def test_what_is_written_is_read(home):
    images, notes = read_cache(stored(home / "set"), 4)
    assert torch.equal(images, IMAGES)
    assert notes == NOTES


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (2, 1, 4, 4), (0, 3, 4, 4), (2, 48)])
def test_a_right_checksum_and_a_wrong_shape_is_damage(home, capsys, shape):
    file = stored(home / "set")
    images = torch.zeros(shape, dtype=torch.uint8)
    save_file({"images": images}, file, metadata={"crc32": str(cache._checksum(images)), "notes": json.dumps(NOTES)})
    assert read_cache(file, 4) is None
    save_file({"images": IMAGES.float()}, file, metadata={"crc32": "0", "notes": json.dumps(NOTES)})
    assert read_cache(file, 4) is None
    assert capsys.readouterr().err.count("is damaged and will be made again") == 2


def test_earlier_states_of_a_source_are_removed_and_other_caches_kept(home):
    old = stored(home / "set", listing=1)
    others = [stored(home / "set", size=8), stored(home / "other" / "set"), stored(home / "set-4px")]
    new = stored(home / "set", listing=2)
    assert not old.exists()
    assert all(file.exists() for file in (*others, new))


def test_what_killed_writers_left_is_swept(home):
    left = cache_folder(None) / ".set-4px.safetensors.999999999.part"
    left.touch()
    stored(home / "set")
    assert not left.exists()


def test_without_a_home_a_folder_of_the_users_own_is_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory")))
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = cache_folder(None)
    assert folder == tmp_path / f"otkernels-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "there is no home folder: decoded images are kept in" in capsys.readouterr().err
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is another user's"):
        cache_folder(None)


def test_a_relative_cache_home_is_ignored_as_its_specification_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder(None) == tmp_path / ".cache" / "otkernels"


def test_the_command_lists_and_clears(home, capsys):
    first, second = stored(home / "set"), stored(home / "o\x1bther")
    main(["data", "--cache"])
    text = capsys.readouterr().out
    assert f"{first.name}  " in text
    assert f"2 images of {home / 'set'}  0 days old" in text
    assert "2 files in" in text
    assert "\x1b" not in text
    main(["data", "--cache", "--clear", first.name])
    assert (first.exists(), second.exists()) == (False, True)
    assert "1 files removed" in capsys.readouterr().out
    main(["data", "--cache", "--clear"])
    assert not second.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m train data --cache"),
        (["--clear"], "usage: python -m train data --cache"),
        (["--cache", "--all"], "usage: python -m train data --cache"),
        (["--cache", "--clear", "none"], "no none in"),
    ],
)
def test_a_wrong_command_clears_nothing(home, arguments, message):
    file = stored(home / "set")
    with pytest.raises(ValueError, match=message):
        main(["data", *arguments])
    assert file.exists()
