"""The cells of the toy table: which games, with which settings, on which targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.config import from_dict
from train.recipes import merge, profile
from train.run.config import TrainConfig


@dataclass(frozen=True)
class Row:
    """A line of the table: a game, what sets it apart, and the reverse KL that POT-GAN's Table 1 states for it."""

    label: str
    game: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    stated: Mapping[str, float] = field(default_factory=dict)


def _potgan(what: str, **changes: str) -> Row:
    return Row(f"POT-GAN, {what}", "potgan", {"game": changes})


ROWS: dict[str, Row] = {
    "gan": Row("GAN", "gan", stated={"ring8": 0.2417, "ball3d": 3.0772}),
    "veegan": Row("VEEGAN", "veegan", stated={"ring8": 0.1540, "ball3d": 2.5153}),
    "wgan-gp": Row("WGAN-GP", "wgan-gp", stated={"ring8": 0.0046, "ball3d": 0.9438}),
    "potgan": Row("POT-GAN", "potgan", stated={"ring8": 0.0020, "ball3d": 0.7428}),
    "potgan-identity": _potgan("F = identity", transform="identity"),
    "potgan-affine": _potgan("F = affine", transform="affine"),
    "potgan-mlp": _potgan("F = MLP", transform="mlp"),
    "potgan-literal": _potgan("literal pairs", pairing="literal"),
    "potgan-assignment": _potgan("assignment", pairing="assignment"),
    "potgan-sinkhorn": _potgan("Sinkhorn", pairing="sinkhorn"),
    "wae-gan": Row("WAE-GAN", "wae-gan"),
    "3p-wgan": Row("3P-WGAN", "3p-wgan"),
    "3p-wgan-identity": Row("3P-WGAN, h = identity", "3p-wgan", {"game": {"mover": "identity"}}),
}
MAIN_ROWS = ("gan", "veegan", "wgan-gp", "potgan")  # those of the paper

# The profile of each setting on a target.
SETTINGS: dict[str, tuple[str, str]] = {
    "paper": ("POT-GAN's stated settings", "{}-paper"),
    "best": ("our tuned settings", "{}"),
}


def cell_config(target: str, setting: str, row: str) -> TrainConfig:
    """The run of one cell, but for its seed: the game's profile, and what sets the row apart."""
    config = profile(ROWS[row].game, SETTINGS[setting][1].format(target))
    return from_dict(type(config), merge(dataclasses.asdict(config), ROWS[row].changes))
