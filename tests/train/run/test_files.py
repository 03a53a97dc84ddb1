"""Files that are whole or absent: killed writers, full disks, and what dead writers leave."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from train.errors import ResourceError
from train.run import checkpoint, files

LIMIT = 200_000  # bytes


@pytest.fixture
def small_files():
    """No file of this process may pass LIMIT: to a writer it looks like a full disk, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of LIMIT bytes, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here; the file size limit stands for the full disk in the other tests")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "state.json"
    files.write_json(path, {"a": 1})
    before = path.read_bytes()

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, fail)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_the_file_is_synced_before_its_name_appears_and_the_folder_after(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    events: list[tuple[str, bool]] = []
    sync = files._sync
    monkeypatch.setattr(files, "_sync", lambda p: (events.append((p.name, path.exists())), sync(p)))
    files.write_json(path, {})
    assert events == [(files.temporary_name(path).name, False), (tmp_path.name, True)]


BIG = torch.zeros(LIMIT // 4)
WRITERS = {
    "python": lambda path: files.write_atomically(path, lambda temporary: temporary.write_bytes(bytes(2 * LIMIT))),
    "torch": lambda path: checkpoint.save(path.parent, {"big": BIG}, 7, 1),
    "safetensors": lambda path: files.write_atomically(path, lambda temporary: save_file({"big": BIG}, temporary)),
}


@pytest.mark.parametrize("writer", list(WRITERS))
def test_past_the_size_limit_is_one_line_and_changes_nothing(tmp_path, small_files, writer):
    check_refusal(tmp_path, writer, r"the file size limit is reached \(ulimit -f\)")


@pytest.mark.parametrize("writer", list(WRITERS))
def test_a_full_disk_is_one_line_and_changes_nothing(small_disk, writer):
    check_refusal(small_disk, writer, "no space is left on the disk")


def check_refusal(folder, writer, reason):
    path = folder / "step_00000007.pt"
    path.write_text("the one before")
    with pytest.raises(ResourceError, match=f"step_00000007.pt was not written: {reason}; free space in ") as caught:
        WRITERS[writer](path)
    assert str(caught.value).isprintable()
    assert str(folder) in str(caught.value)
    assert path.read_text() == "the one before"
    assert [item.name for item in folder.iterdir()] == [path.name]


def test_after_space_is_freed_the_same_write_succeeds(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(LIMIT // 2))
    half = {"half": torch.zeros(LIMIT // 8)}
    with pytest.raises(ResourceError):
        checkpoint.save(small_disk, half, 7, 1)
    filler.unlink()
    assert checkpoint.save(small_disk, half, 7, 1).exists()


def test_another_refusal_names_the_file_asked_for(tmp_path):
    path = tmp_path / "missing" / "state.json"
    with pytest.raises(FileNotFoundError) as caught:
        files.write_json(path, {})
    assert caught.value.filename == str(path)  # not the temporary one
    with pytest.raises(FileNotFoundError) as caught:
        files.write_atomically(path, lambda temporary: save_file({"x": torch.zeros(1)}, temporary))
    assert caught.value.filename == str(path)


def test_a_fault_of_the_writer_is_its_own(tmp_path):
    with pytest.raises(KeyError, match="mine"):
        files.write_atomically(tmp_path / "x", lambda temporary: {}["mine"])
    assert list(tmp_path.iterdir()) == []


def test_read_only_is_said(tmp_path):
    def refused(temporary):
        raise OSError(errno.EROFS, "Read-only file system", str(temporary))

    with pytest.raises(ResourceError, match=r"x\.json was not written: the file system is read-only; "):
        files.write_atomically(tmp_path / "x.json", refused)


def test_sweep_removes_what_dead_writers_left_and_nothing_else(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    folder = tmp_path / "vae" / "checkpoints"
    folder.mkdir(parents=True)
    gone = [
        folder / f".step_00000015.pt.{dead.stdout.strip()}.part",
        tmp_path / f".report.html.{os.getpid()}.part",  # of an earlier process with our number
        tmp_path / ".config.json.99999999999999999999.part",
    ]
    (old := tmp_path / f".old.json.{os.getpid()}.0123abcd.part").touch()  # of another machine
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    gone.append(old)
    kept = [
        tmp_path / f".config.json.{os.getppid()}.part",  # lives
        tmp_path / f".config.json.{dead.stdout.strip()}.0123abcd.part",  # of another machine, just now
        tmp_path / f".config.json.{dead.stdout.strip()}.12345678.part",  # the same, whose token is no letter
        tmp_path / "notes.part",
        tmp_path / ".hidden.x.part",
        folder / "step_00000015.pt",
    ]
    for path in gone[:-1] + kept:
        path.touch()
    outside = tmp_path.parent / f".outside.{dead.stdout.strip()}.part"
    outside.touch()
    (tmp_path / "link").symlink_to(tmp_path.parent)
    assert sorted(files.sweep(tmp_path)) == sorted(gone)
    assert all(path.exists() for path in [*kept, outside])
    outside.unlink()


def test_sweep_of_a_missing_folder_does_nothing(tmp_path):
    assert files.sweep(tmp_path / "missing") == []


def test_a_killed_writer_leaves_the_old_file_and_a_part_that_sweep_finds(tmp_path):
    path = tmp_path / "state.json"
    files.write_json(path, {"a": 1})
    program = "\n".join(
        [
            "import os, signal, sys; from pathlib import Path; from train.run.files import write_atomically",
            "def dies(temporary): temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)",
            "write_atomically(Path(sys.argv[1]), dies)",
        ]
    )
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", program, path], cwd=root).returncode == -9
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert len(list(tmp_path.iterdir())) == 2
    assert len(files.sweep(tmp_path)) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]
