"""A trained game on disk: ``NAME.safetensors`` holds the weights, ``NAME.json`` beside it how to build the game."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from models.games.game import Game

C = TypeVar("C")


def save_game(path: str | Path, name: str, game: Any, shape: tuple[int, ...]) -> None:
    """Write ``game`` (registered as ``name``, built for samples of ``shape``) to ``path``, a .safetensors file."""
    path = _weights_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    description = {"game": name, "config": dataclasses.asdict(game.config), "shape": list(shape)}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in game.state_dict().items()}
    # Each file appears whole or not at all; the description comes last.
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    os.replace(partial, path)
    partial.write_text(json.dumps(description, indent=2) + "\n")
    os.replace(partial, path.with_suffix(".json"))


def load_game(path: str | Path, games: dict[str, type[Game]]) -> tuple[Game, tuple[int, ...]]:
    """The game that ``save_game`` wrote to ``path`` and the shape of its samples, on the CPU, in eval mode."""
    path = _weights_path(path)
    for part in (path, path.with_suffix(".json")):
        if not part.is_file():
            raise ValueError(f"load_game: {part} must be an exported game's file, but there is none")
    try:
        description = json.loads(path.with_suffix(".json").read_text())
        game_class: Any = games[description["game"]]
        shape = tuple(description["shape"])
        config = from_dict(game_class.Config, description["config"])
        game = game_class.build(config, shape)
        nn.Module.load_state_dict(game, load_file(path))
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError, SafetensorError) as error:
        names = ", ".join(games)
        raise ValueError(f"load_game: {path} must hold one of {names} with its .json beside it, got {error}") from error
    return game.eval(), shape


def from_dict(kind: type[C], values: dict[str, Any]) -> C:
    """A (nested) config dataclass from its ``dataclasses.asdict``. ValueError for a field that it lacks."""
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{kind.__name__}: has no field {', '.join(unknown)}")
    return kind(
        **{
            name: from_dict(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
            for name, value in values.items()
        }
    )


def _weights_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"export: path must end in .safetensors, got {str(path)!r}")
    return path
