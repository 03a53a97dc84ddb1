"""Folders and archives of images: what is decoded, skipped, refused and remembered."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train.data import folder as module
from train.data import worker
from train.data.archives import ArchiveError, Member
from train.data.config import DataConfig, load
from train.data.decode import Decoded, decode, decode_on
from train.data.folder import load_folder

RNG = np.random.default_rng(7)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def flat(grey: int, height: int = 8, width: int = 8) -> bytes:
    return png(np.full((height, width, 3), grey, np.uint8))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six images in nested folders, and files that are none."""
    place = tmp_path / "pictures"
    files = {"train/cat/1.png": 10, "train/dog/2.png": 20, "train/dog/3.PNG": 30, "test/cat/4.png": 40, "c.png": 50}
    for name, grey in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(flat(grey))
    noise = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(place / "train/cat/5.jpg", quality=90)
    (place / "labels.csv").write_text("no image")
    (place / "train/._1.png").write_bytes(b"a resource fork")
    return place


def greys(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def read(path: Path, tmp_path: Path, **more) -> torch.Tensor:
    return load_folder(path, 8, cache=str(tmp_path / "cache"), **more)


def test_folder_is_sorted_by_name(folder, tmp_path, capsys):
    images = read(folder, tmp_path)
    assert images.shape == (6, 3, 8, 8)
    noise = int(decode((folder / "train/cat/5.jpg").read_bytes(), 8)[0, 0, 0])
    assert greys(images) == [
        50,
        40,
        10,
        noise,
        20,
        30,
    ]  # c.png, test/cat/4, train/cat/1, train/cat/5, train/dog/2 and 3
    assert "6 images of 8 x 8 pixels" in capsys.readouterr().err


def archive_of(folder: Path, kind: str, names: list[str]) -> Path:
    file = folder.parent / f"pictures.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.write(folder / name, name)
        return file
    mode = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz", "tar.bz2": "w:bz2"}[kind]
    with tarfile.open(file, mode) as archive:
        for name in names:
            archive.add(folder / name, f"./{name}")
    return file


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_archives_equal_the_folder(folder, tmp_path, kind):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    archive = archive_of(folder, kind, sorted(names, reverse=True))
    assert torch.equal(read(archive, tmp_path), read(folder, tmp_path))
    for subset, count in (("train", 4), ("test", 1), ("dog", 2)):
        part = read(archive, tmp_path, subset=subset)
        assert len(part) == count
        assert torch.equal(part, read(folder, tmp_path, subset=subset))


def test_subset_names_a_folder_not_a_prefix(folder, tmp_path):
    assert greys(read(folder, tmp_path, subset="test")) == [40]
    with pytest.raises(ValueError, match=r"no images below a folder 'tes' in .*; its folders: cat, dog, test, train"):
        read(folder, tmp_path, subset="tes")


def test_mixed_train_and_test_images_are_announced(folder, tmp_path, capsys):
    read(folder, tmp_path)
    assert "train and test images are used together" in capsys.readouterr().err
    read(folder, tmp_path, subset="train")
    assert "used together" not in capsys.readouterr().err


def test_broken_images_are_named_and_skipped(folder, tmp_path, capsys):
    whole = (folder / "train/cat/5.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    for _ in range(2):  # decoded, then from the cache
        assert len(read(folder, tmp_path)) == 6
        told = capsys.readouterr().err
        assert all(f"skipped {name}: " in told for name in ("cut.jpg", "empty.png", "text.png"))
        assert "6 images of 8 x 8 pixels" in told
        assert "3 unreadable ones skipped" in told


def test_damaged_member_of_a_zip_is_skipped(folder, tmp_path, capsys):
    archive = archive_of(folder, "zip", ["c.png", "test/cat/4.png"])
    with zipfile.ZipFile(archive) as opened:
        start = opened.getinfo("c.png").header_offset
    data = bytearray(archive.read_bytes())
    data[start + 60] ^= 0xFF
    archive.write_bytes(data)
    assert greys(read(archive, tmp_path)) == [40]
    assert "skipped c.png: " in capsys.readouterr().err


def test_decompression_bombs_are_unreadable(folder, tmp_path, capsys, monkeypatch):
    (folder / "bomb.png").write_bytes(flat(1, 40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # PIL warns beyond this and refuses beyond twice of it
    assert len(read(folder, tmp_path)) == 6
    assert "skipped bomb.png: Image size (1600 pixels) exceeds limit" in capsys.readouterr().err


def test_no_images_is_an_error(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing to see")
    with pytest.raises(ValueError, match="no images in"):
        read(empty, tmp_path)
    (empty / "bad.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"none of the 1 images in .* is readable, the first: bad.png: "):
        read(empty, tmp_path)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
def test_a_cut_tar_is_an_error_wherever_it_is_cut(tmp_path, kind):
    place = tmp_path / "noise"
    place.mkdir()
    for i in range(6):
        (place / f"{i}.png").write_bytes(png(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)))
    archive = archive_of(place, kind, [f"{i}.png" for i in range(6)])
    whole = archive.read_bytes()
    for share in (0.3, 0.5, 0.7):
        archive.write_bytes(whole[: int(share * 8000) if kind == "tar" else int(share * len(whole))])
        with pytest.raises(ValueError, match=r"cannot be read to its end|neither a folder nor a tar or zip"):
            read(archive, tmp_path)


def test_a_tar_cut_between_two_members_is_an_error(folder, tmp_path):
    archive = archive_of(folder, "tar", ["c.png", "test/cat/4.png"])
    with tarfile.open(archive) as opened:
        second = opened.getmembers()[1].offset
    archive.write_bytes(archive.read_bytes()[:second])
    with pytest.raises(ValueError, match="it has no end marker"):
        read(archive, tmp_path)


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "pictures.rar"
    file.write_bytes(b"Rar!" + bytes(2000))
    with pytest.raises(ValueError, match="neither a folder nor a tar or zip archive"):
        read(file, tmp_path)


OUTSIDE = ("../outside/up.png", "/outside/root.png", "in/../../up.png")


def test_nothing_is_written_or_followed_outside_an_archive(folder, tmp_path):
    archive = tmp_path / "evil.tar"
    secret = tmp_path / "secret.png"
    secret.write_bytes(flat(99))
    with tarfile.open(archive, "w") as opened:
        for name, kind, target in (
            ("link.png", tarfile.SYMTYPE, str(secret)),
            ("hard.png", tarfile.LNKTYPE, "../secret.png"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            opened.addfile(entry)
        for name in OUTSIDE:
            entry = tarfile.TarInfo(name)
            entry.size = len(flat(5))
            opened.addfile(entry, io.BytesIO(flat(5)))
        for name, kind in (("pipe.png", tarfile.FIFOTYPE), ("device.png", tarfile.CHRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type = kind
            opened.addfile(entry)
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    with pytest.raises(ValueError, match="no images in") as caught:
        read(archive, tmp_path)
    told = str(caught.value)
    assert "left out 4 links, pipes or devices: link.png, hard.png, pipe.png, device.png" in told
    assert f"left out 3 names that lead out of the archive: {', '.join(OUTSIDE)}" in told
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before


class Decodes:
    """Counts the calls of decode."""

    def __init__(self, monkeypatch) -> None:
        self.count = 0
        monkeypatch.setattr(worker, "decode_on", self)

    def __call__(self, *task) -> Decoded:
        self.count += 1
        return decode_on(*task)


def test_cache_is_used_until_a_file_changes(folder, tmp_path, monkeypatch):
    decodes = Decodes(monkeypatch)
    first = read(folder, tmp_path)
    assert decodes.count == 6
    assert torch.equal(read(folder, tmp_path), first)
    assert decodes.count == 6
    (folder / "c.png").write_bytes(flat(60))
    os.utime(folder / "c.png", ns=(1, 1))
    assert greys(read(folder, tmp_path))[0] == 60
    assert decodes.count == 12
    (folder / "d.png").write_bytes(flat(70))
    assert len(read(folder, tmp_path)) == 7
    load_folder(folder, 9, cache=str(tmp_path / "cache"))
    assert decodes.count == 12 + 7 + 7


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b"x" * 90]
)
def test_damaged_cache_is_made_again(folder, tmp_path, monkeypatch, capsys, damage):
    expected = read(folder, tmp_path).clone()  # no view of the file that is damaged
    (cache,) = (tmp_path / "cache").glob("*.safetensors")
    cache.write_bytes(damage(cache.read_bytes()))
    decodes = Decodes(monkeypatch)
    assert torch.equal(read(folder, tmp_path), expected)
    assert decodes.count == 6
    assert "is damaged and will be made again" in capsys.readouterr().err
    assert torch.equal(read(folder, tmp_path), expected)
    assert decodes.count == 6


def test_a_cache_that_cannot_be_written_is_told_before_decoding(folder, tmp_path, monkeypatch):
    decodes = Decodes(monkeypatch)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(ValueError, match=r"the cache folder .* cannot be written"):
        read(folder, tmp_path)
    assert decodes.count == 0


def test_through_the_configuration(folder, tmp_path):
    config = DataConfig("folder", path=str(folder), size=8, subset="train", cache=str(tmp_path / "cache"), limit=2)
    data = load(config, seed=1)
    assert (data.size, data.shape, data.target) == (2, (3, 8, 8), None)


def test_damage_found_while_reading_a_member_ends_the_run(folder, tmp_path, monkeypatch):
    def broken() -> bytes:
        raise ArchiveError("data: pictures.tar cannot be read to its end")

    members = [Member("a.png", lambda: flat(1), 0.0), Member("b.png", broken, 0.5)]
    monkeypatch.setattr(module, "walk_images", lambda path, left_out: iter(members))
    with pytest.raises(ArchiveError, match="cannot be read to its end"):
        read(folder, tmp_path)


def test_transparent_images_are_counted_and_kept_apart_by_background(folder, tmp_path, capsys):
    clear = np.zeros((8, 8, 4), np.uint8)
    (folder / "clear.png").write_bytes(png(clear))
    for _ in range(2):
        white = read(folder, tmp_path)
        assert "1 images with transparency, laid on white" in capsys.readouterr().err
    black = read(folder, tmp_path, background="black")
    assert "laid on black" in capsys.readouterr().err
    assert not torch.equal(white, black)


def test_linked_folders_are_followed_and_circles_left_out(folder, tmp_path, capsys):
    store = tmp_path / "store"
    store.mkdir()
    (store / "a.png").write_bytes(flat(1))
    (folder / "linked").symlink_to(store)
    (folder / "again").symlink_to(store)
    (store / "round").symlink_to(folder)
    (folder / "file.png").symlink_to(store / "a.png")
    assert len(read(folder, tmp_path)) == 6 + 3
    told = capsys.readouterr().err
    assert "left out 2 links that lead in a circle: again/round, linked/round" in told or "linked/round" in told


def test_everything_left_out_is_named_with_its_reason(folder, tmp_path, capsys):
    (folder / "gone.png").symlink_to("/nonexistent/gone.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "photo.heic").write_bytes(b"x")
    (folder / "old.jfif").write_bytes(flat(5))
    (folder / "e\x1b[2Jscape.txt").write_text("x")
    for _ in range(2):  # decoded, then from the cache
        assert len(read(folder, tmp_path)) == 7
        told = capsys.readouterr().err
        assert "1 links that lead nowhere, or files that went away: gone.png" in told
        assert "2 pipes, devices or sockets: device.png, pipe.png" in told
        assert "files with other suffixes: e\\x1b[2Jscape.txt, labels.csv, photo.heic" in told
        assert "1 hidden files or folders: train/._1.png" in told
        assert "\x1b" not in told


def test_a_long_list_is_cut(folder, tmp_path, capsys):
    for i in range(50):
        (folder / f"{i:02d}.txt").write_text("x")
    read(folder, tmp_path)
    told = capsys.readouterr().err
    assert "left out 51 files with other suffixes: 00.txt, " in told
    assert "19.txt and 31 more" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_without_permission_is_named(folder, tmp_path, capsys):
    (folder / "test").chmod(0)
    try:
        assert len(read(folder, tmp_path)) == 5
        assert "1 folders that cannot be read (Permission denied): test" in capsys.readouterr().err
    finally:
        (folder / "test").chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_named(folder, tmp_path, capsys, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "test":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(read(folder, tmp_path)) == 5
    assert "1 folders that cannot be read (Permission denied): test" in capsys.readouterr().err


def test_no_images_says_what_was_left_out_and_which_suffixes_count(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    (place / "a.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no images in .*; left out 1 files with other suffixes: a\.heic; images end"):
        read(place, tmp_path)


def test_a_folder_that_changes_while_it_is_read_is_not_cached(folder, tmp_path, monkeypatch, capsys):
    decode_once, done = worker.decode_on, []

    def remove_one(*task):
        if not done:
            done.append((folder / "train/dog/3.PNG").unlink())
        return decode_once(*task)

    monkeypatch.setattr(worker, "decode_on", remove_one)
    read(folder, tmp_path)
    told = capsys.readouterr().err
    assert "skipped train/dog/3.PNG: " in told
    assert "the files changed while they were read, so nothing is cached" in told
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_goes_away_while_it_is_read_is_not_cached(folder, tmp_path, monkeypatch, capsys):
    decode_once = worker.decode_on

    def remove_all(*task):
        if folder.exists():
            folder.rename(tmp_path / "elsewhere")
        return decode_once(*task)

    monkeypatch.setattr(worker, "decode_on", remove_all)
    assert len(read(folder, tmp_path)) == 1
    told = capsys.readouterr().err
    assert "5 unreadable ones skipped" in told
    assert "nothing is cached" in told
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unreadable_file_is_named_and_not_an_object_of_ours(folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"junk" * 10)
    (folder / "text.png").write_text("not an image")
    read(folder, tmp_path)
    told = capsys.readouterr().err
    assert "skipped text.png: it is no image in one of the formats JPEG, PNG" in told
    assert "BytesIO" not in told


def test_a_refused_file_is_not_kept_in_memory():
    """A zip of many large files that are no images would else hold one more of them in memory."""
    data = bytes(range(256)) * 40
    before = sys.getrefcount(data)
    assert worker.attempt(lambda: data, 8, "white", None).startswith("it is no image")
    assert sys.getrefcount(data) == before
