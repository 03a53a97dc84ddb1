"""Decoding by processes: the same images in the same order, and nothing lost to a decoder that dies."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import decoders
from train.data.archives import ArchiveError
from train.data.decode import decode_on
from train.data.decoders import Item, decode_items

ROOT = Path(__file__).resolve().parents[3]


def png(grey: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), grey, np.uint8)).save(file, "PNG")
    return file.getvalue()


def item(name: str, data: bytes, **more) -> Item:
    return Item(name, lambda: data, **more)


@pytest.fixture
def processes(monkeypatch) -> None:
    """Two decoders, from the first image on."""
    monkeypatch.setattr(decoders, "START_AFTER", 0.0)
    monkeypatch.setattr(decoders, "_cores", lambda: 2)


def greys(items, size: int = 8) -> list[tuple[str, int | str]]:
    found = decode_items(items, size, "white")
    return [(name, one if isinstance(one, str) else int(one.pixels[0, 0, 0])) for name, one in found]


@pytest.mark.usefixtures("processes")
def test_processes_give_what_decoding_here_gives_in_the_same_order(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    items = []
    for i in range(200):
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (rng.integers(9, 40), rng.integers(9, 40), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG")
        crop = (None, 9, (2.0, 1.0, 5.0, 6.5))[i % 3]
        items.append(item(f"{i}.jpg", file.getvalue(), crop=crop))
        if i % 2:
            (tmp_path / f"{i}.jpg").write_bytes(file.getvalue())
            items[-1] = items[-1]._replace(read=lambda: 1 / 0, file=str(tmp_path / f"{i}.jpg"))  # read by the decoder
    there = list(decode_items(items, 8, "white"))
    assert [name for name, _ in there] == [name for name, *_ in items]
    for (_, found), (_, read, file, crop) in zip(there, items, strict=True):
        data = read() if file is None else Path(file).read_bytes()
        expected = decode_on(data, 8, "white", crop)
        assert np.array_equal(found.pixels, expected.pixels)
        assert found[1:] == expected[1:]


@pytest.mark.usefixtures("processes")
def test_what_cannot_be_read_is_named_in_its_place(tmp_path):
    def refuse() -> bytes:
        raise PermissionError(13, "Permission denied")

    items = [
        item("a", png(1)),
        item("b", b"no image"),
        Item("c", refuse),
        Item("d", refuse, str(tmp_path / "d\udc80")),
        item("e", b""),
        item("f", png(2)),
    ]
    found = greys(items)
    assert (found[0], found[5]) == (("a", 1), ("f", 2))
    told = [text for _, text in found[1:5]]
    for text, part in zip(told, ("it is no image", "Permission denied", "No such file", "is empty"), strict=True):
        assert part in text


DEADLY = """
import os, signal, sys
sys.path.insert(0, {root!r})
from train.data import worker
decode = worker.decode_on
def deadly(data, *how):
    if data == b"deadly":
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode(data, *how)
worker.decode_on = deadly
worker.main()
"""


@pytest.mark.usefixtures("processes")
def test_an_image_that_kills_its_decoder_is_named_and_the_others_are_decoded(monkeypatch):
    monkeypatch.setattr(decoders, "_COMMAND", DEADLY.format(root=str(ROOT)))
    items = [item(str(i), b"deadly" if i in (3, 40, 41) else png(i)) for i in range(80)]
    died = "its decoder died (SIGSEGV)"
    assert greys(items) == [(str(i), died if i in (3, 40, 41) else i) for i in range(80)]


@pytest.mark.usefixtures("processes")
def test_a_bomb_is_refused_by_a_decoder_too():
    """PIL alone warns from 2^26 * 4 / 3 pixels on, and refuses twice as many."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    (name, told), *others = greys([item("bomb", file.getvalue()), *(item(str(i), png(i)) for i in range(9))])
    assert name == "bomb"
    assert "exceeds limit" in str(told)
    assert others == [(str(i), i) for i in range(9)]


@pytest.mark.usefixtures("processes")
def test_decoders_that_cannot_be_started_are_one_line(monkeypatch):
    monkeypatch.setattr(decoders, "_COMMAND", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match=r"^data: a decoder could not be started \(exit status 3\)$"):
        greys([item("a", png(1))])


def children() -> list[str]:
    found = subprocess.run(["ps", "-ww", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True)
    return [line for line in found.stdout.splitlines() if "train.data.worker" in line]


@pytest.mark.usefixtures("processes")
def test_decoders_end_with_the_images_and_where_their_user_gives_up():
    assert len(greys(item(str(i), png(i)) for i in range(40))) == 40
    assert not children()
    large = png(1, 600)
    images = decode_items((item(str(i), large) for i in range(300)), 8, "white")
    next(images)
    assert children()
    images.close()
    assert not children()

    def damaged():
        yield from (item(str(i), large) for i in range(100))
        raise ArchiveError("data: a.tar cannot be read to its end")

    with pytest.raises(ArchiveError):
        greys(damaged())
    assert not children()


ORPHANS = """
import os, signal, sys
sys.path.insert(0, {root!r})
from train.data import decoders
decoders.START_AFTER, decoders._cores = 0.0, lambda: 2
images = decoders.decode_items((decoders.Item("a", lambda: {data!r}) for _ in range(10**6)), 8, "white")
next(images)
print("started", flush=True)
while True:
    next(images)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_decoders_end_with_their_parent(number):
    command = [sys.executable, "-c", ORPHANS.format(root=str(ROOT), data=png(1))]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    group = parent.pid
    assert parent.stdout.readline() == b"started\n"
    os.killpg(group, number) if number == signal.SIGINT else parent.kill()
    _, told = parent.communicate(timeout=20)
    assert told.count(b"Traceback") <= 1  # the parent's own
    deadline = time.monotonic() + 20
    while alive(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(group)


@pytest.mark.usefixtures("processes")
def test_ctrl_c_in_a_decoder_s_first_moments_does_not_reach_it(monkeypatch):
    pressed = "import os, signal; os.kill(os.getpid(), signal.SIGINT); "
    monkeypatch.setattr(decoders, "_COMMAND", pressed + decoders._COMMAND)
    assert greys(item(str(i), png(i)) for i in range(20)) == [(str(i), i) for i in range(20)]


def alive(group: int) -> bool:
    found = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout.split("\n")
    return any(line.split()[0] == str(group) and "Z" not in line.split()[1] for line in found if line.strip())


@pytest.mark.usefixtures("processes")
def test_no_more_files_are_read_ahead_than_memory_allows(monkeypatch):
    monkeypatch.setattr(decoders, "MOST_BYTES_AHEAD", 2_000)
    monkeypatch.setattr(decoders, "MOST_BYTES", 1_000)
    asked: list[int] = []

    def items():
        for i in range(100):
            asked.append(i)
            yield item(str(i), png(1) + bytes(1_000))

    most = 0
    for done, _ in enumerate(decode_items(items(), 8, "white")):
        most = max(most, len(asked) - done)
    assert len(asked) == 100
    assert most <= 2 + 1 + 1  # what may be ahead, what is being answered, and what was asked to find that out


@pytest.mark.usefixtures("processes")
def test_large_decoded_images_count_as_memory_too(monkeypatch):
    monkeypatch.setattr(decoders, "MOST_BYTES_AHEAD", 2 * 3 * 64**2)
    monkeypatch.setattr(decoders, "MOST_BYTES", 1)
    asked: list[int] = []

    def items():
        for i in range(50):
            asked.append(i)
            yield item(str(i), png(1))

    ahead = [len(asked) - done for done, _ in enumerate(decode_items(items(), 64, "white"))]
    assert (len(asked), len(ahead)) == (50, 50)
    assert max(ahead) <= 2 + 1 + 1


def test_decoders_do_not_import_pytorch():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import train.data.worker; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr
