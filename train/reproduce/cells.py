"""The cells of the toy table: which games, with which settings, on which targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.config import from_dict
from train.recipes.presets import TOY, TOY_GAMES, TOY_NETWORKS, TOY_THREE_PLAYERS, merge
from train.run.config import TrainConfig, run_config


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

_FOREST = {"trees": 16, "depth": 3}

# Changes to a game's defaults: for every game ("all"), then by game. POT-GAN states rate, betas, batch and weights for
# images, and nothing for its toys; the rest is ours. docs/toy.md says how the best were found.
_PAPER: dict[str, Any] = {
    "all": {"iterations": 20_000, "batch_size": 64, "lr": 2e-4, "betas": (0.5, 0.9), "lr_decay": "constant"},
    "potgan": {"game": {"forest": _FOREST}},
    "wae-gan": {"betas": (0.5, 0.999)},
    "3p-wgan": {"lr": 1e-4, "betas": (0.0, 0.9), "game": TOY_THREE_PLAYERS},
}
_BEST: dict[str, Any] = {
    "all": TOY,
    "gan": {"lr": 1e-3},
    "wgan-gp": {"lr": 1e-3, "game": {"critic_steps": 5, "gradient_penalty_weight": 0.1}},
    "potgan": TOY_GAMES["potgan"],
    "3p-wgan": {**TOY_GAMES["3p-wgan"], "betas": (0.0, 0.9)},
}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("POT-GAN's stated settings", _PAPER),
    "best": ("our tuned settings", _BEST),
}


def cell_config(target: str, setting: str, row: str) -> TrainConfig:
    """The run of one cell, but for its seed."""
    game, chosen = ROWS[row].game, SETTINGS[setting][1]
    kind = run_config(game)
    values = merge(dataclasses.asdict(kind()), {"data": {"name": target}, "game": {"networks": TOY_NETWORKS}})
    for changes in (chosen["all"], chosen.get(game, {}), ROWS[row].changes):
        values = merge(values, changes)
    return from_dict(kind, values)
