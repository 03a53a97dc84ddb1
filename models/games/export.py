"""A trained game from its export: a directory with ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from models.config import from_dict
from models.games.game import Game

__all__ = ["from_dict", "load_game"]


def load_game(directory: str | Path, games: Mapping[str, type[Game]]) -> tuple[Game, tuple[int, ...]]:
    """The exported game and the shape of its samples; on the CPU, in eval mode.

    config.json holds "game" (a name in ``games``), "config" (its Config as a dict), "shape" (of one sample)
    and "parts" (what the game's ``parts`` gave; none if absent).
    ValueError if a file is missing, damaged or not one of ``games``.
    """
    directory = Path(directory)
    weights, description = directory / "model.safetensors", directory / "config.json"
    for path in (weights, description):
        if not path.is_file():
            raise ValueError(f"load_game: {directory} must be the directory of an export, but {path} does not exist")
    try:
        found = json.loads(description.read_text())
        name, shape = found["game"], tuple(found["shape"])
        if name not in games:
            raise ValueError(f"load_game: {directory} must hold one of {', '.join(games)}, got {name!r}")
        kind: Any = games[name]
        game: Game = kind.rebuild(from_dict(kind.Config, found["config"]), shape, found.get("parts", {}))
        game.load_state_dict(load_file(weights))
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"load_game: {directory} is damaged: {error}") from error
    return game.eval(), shape
