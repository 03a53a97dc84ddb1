"""``python -m train data``: what it says of a set, the picture, and the cache that it lists and clears."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.__main__ import main
from train.data.cache import cache_folder
from train.data.folder import load_folder


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def pictures(home) -> Path:
    """70 images in train, 3 in test, of many sizes; one is none."""
    for i in range(73):
        file = home / "pictures" / ("train" if i < 70 else "test") / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20 + i % 3, 30, 3), 3 * i, np.uint8)).save(file)
    (home / "pictures" / "bad.png").write_bytes(b"no image")
    return home / "pictures"


def test_a_folder_is_described_with_counts_sizes_and_a_picture(pictures, home, capsys):
    main(["data", "folder", "--info", "--data.path", str(pictures), "--data.size", "16"])
    (cached,) = cache_folder(None).glob("*.safetensors")
    picture = cached.with_suffix(".png")
    assert capsys.readouterr().out.splitlines() == [
        "folder: 73 images",
        "  before  widths 30, heights 20 to 22 (median 21) pixels",
        "  after   3 x 16 x 16, 56 kB as uint8",
        "  below   train: 70, test: 3",
        "  skipped 1 that cannot be read",
        f"  cache   {cached}",
        f"picture of 64 images, evenly spaced: {picture}",
    ]
    with Image.open(picture) as image:
        assert min(image.size) >= 8 * 16
        assert len(np.unique(np.asarray(image.convert("L")))) >= 60  # so many greys are in it
    main(
        [
            "data",
            "folder",
            "--info",
            "--data.path",
            str(pictures),
            "--data.subset",
            "test",
            "--out",
            str(home / "a.png"),
        ]
    )
    told = capsys.readouterr().out
    assert "folder, test: 3 images" in told
    assert f"picture of 3 images, evenly spaced: {home / 'a.png'}" in told
    assert (home / "a.png").exists()


def test_every_split_of_a_published_set_is_described(home, capsys):
    for stem, n in (("train", 5), ("t10k", 3)):
        idx = struct.pack(">IIII", 0x803, n, 28, 28) + bytes(784 * n)
        (home / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    main(["data", "fashion-mnist", "--info", "--data.path", str(home)])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "images" in line and "picture" not in line] == [
        "fashion-mnist, train: 5 images",
        "fashion-mnist, test: 3 images",
    ]
    assert lines.count("  before  widths 28, heights 28 pixels") == 2
    assert lines.count("  after   1 x 32 x 32, 5.1 kB as uint8") == 1


def test_digits_are_described(home, capsys):
    main(["data", "digits", "--info", "--data.size", "12"])
    told = capsys.readouterr().out
    assert "digits: 1,797 images\n  before  widths 8, heights 8 pixels\n  after   1 x 12 x 12, 259 kB as uint8" in told
    assert (cache_folder(None) / "digits-12px.png").exists()


def stored(home: Path, name: str) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    (home / name).mkdir()
    (home / name / "a.png").write_bytes(file.getvalue())
    known = set(cache_folder(None).iterdir())
    load_folder(home / name, 4)
    (made,) = set(cache_folder(None).glob("*.safetensors")) - known
    return made


def test_the_cache_is_listed_and_cleared(home, capsys):
    first, second = stored(home, "set"), stored(home, "o\x1bther")
    main(["data", "--cache"])
    text = capsys.readouterr().out
    assert f"{first.name}  " in text
    assert f"1 images of {home / 'set'}  0 days old" in text
    assert "2 files in" in text
    assert "\x1b" not in text
    main(["data", "--cache", "--clear", first.name])
    assert (first.exists(), second.exists()) == (False, True)
    assert "1 files removed" in capsys.readouterr().out
    second.with_suffix(".png").touch()
    main(["data", "--cache", "--clear"])
    assert not list(cache_folder(None).iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m train data --cache"),
        (["--clear"], "usage: python -m train data --cache"),
        (["--cache", "--all"], "usage: python -m train data --cache"),
        (["--cache", "--clear", "none"], "no none in"),
        (["imagenet", "--info"], "usage: .* got imagenet --info"),
        (["cifar10"], "usage: .* got cifar10"),
        (["ring8", "--info"], "--info describes sets of images, by their name after data, not ring8"),
        (["digits", "--info", "--data.name", "folder"], "--info describes sets of images, by .*, not folder"),
        (["cifar10", "--info"], "cifar10 needs a path"),
        (["digits", "--info", "--data.sizes", "3"], "--data.sizes"),
        (["digits", "--info", "--data.size", "0"], r"^data: size must lie in 1..4096 pixels, got 0$"),
    ],
)
def test_a_wrong_command_is_one_line_and_clears_nothing(home, arguments, message):
    file = stored(home, "set")
    with pytest.raises(ValueError, match=message) as caught:
        main(["data", *arguments])
    assert "\n" not in str(caught.value)
    assert file.exists()
