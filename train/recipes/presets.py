"""Named settings: what differs from the defaults, as nested field names and values.

A preset is a data set with settings that suit it: of the run, of every game's networks ("networks"), and of single
games ("games"). What a game's paper states of the run, its ``defaults``, stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import from_dict
from models.games import GAMES
from train.run.config import R

# docs/forest.md and docs/toy.md say how the toy values were found.
TOY: dict[str, Any] = {
    "iterations": 6000,
    "batch_size": 128,
    "lr": 4e-3,
    "betas": (0.5, 0.9),
    "lr_decay": "linear",
    "ema": 0.998,
}
TOY_NETWORKS = {"name": "mlp", "width": 64, "depth": 3, "noise_dim": 2, "init": "he"}
_TOY_WGAN_GP = {"critic_steps": 1, "gradient_penalty_weight": 0.02}
# First weights as 3P-WGAN states them for images. Batch norm in the critic too, also stated, makes the ring slow.
TOY_THREE_PLAYERS = {"networks": {"init": "normal"}, "batch_norm": "generator"}
_TOY_FOREST = {"trees": 16, "depth": 3, "thresholds": "latents", "leaves": "identity", "lr": 4e-3, "inner_steps": 1}
TOY_GAMES: dict[str, Any] = {
    "wgan-gp": {"game": _TOY_WGAN_GP},
    "potgan": {"game": {**_TOY_WGAN_GP, "transport_weight": 4.0, "forest": _TOY_FOREST}},
    "3p-wgan": {"lr": 3e-4, "game": {**TOY_THREE_PLAYERS, "noise": "normal"}},
}
_SMALL = {"name": "dcgan", "width": 32, "noise_dim": 128}
_SMALL_GAMES = {"potgan": {"vae": {"game": {"networks": _SMALL}}}}
_CPU = {"name": "dcgan", "width": 16, "noise_dim": 128}
_CPU_VAE = {"game": {"networks": _CPU}, "iterations": 2000}
_CPU_GAMES: dict[str, Any] = {
    "vae": {"iterations": 2000, "betas": (0.9, 0.999)},
    "wgan-gp": {"game": {"critic_steps": 2}},
    "potgan": {"game": {"critic_steps": 2}, "vae": {**_CPU_VAE, "lr": 1e-3}},
}

PRESETS: dict[str, dict[str, Any]] = {
    "ring8": {"data": {"name": "ring8"}, **TOY, "networks": TOY_NETWORKS, "games": TOY_GAMES},
    "ball3d": {"data": {"name": "ball3d"}, **TOY, "networks": TOY_NETWORKS, "games": TOY_GAMES},
    "digits": {
        "data": {"name": "digits"},
        "iterations": 20_000,
        "ema": 0.999,
        "networks": _SMALL,
        "games": _SMALL_GAMES,
    },
    "fashion-mnist": {
        "data": {"name": "fashion-mnist"},
        "iterations": 50_000,
        "ema": 0.999,
        "networks": _SMALL,
        "games": _SMALL_GAMES,
    },
    "cifar10": {"data": {"name": "cifar10", "size": 32}},
    "folder32-cpu": {
        "data": {"name": "folder", "size": 32},
        "iterations": 1500,
        "lr": 1e-3,
        "ema": 0.99,
        "log_every": 25,
        "sample_every": 250,
        "checkpoint_every": 250,
        "networks": _CPU,
        "games": _CPU_GAMES,
    },
    "folder32": {"data": {"name": "folder", "size": 32}},
    "folder64": {"data": {"name": "folder", "size": 64}},
}


def preset(name: str, game: str, kind: type[R]) -> R:
    """The configuration of ``kind`` for ``game`` under the preset ``name``."""
    if name not in PRESETS:
        raise ValueError(f"train: there is no preset {name!r}; presets: {', '.join(PRESETS)}")
    chosen = dict(PRESETS[name])
    own = chosen.pop("games", {}).get(game, {})
    chosen = {name: value for name, value in chosen.items() if name not in GAMES[game].defaults}
    networks = {"game": {"networks": chosen.pop("networks", {})}}
    values = merge(merge(merge(dataclasses.asdict(kind()), chosen), networks), own)
    return from_dict(kind, values)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` written over it, mapping by mapping."""
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if both else value
    return merged
