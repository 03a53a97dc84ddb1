"""The published sets, from tiny imitations of what their authors give: layouts, splits, crops, damage, downloads."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import struct
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

from train.data import download as downloads
from train.data import published
from train.data.config import DataConfig, load, load_images, split_name
from train.data.download import FILES, File


def jpeg(grey: int, width: int = 12, height: int = 9) -> bytes:
    """Grey but for a white square of 4 pixels in its lower right corner."""
    pixels = np.full((height, width, 3), grey, np.uint8)
    pixels[-4:, -4:] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def tgz(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return whole.getvalue()


def flowers() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Unpacked, and as published: ten images, and the file of splits."""
    images = {f"jpg/image_{i:05d}.jpg": jpeg(20 * i) for i in range(1, 11)}
    file = io.BytesIO()
    savemat(file, {"trnid": [[2, 1]], "valid": [[10]], "tstid": [[3, 4, 5, 6, 7, 8, 9]]})
    setid = {"setid.mat": file.getvalue()}
    unpacked = {f"flowers-102/{name}": data for name, data in {**images, **setid}.items()}
    return unpacked, {"102flowers.tgz": tgz(images), **setid}


def birds() -> tuple[dict[str, bytes], dict[str, bytes]]:
    names = [f"{i:03d}.Bird/Bird_{i}.jpg" for i in range(1, 7)]
    texts = {
        "images.txt": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "train_test_split.txt": [f"{i} {i % 2}" for i in range(1, 7)],
        "bounding_boxes.txt": [f"{i} 8.0 5.0 4.0 4.0" for i in range(1, 7)],
    }
    images = {f"CUB_200_2011/images/{name}": jpeg(30 * i) for i, name in enumerate(names, 1)}
    tables = {f"CUB_200_2011/{name}": "\n".join([*lines, ""]).encode() for name, lines in texts.items()}
    return {**images, **tables}, {"CUB_200_2011.tgz": tgz({"attributes.txt": b"x", **images, **tables})}


def faces() -> tuple[dict[str, bytes], dict[str, bytes]]:
    images = {f"img_align_celeba/{i:06d}.jpg": jpeg(20 * i, 10, 14) for i in range(1, 9)}
    partition = {"list_eval_partition.txt": "".join(f"{i:06d}.jpg {i % 4 % 3}\n" for i in range(1, 9)).encode()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in images.items():
            archive.writestr(name, data)
    unpacked = {f"celeba/{name}": data for name, data in {**images, **partition}.items()}
    return unpacked, {"img_align_celeba.zip": file.getvalue(), **partition}


def batches() -> tuple[dict[str, bytes], dict[str, bytes]]:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3072), dtype=np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {
        f"cifar-10-batches-py/{name}": pickle.dumps({b"data": batch, b"labels": [0] * 4})
        for name, batch in zip(names, pixels, strict=True)
    }
    return files, {"cifar-10-python.tar.gz": tgz(files)}


def drawings() -> tuple[dict[str, bytes], dict[str, bytes]]:
    files = {
        f"{stem}-images-idx3-ubyte.gz": gzip.compress(struct.pack(">IIII", 0x803, n, 28, 28) + bytes([n]) * 784 * n, 1)
        for stem, n in (("train", 5), ("t10k", 3))
    }
    return {f"FashionMNIST/raw/{name}": data for name, data in files.items()}, files


MAKERS = {"flowers102": flowers, "cub200": birds, "celeba": faces, "cifar10": batches, "fashion-mnist": drawings}
# Each is made once: its archives hold the second at which they were made, and so would differ the next time.
SETS = {name: functools.cache(make) for name, make in MAKERS.items()}
COUNTS = {
    "flowers102": {None: 10, "all": 10, "train": 2, "val": 1, "test": 7},
    "cub200": {None: 6, "all": 6, "train": 3, "test": 3},
    "celeba": {None: 4, "train": 4, "val": 2, "test": 2, "all": 8},
    "cifar10": {None: 20, "train": 20, "test": 4},
    "fashion-mnist": {None: 5, "train": 5, "test": 3},
}


@pytest.fixture(params=list(SETS))
def name(request, monkeypatch) -> str:
    return known(request.param, monkeypatch)


def known(name: str, monkeypatch) -> str:
    """The set of that name, with the checksums of its imitation."""
    monkeypatch.setattr(published, "FLOWERS", 10)
    sums = {file: hashlib.md5(data).hexdigest() for file, data in SETS[name]()[1].items()}
    files = tuple(file._replace(md5=sums[file.name], drive="") for file in FILES[name])
    monkeypatch.setitem(FILES, name, files)
    return name


@pytest.fixture
def cache(tmp_path) -> str:
    return str(tmp_path / "cache")


def test_every_layout_gives_the_same_images_of_each_split(name, tmp_path, cache):
    unpacked, archives = SETS[name]()
    write(tmp_path / "unpacked", unpacked)
    write(tmp_path / "archives", archives)
    places = [tmp_path / "unpacked", tmp_path / "archives"]
    inner = next(iter(unpacked)).split("/")[0]
    places += [] if name == "fashion-mnist" else [tmp_path / "unpacked" / inner]
    if name in ("cifar10", "cub200"):  # whose archive is all there is
        places.append(tmp_path / "archives" / next(iter(archives)))
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    for split, count in COUNTS[name].items():
        sets = [load_images(DataConfig(name, path=str(place), subset=split, cache=cache)) for place in places]
        assert [len(images) for images in sets] == [count] * len(places)
        assert all(torch.equal(images, sets[0]) for images in sets[1:])
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before  # nothing is unpacked


def greys(images: torch.Tensor) -> list[int]:
    return [round(value / 10) * 10 for value in images[:, 0, 2, 2].tolist()]


@pytest.mark.parametrize(
    ("name", "subset", "expected"),
    [
        ("flowers102", "train", [20, 40]),  # sorted by name, whatever the order of the numbers
        ("flowers102", "val", [200]),
        ("cub200", "train", [30, 90, 150]),
        ("cub200", "test", [60, 120, 180]),
        ("celeba", "train", [60, 80, 140, 160]),
        ("celeba", "val", [20, 100]),
        ("celeba", "test", [40, 120]),
    ],
)
def test_a_split_holds_the_images_that_its_authors_put_there(name, subset, expected, tmp_path, cache, monkeypatch):
    write(tmp_path / "set", SETS[known(name, monkeypatch)]()[0])
    images = load_images(DataConfig(name, path=str(tmp_path / "set"), subset=subset, cache=cache, size=9))
    assert greys(images) == expected


def test_crops(tmp_path, cache, monkeypatch):
    write(tmp_path, birds()[0])
    whole = DataConfig("cub200", path=str(tmp_path), cache=cache, size=9)
    assert load_images(whole).shape == (6, 3, 9, 9)
    boxes = load_images(DataConfig("cub200", path=str(tmp_path), cache=cache, size=4, crop="box"))
    assert (boxes.float() - 255).abs().max() <= 12  # the white corner alone, but for the JPEG's errors
    middle = load_images(DataConfig("cub200", path=str(tmp_path), cache=cache, size=2, crop="2"))
    assert greys(torch.nn.functional.pad(middle, (2, 0, 2, 0), mode="replicate")) == [30, 60, 90, 120, 150, 180]
    with pytest.raises(ValueError, match=r"its 12 x 9 pixels hold no square of 10"):
        load_images(DataConfig("cub200", path=str(tmp_path), cache=cache, size=4, crop="10"))
    write(tmp_path, {"CUB_200_2011/bounding_boxes.txt": b"".join(b"%d 50 5 4 3\n" % i for i in range(1, 7))})
    with pytest.raises(ValueError, match=r"its box \[50.0, 5.0, 4.0, 3.0\] does not lie in its 12 x 9 pixels"):
        load_images(DataConfig("cub200", path=str(tmp_path), cache=cache, size=4, crop="box"))


@pytest.mark.parametrize("crop", ["box", "0", "-3", "1.5", "center", "", "٣", "9" * 30])
def test_a_wrong_crop_is_one_line(crop):
    with pytest.raises(ValueError, match=r"^data: crop must be centre, a number of pixels, or box for cub200, got '"):
        DataConfig("celeba", path="x", crop=crop)


@pytest.mark.parametrize("name", ["cifar10", "flowers102", "cub200", "celeba"])  # idx files carry their own checksums
def test_a_cut_or_changed_archive_is_named_with_its_checksum(name, tmp_path, cache, monkeypatch):
    known(name, monkeypatch)
    archives = SETS[name]()[1]
    for cut in archives:
        write(tmp_path, archives)
        data = archives[cut]
        for damaged in (data[: len(data) // 2], data[:-9] + b"x" + data[-8:]):
            write(tmp_path, {cut: damaged})
            subset = "test" if cut == "setid.mat" else None
            with pytest.raises(ValueError, match=rf"{cut} is cut or damaged: .* MD5 \w+, not \w+; fetch it"):
                load_images(DataConfig(name, path=str(tmp_path), cache=cache, subset=subset))
    assert not list(Path(cache).iterdir())


def test_what_is_missing_is_named_with_where_to_put_it(name, tmp_path, cache):
    archives = SETS[name]()[1]
    for missing in archives:
        shutil.rmtree(tmp_path, ignore_errors=True)
        write(tmp_path, {file: data for file, data in archives.items() if file != missing})
        tmp_path.mkdir(exist_ok=True)
        subset = "test" if missing in ("setid.mat", "t10k-images-idx3-ubyte.gz") else None
        line = rf"^data: {name}: there is no .*{missing} in {tmp_path}: put {missing} from https?://\S+ there, or add"
        with pytest.raises(ValueError, match=line):
            load_images(DataConfig(name, path=str(tmp_path), cache=cache, subset=subset))
    with pytest.raises(ValueError, match=rf"^data: {name} needs a path: the folder that holds .*; or --data.download$"):
        load_images(DataConfig(name, cache=cache))
    with pytest.raises(ValueError, match=rf"^data: subset of {name} must be .* or .*, got 'dev'$"):
        load_images(DataConfig(name, path=str(tmp_path), subset="dev"))


def test_images_that_are_missing_are_named(tmp_path, cache, monkeypatch, capsys):
    for name, gone in (
        ("flowers102", "flowers-102/jpg/image_00003.jpg"),
        ("celeba", "celeba/img_align_celeba/000004.jpg"),
    ):
        write(tmp_path / name, SETS[known(name, monkeypatch)]()[0])
        (tmp_path / name / gone).unlink()
        load_images(DataConfig(name, path=str(tmp_path / name), cache=cache))
        told = capsys.readouterr().err
        assert f"skipped {Path(gone).name}: it is not there" in told
        assert "1 unreadable ones skipped" in told


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images.txt", "1 a.jpg\n2", r"line 2 of images.txt in .* has 1 words, not 2"),
        ("bounding_boxes.txt", "1 0 0 4 3\n", r"bounding_boxes.txt and images.txt in .* differ in image 2"),
        ("train_test_split.txt", "\xff\n", r"line 1 of train_test_split.txt in .* has 1 words"),
        ("bounding_boxes.txt", "".join(f"{i} a 1 1 1\n" for i in range(1, 7)), r"has no four numbers for image 1"),
        ("bounding_boxes.txt", None, r"cub200: there is no bounding_boxes.txt in"),
    ],
)
def test_damaged_tables_are_one_line(file, text, message, tmp_path, cache):
    write(tmp_path, birds()[0])
    path = tmp_path / "CUB_200_2011" / file
    path.unlink() if text is None else path.write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=message) as caught:
        load_images(DataConfig("cub200", path=str(tmp_path), cache=cache, crop="box"))
    assert "\n" not in str(caught.value)


def test_names_in_a_table_lead_nowhere_else(tmp_path, cache, capsys):
    write(tmp_path, birds()[0])
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    lines = [
        f"1 ../../secret.jpg\n2 {tmp_path}/secret.jpg\n",
        *(f"{i} {i:03d}.Bird/Bird_{i}.jpg\n" for i in range(3, 7)),
    ]
    (tmp_path / "CUB_200_2011" / "images.txt").write_text("".join(lines))
    assert len(load_images(DataConfig("cub200", path=str(tmp_path), cache=cache))) == 4
    assert "skipped ../../secret.jpg: it is not there" in capsys.readouterr().err


def test_another_cifar_batch_is_announced(tmp_path, cache, capsys):
    write(tmp_path, batches()[0])
    load_images(DataConfig("cifar10", path=str(tmp_path), subset="test", cache=cache))
    assert "test_batch differs from the file that was published" in capsys.readouterr().err


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the files in ``folder``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site(name, tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder of the set's archives, which the set's addresses lead to."""
    write(tmp_path / "site", SETS[name]()[1])
    with served(tmp_path / "site") as address:
        files = tuple(file._replace(url=f"{address}/{file.name}") for file in FILES[name])
        monkeypatch.setitem(FILES, name, files)
        yield tmp_path / "site"


def test_a_set_is_fetched_once_and_only_where_it_was_asked_for(name, site, tmp_path, cache):
    for path in (str(tmp_path / "here"), None):
        config = DataConfig(name, path=path, cache=cache, download=True)
        images = load_images(config)
        assert len(images) == COUNTS[name][None]
        folder = Path(cache) / "downloads" / name if path is None else Path(path)
        assert {file.name for file in folder.iterdir()} == set(SETS[name]()[1])
    shutil.rmtree(site)
    assert torch.equal(load_images(config), images)  # needs no network any more


def test_a_damaged_download_is_refused_and_not_kept(name, site, tmp_path, cache):
    first = FILES[name][0].name
    (site / first).write_bytes((site / first).read_bytes()[:-5])
    message = rf"^data: {first} of {name} cannot be fetched \(.*corrupted.*\); put the file from http\S+ into "
    with pytest.raises(ValueError, match=message) as caught:
        load_images(DataConfig(name, path=str(tmp_path / "here"), cache=cache, download=True))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "here").iterdir())


def test_a_cut_file_is_fetched_again_where_that_was_asked_for(name, site, tmp_path, cache):
    first, whole = FILES[name][0].name, SETS[name]()[1]
    write(tmp_path / "here", {**whole, first: whole[first][:-5]})
    config = DataConfig(name, path=str(tmp_path / "here"), cache=cache)
    with pytest.raises(ValueError, match=rf"{first} is cut or damaged: |cannot read \S+{first}"):
        load_images(config)
    assert len(load_images(replace(config, download=True))) == COUNTS[name][None]
    assert (tmp_path / "here" / first).read_bytes() == whole[first]


def test_a_damaged_file_is_fetched_again_and_a_whole_one_is_not(name, site, tmp_path):
    first, *others = FILES[name]
    folder = tmp_path / "here"
    write(folder, {**SETS[name]()[1], first.name: b"cut"})
    for file in others:
        (site / file.name).unlink()
    downloads.download(name, folder)
    assert (folder / first.name).read_bytes() == SETS[name]()[1][first.name]


def test_without_a_network_the_file_and_its_place_are_named(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(downloads, "PATIENCE", 1.0)
    dead = FILES["cub200"][0]._replace(url="http://127.0.0.1:9/CUB_200_2011.tgz")
    monkeypatch.setitem(FILES, "cub200", (dead,))
    message = r"CUB_200_2011.tgz of cub200 cannot be fetched \(.*refused.*\); put the file from http\S+ into .*/here$"
    with pytest.raises(ValueError, match=message):
        load_images(DataConfig("cub200", path=str(tmp_path / "here"), cache=cache, download=True))


def test_celeba_without_gdown_names_it(tmp_path, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(
        ValueError, match=r"img_align_celeba.zip of celeba cannot be fetched \(.*gdown.*\); put the file"
    ):
        load_images(DataConfig("celeba", path=str(tmp_path / "here"), cache=cache, download=True))


def test_the_checksums_are_those_that_torchvision_knows():
    sets = torchvision.datasets
    assert FILES["cifar10"] == (File(sets.CIFAR10.filename, sets.CIFAR10.tgz_md5, sets.CIFAR10.url),)
    assert list(published._CIFAR_MD5.items()) == [
        tuple(pair) for pair in sets.CIFAR10.train_list + sets.CIFAR10.test_list
    ]
    assert {(file.name, file.md5) for file in FILES["fashion-mnist"]} < set(sets.FashionMNIST.resources)
    assert {file.url.removesuffix(file.name) for file in FILES["fashion-mnist"]} == set(sets.FashionMNIST.mirrors)
    assert {(file.drive, file.md5, file.name) for file in FILES["celeba"]} < set(sets.CelebA.file_list)
    assert {(file.name, file.md5) for file in FILES["flowers102"]} < set(sets.Flowers102._file_dict.values())


def test_a_split_that_is_not_named_has_a_name():
    assert [split_name(DataConfig(name)) for name in SETS] == ["all", "all", "train", "train", "train"]
    assert split_name(DataConfig("celeba", subset="val")) == "val"
    assert [split_name(DataConfig("folder", subset=part)) for part in (None, "cats")] == [None, "cats"]


def test_the_set_is_what_a_run_trains_on(tmp_path, cache, monkeypatch):
    write(tmp_path, SETS[known("celeba", monkeypatch)]()[0])
    data = load(DataConfig("celeba", path=str(tmp_path), cache=cache, size=6, crop="8", limit=3), seed=2)
    assert (data.name, data.size, data.shape) == ("celeba", 3, (3, 6, 6))
