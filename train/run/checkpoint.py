"""Checkpoints that survive a crash.

A checkpoint is written to a temporary file, synced and renamed, so a name that exists is a whole file unless the disk
lost part of it later; such a file fails its checksums, is named in a warning and passed over for the one before.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from train.errors import ResourceError, printable, resource_message
from train.run.files import write_atomically
from train.run.state import check_state

_NAME = re.compile(r"step_([0-9]+)\.pt")


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in ``directory``, newest first; of two with one step, the one that ``save`` would write."""
    found = [path for path in directory.glob("step_*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (step_of(path), path.name == _name(step_of(path))), reverse=True)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"checkpoint: {path} is not named step_<number>.pt")
    return int(match[1])


def save(directory: Path, state: Mapping[str, Any], step: int, keep: int) -> Path:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) atomically.

    The newest ``keep`` files up to ``step`` stay. Files of later steps are damaged ones that a resume
    passed over; they go too. ResourceError, and every file as it was, if the disk is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / _name(step)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # torch's own file does not say why a write failed; Python's does
            torch.save(dict(state), file)

    write_atomically(path, write)
    kept = [known for known in checkpoints(directory) if step_of(known) <= step][:keep]
    for known in checkpoints(directory):
        if known not in kept and (known.is_symlink() or not known.is_dir()):
            known.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """The state in ``path``, on the CPU and of the form that ``check_state`` asks for. No code in it is ever run.

    ValueError naming the file if it is damaged; ResourceError if there is not enough memory to read it. Memory is
    bounded by the file's size, whatever its headers declare.
    """
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_state(state)
        return dict(state)
    except Exception as error:  # whatever a parser raises on damaged bytes, an older checkpoint may be whole
        shown, out = printable(str(path)), resource_message(error)
        if out is not None:
            raise ResourceError(f"checkpoint: {shown} was not read: {out}") from error
        raise ValueError(f"checkpoint: {shown} is damaged: {_why(error)}") from error


def valid_states(directory: Path, warn: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each undamaged checkpoint with its state, newest first and read when asked for; ``warn`` hears of those skipped.

    ResourceError if there is not enough memory to read one: a file that may be whole is not passed over.
    """
    for path in checkpoints(directory):
        try:
            state = load(path)
        except ValueError as error:
            warn(f"{error}; skipped")
            continue
        yield path, state


def _name(step: int) -> str:
    return f"step_{step:08d}.pt"


def _check_archive(path: Path) -> None:
    """Raise if ``path`` is no plain file, no zip archive as torch.save writes it, or fails its checksums."""
    if not path.is_file():  # of these, a pipe would wait for ever
        raise ValueError("it is no file" if path.exists() else "it does not exist, or is a link to nothing")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("it declares more bytes than it holds")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} fails its checksum")


def _why(error: Exception) -> str:
    """The reason in one line. Torch's own advice on pickles is to run the code in them; ours is not."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something other than tensors, numbers, strings, lists and dicts, or is no checkpoint"
    if isinstance(error, zipfile.BadZipFile):
        return f"it is cut short or no checkpoint ({error})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable((str(error) or type(error).__name__).splitlines()[0])
