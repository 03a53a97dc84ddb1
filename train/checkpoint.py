"""Checkpoints that survive a crash, and exports that other programs read.

A checkpoint is written to a temporary file, synced and renamed, so a name that exists is a whole file unless the disk
lost part of it later; such a file fails its checksums, is named in a warning and passed over for the one before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_NAME = re.compile(r"step_(\d+)\.pt")


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in ``directory``, newest first."""
    found = [path for path in directory.glob("step_*.pt") if _NAME.fullmatch(path.name)]
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
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} fails its checksum")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a parser raises on damaged bytes, an older checkpoint may be whole
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"checkpoint: {path} is damaged: {reason}") from error


def newest_valid(directory: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state of the newest undamaged checkpoint, or None where there is none; ``warn`` hears of each one skipped."""
    for path in checkpoints(directory):
        try:
            return load(path)
        except ValueError as error:
            warn(f"{error}; skipped")
    return None


def export(directory: Path, name: str, game: Any, shape: tuple[int, ...]) -> None:
    """Write model.safetensors and config.json to ``directory``, which models.games.export.load_game reads.

    name: the game's name in the registry; shape: of one sample.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in game.state_dict().items()}
    write_atomically(directory / "model.safetensors", lambda temporary: save_file(weights, temporary))
    config = dataclasses.asdict(game.config)
    description = {"game": name, "config": config, "shape": list(shape), "parts": game.parts()}
    write_json(directory / "config.json", description)  # last: where it is, the export is whole


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, written atomically."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """``write`` a temporary file beside ``path``, sync it, rename it, and sync the folder that holds the name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # another process may write the same file
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
