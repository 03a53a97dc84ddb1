"""The cache of decoded images: where it lies, what is in it, when it is trusted, and who may write it."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from train.data import cache
from train.data.archives import LeftOut
from train.data.cache import cache_folder, keep, read_cache
from train.data.fingerprint import image_fingerprint
from train.data.notes import Notes
from train.errors import ResourceError

PIXELS = np.random.default_rng(3).integers(0, 256, (2500, 3, 4, 4), dtype=np.uint8)


@dataclass
class Numbers:
    """A source whose images come in an order that is not that of their names; it counts how often it is asked."""

    path: Path
    count: int = 6
    size: int = 4
    settings: tuple[object, ...] = ()
    state: int = 1
    changes: bool = False
    asked: int = field(default=0)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def listing(self) -> object:
        return self.state

    def blocks(self, notes):
        self.asked += 1
        self.state += self.changes
        order = np.random.default_rng(1).permutation(self.count)
        for rows in np.array_split(order, max(1, self.count // 2)):
            yield [f"{i:05d}" for i in rows], np.resize(PIXELS, (self.count, 3, self.size, self.size))[rows]
        notes.saw(40, 30, self.count)
        notes.skip("a.png", "cut")
        notes.transparent, notes.frames = 2, 1


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def files(home: Path) -> set[str]:
    return {path.name for path in (home / "cache" / "otkernels").iterdir()}


@pytest.mark.parametrize("count", [1, 6, 2500])
def test_images_are_kept_by_name_and_read_from_a_mapped_file(home, count):
    source = Numbers(home / "set", count)
    made = keep(source, None)
    assert torch.equal(made.images, torch.tensor(PIXELS[:count]))
    assert made.fingerprint == image_fingerprint(made.images)
    again = keep(source, None)
    assert source.asked == 1
    assert torch.equal(again.images, made.images)
    assert (again.notes, again.fingerprint, again.file) == (made.notes, made.fingerprint, made.file)
    assert (again.notes.widths, again.notes.heights) == ((40, 40, 40), (30, 30, 30))
    assert (again.notes.unreadable, again.notes.skipped) == (1, ["a.png: cut"])
    assert (again.notes.transparent, again.notes.frames) == (2, 1)
    assert str(made.file) in Path("/proc/self/maps").read_text()
    assert torch.equal(load_file(made.file)["images"], made.images)  # any reader of the format can have them


def test_writing_to_the_images_does_not_change_the_file(home):
    source = Numbers(home / "set")
    keep(source, None).images.zero_()
    assert torch.equal(keep(source, None).images, torch.tensor(PIXELS[:6]))


def test_a_file_is_read_whole_only_if_it_is_not_as_it_was(home, monkeypatch):
    hashed = []
    monkeypatch.setattr(cache, "image_fingerprint", lambda images: hashed.append(1) or image_fingerprint(images))
    source = Numbers(home / "set")
    file = keep(source, None).file
    keep(source, None)
    assert not hashed
    os.utime(file, ns=(1, 1))
    keep(source, None)
    assert len(hashed) == 1
    keep(source, None)
    assert len(hashed) == 1  # found right once more
    file.with_suffix(".json").write_text("[")
    keep(source, None)
    assert (len(hashed), source.asked) == (2, 1)


def test_a_cache_that_others_keep_need_not_be_writable(home, monkeypatch, capsys):
    source = Numbers(home / "set")
    file = keep(source, None).file
    file.with_suffix(".json").unlink()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "write_json", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(keep(source, None).images) == 6
    source.state = 2
    with pytest.raises(ValueError, match=r"the cache folder .* cannot be written: no permission; --data.cache names"):
        keep(source, None)
    assert source.asked == 1  # said before decoding


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (2, 1, 4, 4), (0, 3, 4, 4), (2, 48)])
def test_a_right_checksum_and_a_wrong_shape_is_damage(home, capsys, shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    file = cache_folder(None) / "set.safetensors"
    told = {"notes": Notes().to_json(), "fingerprint": image_fingerprint(images)}
    save_file({"images": images}, file, metadata=told)
    assert read_cache(file, (3, 4, 4)) is None
    assert capsys.readouterr().err.count("is damaged and will be made again") == 1


@pytest.mark.parametrize("notes", ["", "[]", '{"unreadable": "x"}', '{"new": 1}', '{"widths": [1, 2]}', "{" * 9999])
def test_notes_that_are_none_are_damage(home, notes):
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    file = cache_folder(None) / "set.safetensors"
    save_file({"images": images}, file, metadata={"notes": notes, "fingerprint": image_fingerprint(images)})
    assert read_cache(file, (3, 4, 4)) is None


def test_earlier_states_of_a_source_are_removed_and_other_caches_kept(home):
    source = Numbers(home / "set")
    old = keep(source, None).file
    old.with_suffix(".png").touch()
    others = [keep(Numbers(home / "set", size=8), None), keep(Numbers(home / "other" / "set"), None)]
    others += [keep(Numbers(home / "set-4px"), None), keep(Numbers(home / "set", settings=("crop",)), None)]
    source.state = 2
    new = keep(source, None).file
    assert not any(name.startswith(old.stem) for name in files(home))
    assert all(kept.file.exists() for kept in others)
    assert new.exists()


def test_what_killed_writers_left_is_swept(home):
    left = cache_folder(None) / ".set-4px.safetensors.999999999.part"
    left.touch()
    file = keep(Numbers(home / "set"), None).file
    assert files(home) == {file.name, file.with_suffix(".json").name}


def test_a_source_that_changes_while_it_is_read_is_not_kept(home):
    kept = keep(Numbers(home / "set", changes=True), None)
    assert torch.equal(kept.images, torch.tensor(PIXELS[:6]))
    assert (kept.file, kept.fingerprint) == (None, "")
    assert files(home) == set()


def test_one_of_several_processes_decodes_and_the_others_wait(home, capsys):
    class Slow(Numbers):
        def blocks(self, notes):
            time.sleep(0.3)
            yield from super().blocks(notes)

    source, kept = Slow(home / "set"), []
    threads = [threading.Thread(target=lambda: kept.append(keep(source, None))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.asked == 1
    assert all(torch.equal(each.images, torch.tensor(PIXELS[:6])) for each in kept)
    assert "another process decodes these images; waiting for it" in capsys.readouterr().err


@pytest.mark.parametrize("room", [60_000, 120_100])  # less than the images, and less than the images and a header
def test_a_full_disk_is_one_line_and_leaves_nothing(home, room):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(ResourceError) as caught:
            keep(Numbers(home / "set", 2500), None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the file size limit is reached" in str(caught.value)
    assert str(home / "cache" / "otkernels") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(home) == set()


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


def test_notes_tell_the_least_the_median_and_the_largest(capsys):
    notes = Notes()
    for width, height in [(10, 7), (30, 7), (20, 9), (40, 8)]:
        notes.saw(width, height)
    for i in range(25):
        notes.skip(f"{i:02d}\x1b.png", "cut")
    left_out = LeftOut()
    left_out.add("hidden files", ".a")
    notes.passed(left_out, ["cat"], None)
    notes.close(["train/cat/1", "train/2", "test/1", "cat/3"])
    assert (notes.widths, notes.heights) == ((10, 20, 40), (7, 7, 9))
    assert notes.splits == {"train": 2, "test": 1}
    stored = Notes.from_json(json.dumps(json.loads(notes.to_json())))
    assert stored == notes
    stored.say("white")
    told = capsys.readouterr().err
    assert "skipped 19\\x1b.png: cut\ndata: skipped 5 more\ndata: left out 1 hidden files: .a" in told
