"""A run's folder: one process takes it, its lock ends with the process, an earlier run is never continued unasked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.run.directory import LOCK, TRACES, locked, new_directory

ROOT = Path(__file__).resolve().parents[3]


def hold(directory: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder's lock until it is killed."""
    code = (
        "import time\nfrom pathlib import Path\nfrom train.run.directory import locked\n"
        f"with locked(Path({str(directory)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_the_first_ones_death_releases_the_lock(tmp_path):
    holder = hold(tmp_path)
    try:
        with pytest.raises(ValueError, match=rf"is in use by another run \(process {holder.pid}\)$"), locked(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
    assert (tmp_path / LOCK).read_bytes() == b""
    with locked(tmp_path):  # and once more in the same process
        pass


def test_processes_that_start_together_get_folders_of_their_own(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom train.run.directory import new_directory\n"
        f"start = {time.time() + 2.0!r}\ntime.sleep(max(0.0, start - time.time()))\n"
        f"with new_directory(None, Path({str(tmp_path)!r}) / 'runs' / 'gan-ring8') as d:\n"
        "    (d / 'config.json').write_text('{}'); print(d.name, flush=True); time.sleep(1)\n"
    )
    together = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    names = sorted(process.communicate(timeout=60)[0].strip() for process in together)
    assert names == ["gan-ring8", *(f"gan-ring8-{n}" for n in range(2, 7))]


@pytest.mark.parametrize("trace", TRACES)
def test_a_folder_where_a_run_has_been_is_refused_and_left_as_it_was(tmp_path, trace):
    (tmp_path / trace).mkdir()
    with (
        pytest.raises(ValueError, match=f"^train: out: {tmp_path} holds (a run|{trace} of an earlier run)"),
        new_directory(str(tmp_path), Path("unused")),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == [trace]


def test_a_run_that_came_and_went_before_the_lock_is_seen(tmp_path, monkeypatch):
    import train.run.directory as module

    look, seen = module.check_unused, []

    def first_look_is_too_early(directory):
        if seen:
            look(directory)
        seen.append(directory)
        (directory / "metrics.jsonl").touch()

    monkeypatch.setattr(module, "check_unused", first_look_is_too_early)
    with pytest.raises(ValueError, match=r"metrics\.jsonl of an earlier run"), new_directory(str(tmp_path), Path("x")):
        pass


def test_other_files_in_the_folder_are_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    with new_directory(str(tmp_path), Path("unused")) as directory:
        assert directory == tmp_path
    assert (tmp_path / "notes.txt").read_text() == "kept"


def fail_in(out: str | None, default: Path, writes: bool = False) -> None:
    """A run that ends with an error in its new folder."""
    with new_directory(out, default) as directory:
        if writes:
            (directory / "config.json").write_text("{}")
        raise RuntimeError(f"failed in {directory}")


def test_folders_of_a_run_that_never_began_are_removed_with_the_parents_made_for_them(tmp_path):
    for out in (str(tmp_path / "a" / "b" / "run"), None):
        with pytest.raises(RuntimeError, match="failed in"):
            fail_in(out, tmp_path / "runs" / "gan-ring8")
        assert not list(tmp_path.iterdir())
    empty = tmp_path / "mine"
    empty.mkdir()
    with pytest.raises(RuntimeError, match="failed in"):
        fail_in(str(empty), Path("unused"))
    assert empty.is_dir()  # it was there before


def test_a_run_that_began_stays(tmp_path):
    with pytest.raises(RuntimeError, match="failed in"):
        fail_in(str(tmp_path / "run"), Path("unused"), writes=True)
    assert (tmp_path / "run" / "config.json").exists()


def test_a_file_in_the_way_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is no folder"), new_directory(str(tmp_path / "file"), Path("unused")):
        pass
    with pytest.raises(OSError, match="file"), new_directory(str(tmp_path / "file" / "run"), Path("unused")):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in capsys.readouterr().out
