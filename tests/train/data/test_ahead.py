"""Images that stay on the host: the same batches, and the same positions, as of images on the device."""

from __future__ import annotations

import pytest
import torch

from train.data import ahead, config
from train.data.ahead import Ahead, fits
from train.data.config import DataConfig, load
from train.data.datasets import ImageSet


def numbered(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).contiguous()


def left_behind(images: torch.Tensor, seed: int) -> ImageSet:
    """A set that copies ahead, though its images are where its batches are."""
    data = ImageSet("numbered", images, seed)
    data._ahead = Ahead(images, images.device)
    return data


def test_rows_are_taken_whether_they_were_told_before_or_not():
    images = numbered(9)
    source = Ahead(images, torch.device("cpu"))
    rows = [torch.tensor(row) for row in ([3, 1], [8, 8, 0], [2], [5, 6])]
    assert torch.equal(source.take(rows[0]), images[rows[0]])
    source.start(rows[1])
    assert torch.equal(source.take(rows[1]), images[rows[1]])
    source.start(rows[2])
    assert torch.equal(source.take(rows[3]), images[rows[3]])
    source.start(rows[2])
    source.start(rows[3])
    first, second = source.take(rows[3]), source.take(rows[2])
    assert torch.equal(first, images[rows[3]])  # no buffer is filled anew while it is used
    assert torch.equal(second, images[rows[2]])


@pytest.mark.parametrize("sizes", [[4] * 12, [7, 3, 10, 1, 25, 4, 4]])
def test_batches_are_those_of_images_on_the_device(sizes):
    here, behind = ImageSet("numbered", numbered(10), 3), left_behind(numbered(10), 3)
    for n in sizes:
        assert torch.equal(here.batch(n), behind.batch(n))
        assert here.state_dict() == behind.state_dict()  # what is copied ahead has not been seen
    assert torch.equal(here.preview(4), behind.preview(4))


def test_a_position_that_is_loaded_is_followed_and_not_what_was_copied_ahead():
    data = left_behind(numbered(10), 3)
    data.batch(4)
    state = data.state_dict()
    expected = [data.batch(4) for _ in range(5)]
    data.load_state_dict(state)
    assert all(torch.equal(data.batch(4), batch) for batch in expected)
    resumed = left_behind(numbered(10), 3)
    resumed.batch(3)
    resumed.load_state_dict(state)
    assert all(torch.equal(resumed.batch(4), batch) for batch in expected)


def test_an_error_of_the_thread_is_raised_where_the_batch_is_asked_for():
    source = Ahead(numbered(3), torch.device("cpu"))
    source.start(torch.tensor([7]))
    with pytest.raises(IndexError):
        source.take(torch.tensor([7]))
    assert torch.equal(source.take(torch.tensor([1])), numbered(3)[1:2])


def test_half_of_the_free_memory_is_the_game_s(monkeypatch):
    monkeypatch.setattr(ahead, "available_bytes", lambda device: 80)
    assert fits(numbered(10), "cuda")  # 40 bytes
    assert not fits(numbered(11), "cuda")


def test_a_set_that_does_not_fit_stays_and_that_is_said(monkeypatch, capsys):
    made = {}
    monkeypatch.setattr(config, "fits", lambda images, device: False)
    monkeypatch.setattr(config, "ImageSet", lambda name, images, seed, **more: made.update(images=images, **more))
    load(DataConfig("digits", size=8), "cuda:0")
    assert (made["images"].device.type, made["device"]) == ("cpu", torch.device("cuda:0"))
    assert "the images (115 kB) stay in the host's memory and are copied ahead" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("count", [10, 300])
def test_on_a_gpu_the_batches_are_those_of_images_that_lie_there(count):
    images = (torch.arange(count)[:, None, None, None] % 256).to(torch.uint8).expand(count, 3, 64, 64).contiguous()
    here = ImageSet("numbered", images.cuda(), 3)
    behind = ImageSet("numbered", images, 3, device="cuda")
    busy = torch.randn(2000, 2000, device="cuda")
    for n in [64] * 40 + [7, 64, 3]:
        expected, batch = here.batch(n), behind.batch(n)
        busy = busy @ busy / 2000**0.5  # the device lags behind, so that buffers are wanted while they are copied
        assert batch.device.type == "cuda"
        assert torch.equal(expected, batch)
    assert behind.preview(4).device.type == "cuda"
