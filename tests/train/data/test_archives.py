"""Hostile and damaged archives: whatever a header declares, reading ends at once and in little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

from train.data.archives import MAX_FILE_BYTES, ArchiveError, LeftOut, read_file, walk_images

ROOT = Path(__file__).resolve().parents[3]
PACK = {"tar": lambda data: data, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}


def contents(path: Path) -> dict[str, bytes | str]:
    """What can be read, or why not, by name."""
    found: dict[str, bytes | str] = {}
    for member in walk_images(path, LeftOut()):
        try:
            found[member.name] = member.read()
        except ArchiveError:
            raise
        except Exception as error:
            found[member.name] = str(error)
    return found


def tar_of(*entries: tuple[str, int | None, bytes], end: bool = True) -> bytes:
    """Members (name, declared size or None for the true one, bytes that follow)."""
    file = io.BytesIO()
    for name, size, data in entries:
        entry = tarfile.TarInfo(name)
        entry.size = len(data) if size is None else size
        padded = data + bytes(-len(data) % 512)
        file.write(entry.tobuf(tarfile.GNU_FORMAT) + padded)
    return file.getvalue() + bytes(1024 if end else 0)


@pytest.mark.parametrize("kind", list(PACK))
def test_members_are_read_whole_and_in_order(tmp_path, kind):
    sizes = (0, 1, 511, 512, 513, 70_000, 2**20, 2**20 + 512)
    entries = [(f"{i}.png", None, os.urandom(size)) for i, size in enumerate(sizes)]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(PACK[kind](tar_of(*entries, ("notes.txt", None, b"x" * 700), ("last.png", None, b"end"))))
    assert contents(path) == {name: data for name, _, data in [*entries, ("last.png", None, b"end")]}
    assert [member.name for member in walk_images(path, LeftOut())] == [*(e[0] for e in entries), "last.png"]  # unread


@pytest.mark.timeout(20)
@pytest.mark.parametrize("declared", [10**12, 2**62, MAX_FILE_BYTES + 1, 4000])
@pytest.mark.parametrize("name", ["big.png", "big.txt"])
@pytest.mark.parametrize("kind", list(PACK))
def test_a_member_that_declares_more_than_there_is_ends_the_archive_at_once(tmp_path, kind, name, declared):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(PACK[kind](tar_of(("a.png", None, b"good"), (name, declared, b"short"), end=False)))
    with pytest.raises(ArchiveError, match="cannot be read to its end"):
        contents(path)


def pax(records: dict[str, str], name: str = "x.png", data: bytes = b"data") -> bytes:
    """A tar whose first member has these extended headers."""
    body = b""
    for key, value in records.items():
        record = f" {key}={value}\n".encode()
        length = len(record)
        while len(str(length)) + len(record) != length:
            length = len(str(length)) + len(record)
        body += str(length).encode() + record
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    return header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + tar_of((name, None, data))


def negative_size() -> bytes:
    """A header whose size, in base 256, is -10,000."""
    header = bytearray(tarfile.TarInfo("neg.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -10_000)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\x00 " % sum(header)
    return bytes(header)


HOSTILE = {
    "negative size": tar_of(("a.png", None, b"x"), end=False) + negative_size() + bytes(1024),
    "pax size": pax({"size": str(10**12)}),
    "pax negative size": pax({"size": "-100000"}),
    "pax size no number": pax({"size": "many"}),
    "sparse that never ends": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, data=b"99999999\n1\n1\n"),
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", list(HOSTILE))
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_hostile_headers_end_at_once(tmp_path, kind, case):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(PACK[kind](HOSTILE[case]))
    with pytest.raises(ArchiveError, match=r"^[^\n]*$"):
        contents(path)


def test_a_sparse_member_of_a_terabyte_is_not_read(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(pax({"GNU.sparse.major": "0", "GNU.sparse.size": str(10**12), "GNU.sparse.map": "0,1"}))
    assert f"more than {MAX_FILE_BYTES}" in str(contents(path)["x.png"])


def test_a_damaged_header_is_no_end(tmp_path):
    data = bytearray(tar_of(("a.png", None, b"x"), ("b.png", None, b"y")))
    data[1024 + 10] ^= 0xFF  # in the header of b.png
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="a header is damaged"):
        contents(path)


def test_what_is_no_archive_says_what_it_is(tmp_path):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.png", os.urandom(5000))
    packed = gzip.compress(tar_of(("a.png", None, os.urandom(5000))))
    cases = {
        "cut.zip": (whole.getvalue()[:3000], "cannot be read to its end: it begins as a zip archive .*was it cut"),
        "empty.tar": (b"", "is empty"),
        "page.zip": (
            b"\n<!DOCTYPE html><html>" + bytes(600),
            "neither a folder nor a tar or zip archive, but a web",
        ),
        "cut.tar.gz": (packed[:2000], "cannot be read to its end"),
        "other.gz": (gzip.compress(b"text" * 500), "cannot be read to its end, or is no tar archive inside"),
        "a.rar": (b"Rar!" + bytes(2000), "neither a folder nor a tar or zip archive$"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ArchiveError, match=message):
            contents(tmp_path / name)


def test_members_of_a_zip_that_cannot_be_read_are_named_one_by_one(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.png", b"good")
        archive.writestr("packed.png", bytes(5000), zipfile.ZIP_LZMA)
        archive.writestr("notes.txt", b"x")
        for name, kind in (("link.png", 0o120777), ("device.png", 0o020666), ("pipe.png", 0o010666)):
            special = zipfile.ZipInfo(name)
            special.external_attr = kind << 16
            archive.writestr(special, "/etc/passwd")
        for name in ("../up.png", "/root.png"):
            archive.writestr(zipfile.ZipInfo(name), b"x")
    found = contents(path)
    assert found == {"good.png": b"good", "packed.png": "its compression is neither stored nor deflated"}
    left_out = LeftOut()
    list(walk_images(path, left_out))
    assert left_out.lines(9) == [
        "left out 1 files with other suffixes: notes.txt",
        "left out 3 links, pipes or devices: link.png, device.png, pipe.png",
        "left out 2 names that lead out of the archive: ../up.png, /root.png",
    ]


def lying_zip(path: Path, true: int, declared: int) -> None:
    """A zip member of ``true`` zeros whose headers declare another size, with the checksum of what is declared."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.png", bytes(true))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(signature)
        data[at + offset : at + offset + 4] = struct.pack("<I", declared)
        data[at + offset - 8 : at + offset - 4] = struct.pack("<I", zlib.crc32(bytes(declared)))
    path.write_bytes(data)


@pytest.mark.parametrize(("true", "declared"), [(600 * 2**20, 1000), (1000, 200 * 2**20), (300 * 2**20, 300 * 2**20)])
def test_memory_follows_what_is_read_not_what_is_declared(tmp_path, true, declared):
    lying_zip(tmp_path / "lie.zip", true, declared)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom train.data.archives import LeftOut, walk_images\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for member in walk_images(Path(sys.argv[1]), LeftOut()):\n"
        "    try: member.read()\n"
        "    except ValueError: pass\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lie.zip")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(run.stdout.split()[-1]) * 1024 < 64 * 2**20


def test_a_file_that_became_a_pipe_does_not_wait(tmp_path):
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    answers: list[str] = []

    def read() -> None:
        try:
            read_file(pipe)
        except ValueError as error:
            answers.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert answers == ["it is no regular file"]


def test_a_pipe_or_a_device_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    for path in (tmp_path / "a.tar", Path("/dev/zero")):
        with pytest.raises(ArchiveError, match="is neither a folder nor a file"):
            contents(path)


def test_a_huge_file_is_not_read_whole(tmp_path):
    sparse = tmp_path / "a.png"
    with sparse.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match=f"more than {MAX_FILE_BYTES}"):
        read_file(sparse)
