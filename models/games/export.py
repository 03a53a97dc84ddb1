"""A trained game from its export: a directory with ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from models.config import from_dict
from models.games.game import Game

MOST_PIXELS = 2**20  # of one side of a sample


def load_game(directory: str | Path, games: Mapping[str, type[Game]]) -> tuple[Game, tuple[int, ...]]:
    """The exported game and the shape of its samples; on the CPU, in eval mode.

    config.json holds "game" (a name in ``games``), "config" (its Config as a dict), "shape" (of one sample), "parts"
    (what the game's ``parts`` gave; none if absent) and "sha256" (of model.safetensors; not checked if absent).
    ValueError if a file is missing, damaged or not one of ``games``. No code in either file is run, and no more memory
    is taken than the file of weights has.
    """
    directory = Path(directory)
    weights, description = directory / "model.safetensors", directory / "config.json"
    for path in (weights, description):
        if not path.is_file():
            raise ValueError(f"load_game: {directory} must be the directory of an export, but {path} does not exist")
    try:
        return _load(weights, json.loads(description.read_text(encoding="utf-8")), games)
    except Exception as error:  # damaged bytes make a parser raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"load_game: {directory} cannot be read: {reason}") from error


def _load(weights: Path, found: Any, games: Mapping[str, type[Game]]) -> tuple[Game, tuple[int, ...]]:
    if not isinstance(found, dict):
        raise ValueError("config.json must hold named fields")
    absent = [key for key in ("game", "config", "shape") if key not in found]
    if absent:
        raise ValueError(f"config.json lacks {', '.join(absent)}")
    name, parts = found["game"], found.get("parts", {})
    if not isinstance(name, str) or name not in games:
        raise ValueError(f"it must hold one of {', '.join(games)}, got {name!r}")
    if "sha256" in found and hashlib.sha256(weights.read_bytes()).hexdigest() != found["sha256"]:
        raise ValueError("model.safetensors is not the file that was written: its checksum differs")
    kind: Any = games[name]
    config, shape = from_dict(kind.Config, found["config"]), _shape(found["shape"])
    with torch.device("meta"):  # sizes without memory
        expected = kind.rebuild(config, shape, parts).state_dict()
    _check_shapes(weights, expected)
    with torch.device("cpu"):  # whatever the caller's default is
        game: Game = kind.rebuild(config, shape, parts)
    game.load_state_dict(load_file(weights))
    for key, value in game.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{key} is not finite")
    return game.eval(), shape


def _shape(values: Any) -> tuple[int, ...]:
    sizes = isinstance(values, list) and all(type(size) is int and 1 <= size <= MOST_PIXELS for size in values)
    if not sizes or len(values) not in (1, 3):
        raise ValueError(f"shape must be [D] or [C, H, W], got {str(values)[:80]}")
    return tuple(values)


def _check_shapes(weights: Path, expected: Mapping[str, torch.Tensor]) -> None:
    """ValueError if the file's tensors are not the game's: read from its header alone."""
    with safe_open(weights, framework="pt") as file:
        stored = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    for key in [*expected, *(key for key in stored if key not in expected)]:
        ours = list(expected[key].shape) if key in expected else "absent"
        theirs = stored.get(key, "absent")
        if ours != theirs:
            raise ValueError(f"{key} is {theirs} in model.safetensors and {ours} by config.json")
