"""Data sets: batches, epochs, resuming in the middle of one, and the readers of published formats."""

from __future__ import annotations

import gzip
import pickle
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import torch
import torchvision

from train.data.config import DataConfig, load, load_images
from train.data.datasets import ImageSet, evenly_spaced
from train.data.readers import fit, read_idx_images


def numbered(count: int) -> torch.Tensor:
    """Images [count, 1, 2, 2] whose pixels are their number, so that a batch tells which images it holds."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).contiguous()


def numbers(batch: torch.Tensor) -> list[int]:
    return ((batch[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("size", [1, 7, 10, 23])
def test_each_image_comes_once_per_epoch(size):
    data = ImageSet("numbered", numbered(10), seed=3)
    stream: list[int] = []
    while len(stream) < 70:
        batch = data.batch(size)
        assert batch.shape == (size, 1, 2, 2)
        stream += numbers(batch)
    epochs = [stream[i : i + 10] for i in range(0, 70, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # a new order each time: equal ones have odds of (1 / 10!)^6


def test_order_follows_from_the_seed():
    first, again, other = (ImageSet("numbered", numbered(100), seed=s) for s in (1, 1, 2))
    drawn = first.batch(100)
    assert torch.equal(drawn, again.batch(100))
    assert not torch.equal(drawn, other.batch(100))


@pytest.mark.parametrize(
    "make", [lambda: ImageSet("numbered", numbered(50), 5), lambda: load(DataConfig("ring8"), seed=5)]
)
def test_resumes_bit_for_bit_in_the_middle_of_an_epoch(make, tmp_path):
    data = make()
    for _ in range(9):
        data.batch(7)  # 63 images: one epoch and a bit
    torch.save(data.state_dict(), tmp_path / "state.pt")
    expected = [data.batch(7) for _ in range(20)]
    resumed = make()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(resumed.batch(7), batch) for batch in expected)


def test_preview_is_fixed_and_does_not_move_the_stream():
    for make in (lambda: ImageSet("numbered", numbered(50), 5), lambda: load(DataConfig("ball3d"), seed=5)):
        looked, plain = make(), make()
        assert torch.equal(looked.preview(10), looked.preview(10))
        assert torch.equal(looked.batch(8), plain.batch(8))
        assert not torch.equal(looked.preview(8), plain.batch(8))


def test_a_position_of_other_data_is_refused():
    state = ImageSet("numbered", numbered(50), 5).state_dict()
    with pytest.raises(ValueError, match="the run was trained on 50 other images than these 49"):
        ImageSet("numbered", numbered(49), 5).load_state_dict(state)
    with pytest.raises(ValueError, match="saved position is for name ring8, this data set has ball3d"):
        load(DataConfig("ball3d")).load_state_dict(load(DataConfig("ring8")).state_dict())


def test_pixels_span_minus_one_to_one():
    images = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).reshape(4, 1, 1, 1)
    batch = ImageSet("pixels", images, 0).batch(4)
    assert batch.dtype == torch.float32
    # 51 / 127.5 - 1 = -0.6; two float32 roundings of values below 2: 2^-23 each
    torch.testing.assert_close(batch.flatten().sort().values, torch.tensor([-1, -0.6, 0.6, 1]), atol=2.4e-7, rtol=0)


def test_ring8_has_the_stated_moments():
    data = load(DataConfig("ring8"), seed=1)
    assert data.shape == (2,)
    assert data.target is not None
    points = data.batch(80_000).double()
    centres = data.target.centres(dtype=torch.float64)
    torch.testing.assert_close(centres.norm(dim=1), torch.full((8,), 2.0, dtype=torch.float64))
    distance, mode = torch.cdist(points, centres).min(1)
    counts = mode.bincount(minlength=8)
    assert (counts - 10_000).abs().max() < 5 * (80_000 * 7 / 64) ** 0.5  # five binomial standard deviations
    # |x - centre|^2 / 0.04 is chi-squared with two degrees: mean 2, variance 4; 5 standard errors. Neighbouring centres
    # are 7.6 sigma apart, so that assignment to the nearest biases this by less than 1e-3.
    assert abs((distance.square() / 0.04).mean().item() - 2) < 5 * 2 / 80_000**0.5 + 1e-3


def test_ball3d_is_standard_normal():
    points = load(DataConfig("ball3d"), seed=1).batch(50_000).double()
    assert points.shape == (50_000, 3)
    # entries of the mean have variance 1/n, of the second moment at most 2/n; five standard errors
    assert points.mean(0).abs().max() < 5 / 50_000**0.5
    assert (points.T @ points / 50_000 - torch.eye(3)).abs().max() < 5 * (2 / 50_000) ** 0.5


@pytest.mark.parametrize(("size", "shape"), [(8, (1, 8, 8)), (12, (1, 12, 12)), (32, (1, 32, 32))])
def test_digits(size, shape):
    data = load(DataConfig("digits", size=size))
    assert (data.size, data.shape) == (1797, shape)
    assert (data.images.min(), data.images.max()) == (0, 255)


def test_the_images_of_a_set_are_what_its_batches_are_made_of():
    images = load_images(DataConfig("digits", size=12, limit=50))
    assert (images.dtype, images.shape, images.device.type) == (torch.uint8, (50, 1, 12, 12), "cpu")
    assert torch.equal(images, load(DataConfig("digits", size=12, limit=50)).images)
    with pytest.raises(ValueError, match=r"^data: ring8 has points, no images$"):
        load_images(DataConfig("ring8"))


def test_padding_keeps_pixels_and_resizing_keeps_constants():
    white = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    assert (fit(white, 12, pad=True) == 255).sum() == 64
    assert (fit(white, 12, pad=False) == 255).all()
    assert (fit(white, 13, pad=True) == 255).all()
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    padded = fit(images, 32, pad=True)
    assert torch.equal(padded[:, :, 2:30, 2:30], images)
    assert padded.int().sum() == images.int().sum()
    assert torch.equal(
        fit(torch.full((2, 3, 8, 8), 77, dtype=torch.uint8), 21, pad=False), torch.full((2, 3, 21, 21), 77)
    )


def test_limit_is_spread_over_the_set():
    assert numbers(load_numbers(evenly_spaced(numbered(100), 4))) == [0, 25, 50, 75]
    assert load(DataConfig("digits", size=8, limit=100)).size == 100


def load_numbers(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1


def idx_bytes(images: np.ndarray) -> bytes:
    return struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()


@pytest.fixture
def drawings():
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


def test_idx_equals_torchvision(drawings, tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, values in (("train", drawings), ("t10k", drawings[::-1])):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(values))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 5) + bytes(5))
    for subset in ("train", "test"):
        theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=subset == "train").data
        ours = load(DataConfig("fashion-mnist", path=str(tmp_path), size=28, subset=subset)).images
        assert torch.equal(ours[:, 0], theirs)
    assert torch.equal(load(DataConfig("fashion-mnist", path=str(raw), size=28)).images[:, 0], torch.tensor(drawings))


def test_compressed_idx(drawings, tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(drawings)))
    data = load(DataConfig("fashion-mnist", path=str(tmp_path)))
    assert torch.equal(data.images[:, 0, 2:30, 2:30], torch.tensor(drawings))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:9], "too short"),
        (lambda b: b[:-1], "promises 5 images of 28 x 28 in 3919 bytes"),
        (lambda b: b + b"x", "promises 5 images of 28 x 28 in more than 3920 bytes"),
        (lambda b: b"\0\0\x08\x01" + b[4:], "magic number 0x00000801"),
        (lambda b: b[:4] + struct.pack(">III", 2**31, 28, 28) + b[16:], "declares 1683627180032 bytes of images, more"),
    ],
)
def test_damaged_idx(drawings, tmp_path, damage, message):
    file = tmp_path / "images"
    file.write_bytes(damage(idx_bytes(drawings)))
    with pytest.raises(ValueError, match=message):
        read_idx_images(file)
    zipped = tmp_path / "images.gz"
    zipped.write_bytes(gzip.compress(idx_bytes(drawings))[:-20])
    with pytest.raises(ValueError, match="cannot read"):
        read_idx_images(zipped)


def test_a_small_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    bomb = tmp_path / "images.gz"
    bomb.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 5, 28, 28) + bytes(300 * 2**20), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match="promises 5 images of 28 x 28 in more than 3920 bytes"):
        read_idx_images(bomb)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def write_cifar(folder, batches: dict[str, np.ndarray], protocol: int) -> None:
    folder.mkdir()
    for name, pixels in batches.items():
        labels = [0] * len(pixels)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=protocol))


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10(tmp_path, protocol):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3072), dtype=np.uint8)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    write_cifar(tmp_path / "cifar-10-batches-py", dict(zip(names, pixels, strict=True)), protocol)
    train = load(DataConfig("cifar10", path=str(tmp_path)))
    test = load(DataConfig("cifar10", path=str(tmp_path / "cifar-10-batches-py"), subset="test"))
    # the format: 1024 red, then green, then blue values, row by row
    assert torch.equal(train.images, torch.tensor(pixels[:5].reshape(20, 3, 32, 32)))
    assert torch.equal(test.images, torch.tensor(pixels[5].reshape(4, 3, 32, 32)))


class Malice:
    def __reduce__(self):
        import os

        return os.mkdir, ("made-by-a-pickle",)


def test_cifar10_pickles_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Malice()}))
    with pytest.raises(ValueError, match=r"test_batch is no CIFAR-10 batch: it asks for \w+\.mkdir"):
        load(DataConfig("cifar10", path=str(tmp_path), subset="test"))
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "imagenet"}, "name must be one of ring8, .*, folder, got 'imagenet'"),
        ({"name": "folder"}, "folder needs a path: a folder, tar or zip of images"),
        ({"name": "cifar10", "path": "nowhere"}, "there is no .*/nowhere"),
        ({"name": "cifar10", "path": "."}, "there is no data_batch_1 or cifar-10-python.tar.gz in"),
        ({"name": "fashion-mnist", "path": "."}, "no train-images-idx3-ubyte or"),
        ({"name": "cifar10", "path": ".", "subset": "all"}, "subset of cifar10 must be train or test, got 'all'"),
        ({"name": "digits", "size": 0}, "size must lie in 1..4096 pixels, got 0"),
        ({"name": "digits", "size": 8.5}, "size must be an integer, got 8.5"),
        ({"name": "digits", "size": 5000}, "size must lie in 1..4096 pixels, got 5000"),
        ({"name": "ring8", "limit": 10**13}, "limit 10000000000000 needs at least 80 TB of memory"),
        ({"name": "digits", "limit": 0}, "limit must be at least 1, got 0"),
        ({"name": "folder", "path": ""}, "path must name a file or folder, got ''"),
        ({"name": "folder", "path": "x", "cache": ""}, "cache must name a file or folder, got ''"),
        ({"name": "folder", "path": "x", "background": "octarine"}, "background must be a colour, .*, got 'octarine'"),
    ],
)
def test_bad_configurations_are_one_clear_line(config, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load(DataConfig(**config))
    assert "\n" not in str(caught.value)


def test_bad_counts():
    data = ImageSet("numbered", numbered(5), 0)
    with pytest.raises(ValueError, match="batch needs n >= 1, got 0"):
        data.batch(0)
    with pytest.raises(ValueError, match="has 5 images, a preview of 6"):
        data.preview(6)
    with pytest.raises(ValueError, match=r"must be uint8 \[M > 0, C, H, W\], got torch.float32 \[5, 1, 2, 2\]"):
        ImageSet("floats", numbered(5).float(), 0)


def test_a_fixed_set_of_points_is_drawn_without_repetition():
    data = load(DataConfig("ring8", limit=20), "cpu", 3)
    whole = data.batch(20)
    assert len(whole.unique(dim=0)) == 20
    part = data.batch(7)
    assert len(part.unique(dim=0)) == 7
    assert all((whole == point).all(1).any() for point in part)
    again = load(DataConfig("ring8", limit=20), "cpu", 3)
    assert torch.equal(again.batch(20), whole)
    again.load_state_dict(data.state_dict())
    assert torch.equal(again.batch(5), data.batch(5))
    other = load(DataConfig("ring8", limit=20), "cpu", 4)
    assert not torch.equal(other.batch(20).sort(0).values, whole.sort(0).values)
    with pytest.raises(ValueError, match="data: ring8 is limited to 20 points, a batch of 21 was asked for"):
        data.batch(21)
    with pytest.raises(ValueError, match="data: limit must be at least 1, got 0"):
        DataConfig("ball3d", limit=0)


def test_paths_are_absolute_so_that_a_run_can_be_resumed_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = DataConfig("folder", path="some/../images.tar", cache="~/cache")
    assert (config.path, config.cache) == (str(tmp_path / "images.tar"), str(tmp_path / "home" / "cache"))


def images(seed, count=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)


def test_a_state_belongs_to_the_images_it_was_taken_from():
    data = ImageSet("folder", images(0), 1)
    data.batch(8)
    state = data.state_dict()
    same = ImageSet("folder", images(0), 1)
    same.load_state_dict(state)
    assert torch.equal(same.batch(5), data.batch(5))
    older = {name: value for name, value in state.items() if name != "fingerprint"}
    ImageSet("folder", images(0), 1).load_state_dict(older)
    changed = images(0)
    changed[3, 0, 0, 0] += 1
    for others in (changed, images(0).flip(0), images(0, 7), images(0)[:5]):
        with pytest.raises(ValueError, match=r"trained on 6 other images than these [567]; --other-data goes on"):
            ImageSet("folder", others, 1).load_state_dict(state)
        new = ImageSet("folder", others, 1)
        new.load_state_dict(state, allow_other=True)
        assert (new.state_dict()["epoch"], new.state_dict()["position"]) == (2, 0)
        assert len(new.batch(len(others)).unique(dim=0)) == len(others)
    with pytest.raises(ValueError, match=r"images of shape \[3, 4, 4\]"):
        ImageSet("folder", images(0)[:, :1], 1).load_state_dict(state, allow_other=True)


DAMAGE = {
    "name": 5, "images": [6, 3, 4], "epoch": -1, "position": 7, "seed": "x"
}  # fmt: skip


@pytest.mark.parametrize("part", list(DAMAGE))
def test_a_damaged_state_of_images_is_one_line(part):
    state = ImageSet("folder", images(0), 1).state_dict()
    for wrong in ({**state, part: DAMAGE[part]}, {**state, part: None}, {k: v for k, v in state.items() if k != part}):
        with pytest.raises(ValueError, match=r"^data: "):
            ImageSet("folder", images(0), 1).load_state_dict(wrong)


@pytest.mark.parametrize(
    ("part", "value"),
    [("name", "ball3d"), ("seed", 9), ("device", 3), ("limit", 5), ("generator", torch.zeros(3)), ("generator", None)],
)
def test_a_state_of_points_that_does_not_belong_is_one_line(part, value):
    state = load(DataConfig("ring8"), "cpu", 3).state_dict()
    absent = {name: known for name, known in state.items() if name != part}
    for wrong in [{**state, part: value}] + [absent] * (part != "limit"):
        with pytest.raises(ValueError, match=r"^data: "):
            load(DataConfig("ring8"), "cpu", 3).load_state_dict(wrong)


def test_digits_without_scikit_learn_name_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"which is not installed: pip install -e '\.\[train\]' brings it$"):
        load(DataConfig("digits"))
