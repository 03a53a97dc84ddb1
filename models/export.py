"""A trained game as two files, written and read: a directory with ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor

from models.config import from_dict
from models.networks.network import check_shape

if TYPE_CHECKING:
    from models.games.game import Game

LARGEST_DESCRIPTION = 2**20
Writer = Callable[[Path, Callable[[Path], Any]], None]


def write_and_rename(path: Path, write: Callable[[Path], Any]) -> None:
    """``write`` a temporary file beside ``path``, then give it that name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_game(
    directory: Path,
    name: str,
    game: Game,
    shape: tuple[int, ...],
    write: Writer = write_and_rename,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write ``game`` to ``directory``, which is made if it is missing, for ``load_game``.

    name: the game's name in the registry. shape: of one sample. write: called with a path and a function that writes a
    file; it puts the file there. training: what is to be known of the weights, as JSON, such as {"step": 1000};
    ``read_description`` gives it back. config.json is written last: where it is, the export is whole. ValueError, and
    no file, if a weight is NaN or infinite.
    """
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in game.state_dict().items()}
    broken = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"export: {', '.join(broken)} of {name} are not finite; nothing was written")
    directory.mkdir(parents=True, exist_ok=True)
    model, description = directory / "model.safetensors", directory / "config.json"
    digest = ""

    def write_weights(path: Path) -> None:
        nonlocal digest
        save_file(weights, path)
        digest = _sha256(path)
        description.unlink(missing_ok=True)  # the old one does not describe what is about to take its place

    write(model, write_weights)
    config = dataclasses.asdict(game.config)
    described = {"game": name, "config": config, "shape": list(shape), "parts": game.parts(), "sha256": digest}
    described["training"] = dict(training or {})
    text = json.dumps(described, indent=2) + "\n"
    write(description, lambda path: path.write_text(text, encoding="utf-8"))


def load_game(directory: str | Path, games: Mapping[str, type[Game]]) -> tuple[Game, tuple[int, ...]]:
    """The exported game and the shape of its samples; on the CPU, in eval mode.

    config.json holds "game" (a name in ``games``), "config" (its Config as a dict), "shape" (of one sample),
    "parts" (what the game's ``parts`` gave; none if absent) and "sha256" (of the bytes of model.safetensors, in hex;
    not compared if absent). Memory is that of the weights file a few times, whatever sizes config.json names.
    ValueError, in one line that names the directory, if a file is missing or damaged, does not fit the other, holds NaN
    or infinite weights, or is not one of ``games``.
    """
    directory = Path(directory)
    try:
        for name in ("model.safetensors", "config.json"):
            if not (directory / name).is_file():
                raise ValueError(f"load_game: {directory} must be the directory of an export, but has no file {name}")
        description = read_description(directory)
        if description["game"] not in games:
            known = ", ".join(games)
            raise ValueError(f"load_game: {directory} must hold one of {known}, got {_line(description['game'])!r}")
        return _rebuilt(directory, description, games), tuple(description["shape"])
    except Exception as error:  # a file may be wrong in any way, and each library has its own words for it
        if isinstance(error, ValueError) and str(error).startswith(f"load_game: {directory} must "):
            raise
        raise ValueError(f"load_game: {directory} is damaged: {_line(error)}") from error


def read_description(directory: Path) -> dict[str, Any]:
    """What config.json of an export says, with every part that ``load_game`` needs, of the right type.

    Parts that a file lacks: "parts" and "training" are empty, "sha256" is None. ValueError for a damaged file.
    """
    path = directory / "config.json"
    if path.stat().st_size > LARGEST_DESCRIPTION:
        raise ValueError(f"config.json must have at most {LARGEST_DESCRIPTION} bytes, got {path.stat().st_size}")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("config.json must hold a mapping")
    for name, kind in (("game", str), ("config", dict), ("shape", list)):
        if not isinstance(found.get(name), kind):
            raise ValueError(f"config.json must have {name!r}, a {kind.__name__}, got {found.get(name)!r}")
    found = {"parts": {}, "training": {}, "sha256": None, **found}
    for name in ("parts", "training"):
        if not isinstance(found[name], dict):
            raise ValueError(f"config.json must have {name!r}, a dict, got {found[name]!r}")
    check_shape(tuple(found["shape"]))
    return found


def _rebuilt(directory: Path, description: dict[str, Any], games: Mapping[str, type[Game]]) -> Game:
    kind = games[description["game"]]
    config = from_dict(kind.Config, description["config"])
    content = (directory / "model.safetensors").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if description["sha256"] not in (None, digest):
        raise ValueError(f"model.safetensors has the SHA-256 {digest}, but config.json says {description['sha256']!r}")
    with torch.device("cpu"):  # also where an export is read while another is rebuilt
        weights = load(content)
    with torch.device("meta"):  # sizes alone: nothing is allocated before the file has proved to hold them
        game = kind.rebuild(config, tuple(description["shape"]), description["parts"])
    _check_weights(game.state_dict(), weights)
    game.load_state_dict(weights, assign=True)
    return game.eval()


def _check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """ValueError unless ``found`` has the names, shapes and dtypes of ``expected``, and finite values."""
    for names, word in ((expected.keys() - found.keys(), "lacks"), (found.keys() - expected.keys(), "should not have")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"model.safetensors {word} {min(names)}{more}")
    for name, tensor in found.items():
        wanted = expected[name]
        if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"{name} must be {wanted.dtype} {list(wanted.shape)}, got {tensor.dtype} {list(tensor.shape)}"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"{name} must be finite, got NaN or infinite weights")


def _line(found: Any) -> str:
    """An error's message, or a value, as one line of at most 200 printable characters."""
    text = str(found) or type(found).__name__
    if isinstance(found, Exception) and not isinstance(found, ValueError):
        text = f"{type(found).__name__}: {found}"
    text = "".join(c if c.isprintable() else " " for c in " ".join(text[:1000].split()))
    return text if len(text) <= 200 else text[:197] + "..."


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
