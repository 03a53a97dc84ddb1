"""Settings by profile: what all games share (common.py), and one file for each game that has its own.

The later wins over the earlier: the defaults of the classes, what a profile shares, what the game's paper states of a
run (``Game.defaults``), the game's own recipe, a resumed run's settings, the command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import from_dict
from models.games import GAMES
from train.recipes import gan, potgan, sngan, three_player_wgan, vae, veegan, wae_gan, wgan, wgan_gp
from train.recipes.common import SHARED
from train.run.config import TrainConfig, run_config

RECIPES: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "vae": vae.PROFILES,
    "gan": gan.PROFILES,
    "veegan": veegan.PROFILES,
    "wgan": wgan.PROFILES,
    "wgan-gp": wgan_gp.PROFILES,
    "sngan": sngan.PROFILES,
    "wae-gan": wae_gan.PROFILES,
    "potgan": potgan.PROFILES,
    "3p-wgan": three_player_wgan.PROFILES,
}
# Profiles that only some games have, by the profile that they share the rest with.
_LIKE = {"demo": "ring8", "figure1": "ring8-paper"}


def profiles(game: str) -> tuple[str, ...]:
    """The names of the profiles that ``game`` has."""
    return (*SHARED, *(name for name in _LIKE if name in RECIPES.get(game, {})))


PROFILES = (*SHARED, *_LIKE)


def profile(game: str, name: str) -> TrainConfig:
    """The configuration of ``game`` in the profile ``name``; ValueError if it has none of that name."""
    if name not in profiles(game):
        raise ValueError(f"train: {game} has no preset {name!r}; presets: {', '.join(profiles(game))}")
    kind = run_config(game)
    shared = dict(SHARED[_LIKE.get(name, name)])
    networks = {"game": {"networks": shared.pop("networks", {})}}
    shared = {field: value for field, value in shared.items() if field not in GAMES[game].defaults}
    values = dataclasses.asdict(kind())
    for changes in (shared, networks, RECIPES.get(game, {}).get(name, {})):
        values = merge(values, changes)
    return from_dict(kind, values)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` written over it, mapping by mapping."""
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if both else value
    return merged
