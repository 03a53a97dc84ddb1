"""Which settings a run may be resumed with: what contradicts its past is refused by name, what changes is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import fixed_fields
from models.games import Game
from train.report.page import flatten
from train.run.config import TrainConfig
from train.run.loop import Loop
from train.run.schedule import factor

# They choose the samples that the run has seen; the data themselves are compared by their fingerprint.
DATA_FIXED = ("data.name", "data.size", "data.subset", "data.limit", "data.background", "data.crop")


@dataclass(frozen=True)
class Resume:
    """A run to continue: its folder, the settings it has, and what the command line allows beside them."""

    directory: Path
    stored: TrainConfig
    other_data: bool = False
    """Go on with other data than the run was trained on."""


def changes(old: Any, new: Any) -> dict[str, str]:
    """The fields in which two configurations of one class differ: dotted name -> "old -> new"."""
    before, after = (dict(flatten(dataclasses.asdict(config))) for config in (old, new))
    return {
        name: f"{before.get(name)} -> {after.get(name)}"
        for name in [*before, *(name for name in after if name not in before)]
        if before.get(name) != after.get(name)
    }


def check_changes(resume: Resume, config: TrainConfig, also_fixed: Iterable[str] = ()) -> None:
    """Say in what ``config`` differs from the run's own settings; ValueError for what cannot change.

    also_fixed: dotted names that cannot change beside the seed, what shaped the game and what chose the data.
    """
    stored = resume.stored
    differ = changes(stored, config)
    fixed = {"seed", *(f"game.{name}" for name in fixed_fields(config.game)), *also_fixed}
    if not resume.other_data:
        fixed |= set(DATA_FIXED)
    if (stored.ema > 0) != (config.ema > 0):
        fixed.add("ema")
    if stored.device.partition(":")[0] != config.device.partition(":")[0]:
        fixed.add("device")  # its random state does not carry over
    refuse({name: change for name, change in differ.items() if within(name, fixed)})
    for name, change in differ.items():
        if name != "out":
            print(f"resume: {name} {change}", flush=True)


def say_jumps(loop: Loop, iterations_before: int) -> None:
    """Say what jumps when a run that was planned for ``iterations_before`` gets another number of iterations."""
    iterations = loop.config.iterations
    if loop.step == 0 or iterations_before == iterations:
        return
    before, now = loop.step / iterations_before, loop.step / iterations
    if loop.config.lr_decay != "constant":
        decay, warmup = loop.config.lr_decay, loop.config.lr_warmup
        falls = {"linear": "falls linearly", "cosine": "falls as a cosine"}[decay]
        old, new = (factor(decay, warmup, min(loop.step, whole), whole) for whole in (iterations_before, iterations))
        print(
            f"resume: the learning rate {falls} over all iterations, so at step {loop.step} it jumps from {old:.3g} to "
            f"{new:.3g} of lr",
            flush=True,
        )
    if type(loop.game).set_progress is not Game.set_progress:
        print(
            f"resume: the game anneals over all iterations, so at step {loop.step} it jumps from {before:.3g} to "
            f"{now:.3g} of its way",
            flush=True,
        )


def refuse(differ: dict[str, str]) -> None:
    """ValueError that names each of these changes, if there are any."""
    if differ:
        named = ", ".join(f"{name} {change}" for name, change in differ.items())
        raise ValueError(f"resume: a run cannot change {named}; for other settings start a new run")


def within(name: str, fields: Iterable[str]) -> bool:
    """Whether ``name`` is one of the dotted ``fields`` or lies below one."""
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def check_code(directory: Path, game: Any, argv: Sequence[str]) -> None:
    """ValueError if a setting of a stored run names code to import that the command line does not name itself.

    A run's folder may come from a stranger: resuming it runs nothing that its owner has not asked for.
    """
    for name in getattr(game, "code", ()):
        value = getattr(game, name)
        given = any(word.split("=")[0].replace("_", "-") == f"--game.{name}".replace("_", "-") for word in argv)
        if ":" in str(value) and not given:
            raise ValueError(
                f"resume: {directory} asks to import {value!r} (game.{name}); code is run only if the command line "
                f"names it: add --game.{name} {value}"
            )
