"""python -m train sample: what is written, whole or not at all, and what is refused before anything is drawn."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from train.__main__ import main
from train.samples import command
from train.samples.draw import batches
from train.samples.source import load_trained
from train.scores.images import to_uint8

N = 70


@pytest.fixture
def expected(image_run) -> np.ndarray:
    """uint8 [N, H, W, 1]."""
    (drawn,) = batches(load_trained(image_run).game, N, 5, 256)
    return to_uint8(drawn).permute(0, 2, 3, 1).numpy()


def sample(run, out, *more: str) -> None:
    main(["sample", str(run), "--out", str(out), "--n", str(N), "--seed", "5", *more])


def test_a_folder_of_png_files_in_order(image_run, tmp_path, expected, capsys):
    sample(image_run, tmp_path / "new" / "samples")
    files = sorted((tmp_path / "new" / "samples").iterdir())
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(N)]
    found = np.stack([np.asarray(Image.open(file)) for file in files])[..., None]
    assert np.array_equal(found, expected)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["samples"]
    said = capsys.readouterr().out
    assert f"70 images of 8 x 8 of gan at iteration 6 from {image_run / 'export'}, averaged weights, seed 5, in" in said


def test_an_npz_as_numpy_reads_it(image_run, tmp_path, expected):
    sample(image_run, tmp_path / "samples.npz", "--batch-size", "9")
    with np.load(tmp_path / "samples.npz") as archive:
        assert archive.files == ["arr_0"]
        found = archive["arr_0"]
    assert (found.dtype, found.shape) == (np.uint8, (N, 8, 8, 1))
    assert np.abs(found.astype(int) - expected).max() <= 1  # rounding


def test_a_tar_has_the_same_bytes_whenever_it_is_written(image_run, tmp_path, expected, monkeypatch):
    sample(image_run, tmp_path / "a.tar")
    monkeypatch.setattr("time.time", lambda: 2e9)
    sample(image_run, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == [f"{i:06d}.png" for i in range(N)]
        found = np.stack([np.asarray(Image.open(io.BytesIO(archive.extractfile(m).read()))) for m in archive])
    assert np.array_equal(found[..., None], expected)


def test_points_go_to_an_npz(point_run, tmp_path):
    sample(point_run, tmp_path / "points.npz")
    with np.load(tmp_path / "points.npz") as archive:
        found = archive["arr_0"]
    assert (found.dtype, found.shape) == (np.float32, (N, 2))
    (drawn,) = batches(load_trained(point_run).game, N, 5, 256)
    assert np.allclose(found, drawn.numpy(), atol=1e-6)
    with pytest.raises(ValueError, match=r"makes points here, which go to FILE\.npz"):
        sample(point_run, tmp_path / "points")


def test_memory_does_not_grow_with_the_number(image_run, tmp_path, monkeypatch):
    """Each batch is in the file before the next is drawn."""
    written = []

    class Watched(zipfile.ZipFile):
        def open(self, *arguments, **named):
            entry = super().open(*arguments, **named)
            write = entry.write
            entry.write = lambda data: (written.append(len(data)), write(data))[1]
            return entry

    def drawn(*arguments):
        for number, batch in enumerate(batches(*arguments)):
            assert sum(size > 0 for size in written) >= number
            yield batch

    monkeypatch.setattr(zipfile, "ZipFile", Watched)
    monkeypatch.setattr(command, "batches", drawn)
    sample(image_run, tmp_path / "samples.npz", "--batch-size", "10")
    assert len(written) >= N // 10


@pytest.mark.parametrize("name", ["samples", "samples.npz", "samples.tar"])
def test_a_writer_that_dies_leaves_nothing(name, image_run, tmp_path, monkeypatch):
    def drawn(*arguments):
        yield next(batches(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "batches", drawn)
    with pytest.raises(KeyboardInterrupt):
        sample(image_run, tmp_path / name, "--batch-size", "10")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which run or export"),
        (["RUN"], "--out names a folder, FILE.npz or FILE.tar"),
        (["RUN", "--out", "full"], "the folder full is not empty; choose another one"),
        (["RUN", "--out", "there.npz"], "there.npz exists; choose another name"),
        (["RUN", "--out", "there"], "there exists; choose another name"),
        (["RUN", "--out", "link"], "link exists; choose another name"),
        (["RUN", "--out", "samples.zip"], "out must be a folder, FILE.npz or FILE.tar, got samples.zip"),
        (["RUN", "--out", "x", "--n", "0"], "n must be at least 1, got 0"),
        (["RUN", "--out", "x", "--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["RUN", "--out", "x", "--seed", "-1"], "seed must lie in 0..2^64 - 1, got -1"),
        (["RUN", "--out", "x", "--device", "gpu"], "device must be cpu, cuda or cuda:N, got gpu"),
        (["RUN", "--out", "x", "--device", "cuda:99"], "device cuda:99 is not available"),
        (["RUN", "--out", "x", "--weights", "best"], "has no best snapshot"),
        (["missing", "--out", "x"], "missing must be a run directory or an export"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    arguments, message, image_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for name in ("full/file", "there.npz", "there"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(message)):
        main(["sample", *(str(image_run) if word == "RUN" else word for word in arguments)])
    assert sorted(tmp_path.rglob("*")) == before
