"""Generated images in files: what is read, in which order, and what is refused."""

from __future__ import annotations

import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from train.run import memory
from train.scores.image_files import read_files, read_images, read_npz


@pytest.fixture
def folder(draw, tmp_path):
    """Twelve images, and their pixels uint8 [12, 3, 32, 32]."""
    place, images = tmp_path / "images", draw(12)
    (place / "more").mkdir(parents=True)
    for i, image in enumerate(images):
        name = f"more/{i:03d}.png" if i > 8 else f"{i:03d}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / name)
    return place, images


def test_a_folder_is_read_by_name(folder):
    place, images = folder
    assert torch.equal(read_images(place), images)
    assert torch.equal(read_files(place, 4), images[::3])


def test_archives_are_read_by_name(folder, tmp_path):
    place, images = folder
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*.png"))
    with tarfile.open(tmp_path / "images.tar", "w") as tar, zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in reversed(names):
            tar.add(place / name, name)
            archive.write(place / name, name)
    assert torch.equal(read_images(tmp_path / "images.tar"), images)
    assert torch.equal(read_images(tmp_path / "images.zip"), images)


def test_what_cannot_be_read_is_named(folder, capsys):
    place, images = folder
    (place / "000.png").write_bytes(b"no image")
    (place / "001.png").write_bytes(b"")
    (place / "notes.txt").write_text("text")
    assert torch.equal(read_images(place), images[2:])
    said = capsys.readouterr().err
    assert "skipped 000.png" in said
    assert "skipped 001.png" in said
    assert "left out 1 files with other suffixes: notes.txt" in said
    with pytest.raises(ValueError, match=r"n is 12, but .*images has 10 images"):
        read_files(place, 12)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("more/zzz.png", (16, 16), r"got 16 x 16 pixels of more/zzz.png and 32 x 32 of 000.png"),
        ("000.png", (32, 16), r"got 32 x 16 pixels of 000.png$"),
    ],
)
def test_sizes_are_never_changed(folder, name, size, message):
    Image.new("RGB", size).save(folder[0] / name)
    with pytest.raises(ValueError, match=f"images must be square and of one size, {message}"):
        read_images(folder[0])


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no image in .* can be read"):
        read_images(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npz_is_read_as_it_was_written(channels, order, draw, tmp_path):
    images = draw(5)[:, :channels]
    array = np.asarray(images.permute(0, 2, 3, 1).numpy(), order=order)
    np.savez(tmp_path / "plain.npz", array)
    np.savez_compressed(tmp_path / "packed.npz", arr_0=array, arr_1=np.zeros(3))
    assert torch.equal(read_npz(tmp_path / "plain.npz"), images)
    assert torch.equal(read_files(tmp_path / "packed.npz", 2), images[[0, 2]])


def entry(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", content)
    return path


def declared(shape):
    """A .npy of that shape without its numbers."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 8, 3), np.float32),
        np.zeros((3, 3, 8, 8), np.uint8),
        np.zeros((3, 8, 9, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.array([{"a": print}], dtype=object),
    ],
)
def test_other_arrays_are_refused_and_never_unpickled(array, tmp_path):
    np.savez(tmp_path / "x.npz", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"arr_0 of .*x.npz must be uint8 \[M, H, H, 1 or 3\], got "):
        read_npz(tmp_path / "x.npz")


def test_damaged_files_are_refused(draw, tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", draw(5).permute(0, 2, 3, 1).numpy())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-500])
    np.savez(tmp_path / "named.npz", images=np.zeros(2))
    damaged = [tmp_path / "cut.npz", tmp_path / "named.npz", entry(tmp_path / "text.npz", b"text")]
    for path in (*damaged, tmp_path / "absent.npz"):
        with pytest.raises(ValueError, match=r"is no npz with an array arr_0 that can be read"):
            read_npz(path)
    for i, header in enumerate(("{'descr': (", "{['descr']: 1}", "{'descr': '")):
        text = header.ljust(117) + "\n"
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
        with pytest.raises(ValueError, match=r"is no npz with an array arr_0 that can be read"):
            read_npz(entry(tmp_path / f"header{i}.npz", content))
    with pytest.raises(ValueError, match=r"must be uint8 \[M, H, H, 1 or 3\], got uint8 \[-2, 4, 4, 3\]"):
        read_npz(entry(tmp_path / "negative.npz", declared("(-2, 4, 4, 3)") + bytes(2000)))
    with pytest.raises(ValueError, match=r"must have 1536 bytes, got 0"):
        read_npz(entry(tmp_path / "empty.npz", declared("(8, 8, 8, 3)")))
    with pytest.raises(ValueError, match=r"must have 1536 bytes, got more"):
        read_npz(entry(tmp_path / "long.npz", declared("(8, 8, 8, 3)") + bytes(2000)))
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**9)
    with pytest.raises(ValueError, match=r"arr_0 of .*huge.npz needs at least 12 GB of memory"):
        read_npz(entry(tmp_path / "huge.npz", declared("(1000000, 64, 64, 3)")))
