"""Checkpoints that survive a crash, and exports that other programs read.

A checkpoint is written to a temporary file, synced and renamed, so a name that exists is a whole file unless the disk
lost part of it later; such a file fails its checksums, is named in a warning and passed over for the one before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from train.errors import TrainingError, resource_message

_NAME = re.compile(r"step_(\d+)\.pt")
_PART = re.compile(r"\..+\.\d+\.part")


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in ``directory``, newest first."""
    found = [path for path in directory.glob("step_*.pt") if _NAME.fullmatch(path.name) and not path.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"checkpoint: {path} is not named step_<number>.pt")
    return int(match[1])


def save(directory: Path, state: Mapping[str, Any], step: int, keep: int) -> Path:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) atomically.

    The newest ``keep`` files up to ``step`` stay. Files of later steps are damaged ones that a resume
    passed over; they go too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step_{step:08d}.pt"
    write_atomically(path, lambda temporary: torch.save(dict(state), temporary))
    kept = [known for known in checkpoints(directory) if step_of(known) <= step][:keep]
    for known in checkpoints(directory):
        if known not in kept:
            known.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """The state in ``path``, on the CPU; ValueError naming the file if it is damaged. No code in it is ever run."""
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with zipfile.ZipFile(path) as archive:
            # As torch.save writes them; then no part can be larger than the file, whatever it declares.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise zipfile.BadZipFile("its parts are compressed")
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} fails its checksum")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:  # torch's own text advises to run the code
        raise ValueError(f"checkpoint: {path} is damaged: it holds more than tensors and plain values") from error
    except Exception as error:  # whatever a parser raises on damaged bytes, an older checkpoint may be whole
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"checkpoint: {path} is damaged: {reason}") from error


def valid_states(directory: Path, warn: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each undamaged checkpoint with its state, newest first; ``warn`` hears of each one skipped."""
    for path in checkpoints(directory):
        try:
            state = load(path)
        except ValueError as error:
            warn(f"{error}; skipped")
            continue
        yield path, state


def sweep(directory: Path) -> None:
    """Remove what writers that were killed left below ``directory``; nobody else may be writing there."""
    for path in directory.rglob(".*.part"):
        if _PART.fullmatch(path.name):
            path.unlink(missing_ok=True)


def export(directory: Path, name: str, game: Any, shape: tuple[int, ...]) -> None:
    """Write model.safetensors and config.json to ``directory``, which models.games.export.load_game reads.

    name: the game's name in the registry; shape: of one sample. TrainingError if a weight is NaN or infinite.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in game.state_dict().items()}
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise TrainingError(f"export: {key} is not finite")
    write_atomically(directory / "model.safetensors", lambda temporary: save_file(weights, temporary))
    config = dataclasses.asdict(game.config)
    checksum = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    description = {
        "game": name, "config": config, "shape": list(shape), "parts": game.parts(), "sha256": checksum
    }  # fmt: skip
    write_json(directory / "config.json", description)  # last: where it is, the export is whole


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, written atomically."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """``write`` a temporary file beside ``path``, sync it, rename it, and sync the folder that holds the name.

    TrainingError that names ``path`` if disk or memory run out; what stood there stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # another process may write the same file
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    except Exception as error:
        message = resource_message(error)
        if message is None:
            raise
        raise TrainingError(f"train: {path} could not be written: {message}") from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
