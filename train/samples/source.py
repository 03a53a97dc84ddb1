"""The generator to sample from: an export, or what a run directory has. No code in either is run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from models.config import from_dict
from models.export import load_game, read_description
from models.games import GAMES, Game
from train.data.config import DISTRIBUTIONS
from train.errors import printable
from train.run.checkpoint import valid_states
from train.run.config import DEVICE, TrainConfig, run_config
from train.run.directory import BEST, CHECKPOINTS, EXPORT, RUN_FILE
from train.run.snapshot import weights_differ

Weights = Literal["last", "best", "raw"]
LARGEST_DESCRIPTION = 2**20


@dataclass(frozen=True)
class Trained:
    """A game to sample from, on the CPU in eval mode.

    shape: of one sample. name: the game's in the registry. step: iterations of training, None if it is not known.
    ema: the decay of the average that its weights are, 0 for weights as they are, None if it is not known.
    """

    game: Game
    shape: tuple[int, ...]
    name: str
    path: Path
    step: int | None
    ema: float | None

    def __str__(self) -> str:
        step = "" if self.step is None else f" at iteration {self.step:,}"
        kind = "" if self.ema is None else ", averaged weights" if self.ema > 0 else ", weights as they are"
        return f"{self.name}{step} from {printable(str(self.path))}{kind}"


def load_trained(path: str | Path, weights: Weights = "last") -> Trained:
    """The game in a run directory or an export; ValueError in one line if it is neither, or damaged.

    weights, of a run: "last" is its export or, before it has one, its newest checkpoint, with averaged weights if the
    run averages them; "best" is the snapshot with the best Frechet distance; "raw" is the newest checkpoint without
    the average. An export has its own weights alone.
    """
    path = Path(path)
    description = _described(path)
    if "shape" in description:
        if weights != "last":
            raise ValueError(
                f"samples: {printable(str(path))} is an export and has its own weights alone; {weights} needs a run"
            )
        return _from_export(path, None)
    name, config = _configured(path, description)
    if weights == "best":
        if not (path / BEST / "config.json").is_file():
            raise ValueError(
                f"samples: {printable(str(path))} has no best snapshot: it has one once the run is scored "
                "(--scores.extractor)"
            )
        return _from_export(path / BEST, config)
    if weights == "last" and (path / EXPORT / "config.json").is_file():
        return _from_export(path / EXPORT, config)
    return _from_checkpoint(path, name, config, averaged=weights == "last")


def check_counts(config: Any, who: str, *names: str) -> None:
    """ValueError unless those fields of a command's ``config`` are at least 1 and its seed and device can be."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{who}: {name} must be at least 1, got {getattr(config, name)}")
    if not 0 <= config.seed < 2**64:
        raise ValueError(f"{who}: seed must lie in 0..2^64 - 1, got {config.seed}")
    if DEVICE.fullmatch(config.device) is None:
        raise ValueError(f"{who}: device must be cpu, cuda or cuda:N, got {printable(config.device)}")


def _described(path: Path) -> dict[str, Any]:
    """config.json of a run or an export."""
    shown, file = printable(str(path)), path / RUN_FILE
    if not file.is_file():
        raise ValueError(f"samples: {shown} must be a run directory or an export, but has no {RUN_FILE}")
    if file.stat().st_size > LARGEST_DESCRIPTION:
        raise ValueError(f"samples: {shown} must be a run directory or an export, but its {RUN_FILE} is too large")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"samples: {printable(str(file))} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"samples: {printable(str(file))} is damaged: it holds no mapping")
    return found


def _configured(path: Path, description: Mapping[str, Any]) -> tuple[str, TrainConfig]:
    """The game's name and the configuration of a run."""
    name = description.get("game")
    if name not in GAMES:
        raise ValueError(f"samples: {printable(str(path / RUN_FILE))} must name a game, one of {', '.join(GAMES)}")
    try:
        return str(name), from_dict(run_config(str(name)), description.get("config"))
    except ValueError as error:
        raise ValueError(f"samples: {printable(str(path / RUN_FILE))}: {error}") from error


def _from_export(path: Path, config: TrainConfig | None) -> Trained:
    game, shape = load_game(path, GAMES)
    description = read_description(path)
    step, ema = (description["training"].get(name) for name in ("step", "ema"))
    if ema is None and config is not None:
        ema = config.ema
    known = type(step) is int, isinstance(ema, int | float)
    return Trained(game, shape, description["game"], path, step if known[0] else None, ema if known[1] else None)


def _from_checkpoint(path: Path, name: str, config: TrainConfig, *, averaged: bool) -> Trained:
    """The newest valid checkpoint's game; sizes in config.json are trusted no further than the file proves them."""
    shown = printable(str(path))
    refused: list[str] = []
    for file, state in valid_states(path / CHECKPOINTS, refused.append):
        shape = _shape(state["data"])
        if shape is None:
            refused.append(f"{file.name} does not say what its data are")
            continue
        kind = GAMES[name]
        played = [phase for phase in kind.phases if (path / phase / EXPORT / "config.json").is_file()]
        parts = {phase: dataclasses.asdict(getattr(config, phase).game) for phase in played}
        with torch.device("meta"):
            game = kind.rebuild(config.game, shape, parts)
        differ = weights_differ(game.state_dict(), state["game"])
        if differ is not None:
            raise ValueError(f"samples: {printable(str(file))} does not fit {RUN_FILE}: {differ}")
        game.load_state_dict(state["game"], assign=True)
        ema = config.ema if averaged and state["ema"] is not None else 0.0
        if ema > 0:
            differ = weights_differ(game.sampling_players.state_dict(), state["ema"]["average"])
            if differ is not None:
                raise ValueError(f"samples: {printable(str(file))}: its average does not fit {RUN_FILE}: {differ}")
            game.sampling_players.load_state_dict(state["ema"]["average"], assign=True)
        return Trained(game.eval(), shape, name, file, state["step"], ema)
    why = f": {refused[0]}" if refused else "; the first is written after checkpoint_every iterations"
    raise ValueError(f"samples: {shown} has no valid checkpoint{why}")


def _shape(data: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Of one sample, from the position in the data that a checkpoint holds."""
    images = data.get("images")
    if isinstance(images, list | tuple) and len(images) == 4 and all(type(size) is int and size > 0 for size in images):
        return tuple(images[1:])
    name = data.get("name")
    return (DISTRIBUTIONS[name]().dim,) if isinstance(name, str) and name in DISTRIBUTIONS else None
