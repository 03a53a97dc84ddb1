"""How the tuned settings of the toys were found: one setting changed at a time, three seeds a row.

A study is a list of rows. Each row is a game in its tuned profile with something changed; its seeds train at once. Rows
are written as they come, so that a study that is stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from models.config import from_dict
from train.cli import parse_fields
from train.data.config import DISTRIBUTIONS
from train.recipes import merge, profile
from train.report.page import flatten
from train.reproduce.start import start
from train.reproduce.statistics import summarise
from train.reproduce.table1 import plain, run_metrics
from train.reproduce.table1_report import measured
from train.run.config import TrainConfig
from train.run.files import write_atomically
from train.run.log import duration, progress, read_rows
from train.run.loop import side_by_side
from train.run.outputs import POINTS

SEEDS = (100, 101, 102)  # the tables have 0 to 9


@dataclass(frozen=True)
class Row:
    """A game, what the row changes in its tuned profile, and how the page names that."""

    game: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def _forest(label: str, **changes: Any) -> Row:
    return Row("potgan", label, {"game": {"forest": changes}})


def _potgan(label: str, **changes: Any) -> Row:
    return Row("potgan", label, {"game": changes})


def _wgan_gp(rate: float, steps: int, penalty: float) -> Row:
    label = f"rate {rate:g}, {steps} critic step{'s' if steps > 1 else ''}, penalty weight {penalty:g}"
    return Row("wgan-gp", label, {"lr": rate, "game": {"critic_steps": steps, "gradient_penalty_weight": penalty}})


def _veegan(rate: float, spread: float, noise: int = 2, more: str = "", **changes: Any) -> Row:
    label = f"rate {rate:g}, spread {spread:g}" + (f", noise in {noise} dimensions" if noise != 2 else "") + more
    own = {"lr": rate, "game": {"reconstructor_std": spread, "networks": {"noise_dim": noise}}}
    return Row("veegan", label, merge(own, changes))


def _wae_gan(weight: float, steps: int) -> Row:
    label = f"adversary weight {weight:g}, {steps} discriminator step{'s' if steps > 1 else ''}"
    return Row("wae-gan", label, {"game": {"adversary_weight": weight, "discriminator_steps": steps}})


def _wider(kind: str, batch: int, label: str = "", **changes: Any) -> Row:
    """In batches of so many, with something else changed."""
    return Row(kind, f"batches of {batch:,}" + (f", {label}" if label else ""), {"batch_size": batch, **changes})


_NOISE_8 = {"networks": {"noise_dim": 8}}
# What a port of VEEGAN's public example for mixtures has (its original could not be read): two hidden layers of 128,
# noise in 254 dimensions, and 100,000 iterations.
_VEEGAN_EXAMPLE = {
    "lr": 1e-3,
    "betas": (0.5, 0.999),
    "game": {"reconstructor_std": 1.0, "networks": {"noise_dim": 254, "width": 128, "depth": 2}},
}
FOREST = (
    _potgan("the profile: T = 16, D = 3"),
    _potgan("F = identity", transform="identity"),
    _forest("leaves start as noise", leaves="normal"),
    _forest("all thresholds 0", thresholds="zeros"),
    _forest("routing 4 times as sharp", scale=4.0),
    _forest("leaves' rate 4e-4", lr=4e-4),
    _forest("leaves' rate 4e-2", lr=4e-2),
    _forest("5 inner steps", inner_steps=5),
    _forest("learned thresholds", learn_thresholds=True),
    _forest("D = 1", depth=1),
    _forest("D = 5", depth=5),
    _forest("T = 4", trees=4),
    _forest("T = 64", trees=64),
    _potgan("assignment", pairing="assignment"),
    _potgan("literal pairs", pairing="literal"),
    _potgan("transport weight 1", transport_weight=1.0),
    _potgan("transport weight 16", transport_weight=16.0),
    _potgan("penalty weight 0.1", gradient_penalty_weight=0.1),
    _potgan("penalty weight 1", gradient_penalty_weight=1.0),
)
GAMES = (
    Row("gan", "rate 1e-3", {"lr": 1e-3}),
    Row("gan", "rate 4e-3", {"lr": 4e-3}),
    _veegan(1e-3, 0.1),
    _veegan(2e-3, 0.03),
    _veegan(2e-3, 0.1),
    _veegan(2e-3, 0.3),
    _veegan(2e-3, 1.0),
    _veegan(4e-3, 0.1),
    _veegan(2e-3, 0.1, more=", betas 0.5, 0.999", betas=(0.5, 0.999)),
    _veegan(2e-3, 0.1, more=", networks of width 128", game={"networks": {"width": 128}}),
    _veegan(2e-3, 0.1, more=", batches of 512", batch_size=512),
    _veegan(2e-3, 0.1, noise=8),
    *(_veegan(rate, 1.0, noise=8) for rate in (1e-3, 2e-3, 4e-3, 8e-3)),
    *(_veegan(rate, 1.0, noise) for rate in (2e-3, 4e-3) for noise in (4, 16, 32)),
    *(_veegan(rate, spread, noise=8) for rate, spread in ((2e-3, 0.5), (2e-3, 2.0), (4e-3, 0.5))),
    *(
        Row(kind, "noise in 8 dimensions", {"game": _NOISE_8})
        for kind in ("gan", "wgan-gp", "potgan", "wae-gan", "3p-wgan")
    ),
    _wider("veegan", 500, "as in its authors' example", **_VEEGAN_EXAMPLE),
    _wgan_gp(1e-3, 5, 0.02),
    _wgan_gp(1e-3, 5, 0.1),
    _wgan_gp(1e-3, 5, 1.0),
    _wgan_gp(1e-3, 1, 0.1),
    _wgan_gp(1e-3, 1, 1.0),
    _wgan_gp(4e-3, 1, 0.02),
    _wgan_gp(4e-3, 1, 0.1),
    _wgan_gp(4e-3, 1, 1.0),
    Row(
        "potgan",
        "WGAN-GP's settings: rate 0.001, 5 critic steps, penalty weight 0.1",
        {"lr": 1e-3, "game": {"critic_steps": 5, "gradient_penalty_weight": 0.1}},
    ),
    Row("potgan", "the profile"),
    _wae_gan(10.0, 1),
    _wae_gan(0.3, 1),
    _wae_gan(0.1, 3),
    _wae_gan(0.3, 3),
    _wae_gan(1.0, 3),
    _wae_gan(0.3, 5),
    Row("wae-gan", "betas 0.5, 0.999", {"betas": (0.5, 0.999)}),
    Row("wae-gan", "networks of width 128", {"game": {"networks": {"width": 128}}}),
    _wider("wae-gan", 512),
    Row("3p-wgan", "rate 1e-3, uniform noise", {"lr": 1e-3, "game": {"noise": "uniform"}}),
    Row("3p-wgan", "rate 3e-4, uniform noise", {"lr": 3e-4, "game": {"noise": "uniform"}}),
    Row("3p-wgan", "rate 3e-4, normal noise", {"lr": 3e-4, "game": {"noise": "normal"}}),
    Row("3p-wgan", "rate 3e-4, normal noise, lambda to 10", {"game": {"lambda_end": 10.0}}),
)
FLOOR = (
    Row("potgan", "the profile: batches of 128"),
    Row("potgan", "noise in 8 dimensions", {"game": _NOISE_8}),
    _wider("potgan", 512),
    _wider("potgan", 512, "noise in 8 dimensions", game=_NOISE_8),
    _wider("potgan", 512, "networks of width 128", game={"networks": {"width": 128}}),
    _wider("potgan", 512, "transport weight 16", game={"transport_weight": 16.0}),
    _wider("potgan", 512, "rate 2e-3", lr=2e-3),
    _wider("potgan", 512, "3 critic steps", game={"critic_steps": 3}),
    _wider("potgan", 512, "F = identity", game={"transform": "identity"}),
    _wider("potgan", 2048),
    Row("wgan-gp", "the profile: batches of 128"),
    _wider("wgan-gp", 512),
    _wider("wgan-gp", 512, "noise in 8 dimensions", game=_NOISE_8),
    _wider("wgan-gp", 2048),
)
STUDIES: dict[str, tuple[str, tuple[str, ...], tuple[Row, ...]]] = {
    "forest": ("POT-GAN's forest on the ring of 8 Gaussians", ("ring8",), FOREST),
    "floor": ("How near POT-GAN comes to the floor on the ring of 8 Gaussians", ("ring8",), FLOOR),
    "games": ("Rates and weights of the other games on both toys", ("ring8", "ball3d"), GAMES),
}


@dataclass(frozen=True)
class StudyConfig:
    """One setting changed at a time around the tuned settings of the toys; three seeds train at once."""

    name: Literal["forest", "floor", "games"] = "forest"
    """forest: POT-GAN's settings on the ring; floor: larger batches and more, there; games: rates and weights of the
    other games on ring and ball."""
    iterations: int = 4000
    """Iterations of every row; the profile has 6,000."""
    threads: int | None = None
    """CPU threads (default: all)."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    out: str = "results/studies"
    """Where NAME.jsonl and NAME.md go. Rows that are there are not trained again."""

    def __post_init__(self) -> None:
        for name in ("iterations", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"studies: {name} must be at least 1, got {getattr(self, name)}")


def main(argv: Sequence[str], prog: str) -> None:
    """Train what is missing, row by row, and write the page after each."""
    config = parse_fields(StudyConfig, StudyConfig(), argv, prog)
    out, machine = start(shlex.join([*prog.split(), *argv]), config.threads, config.device, config.out)
    path = out / f"{config.name}.jsonl"
    done = read_rows(path) if path.exists() else []
    write(path, "".join(json.dumps(line) + "\n" for line in done))  # without a last line that a kill cut short
    for target, row in cells(config.name):
        wanted = row_config(row, target, config)
        if not any(is_of(found, target, row, wanted) for found in done):
            done.append(train_row(target, row, wanted) | {"machine": machine})
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
        write(out / f"{config.name}.md", document(config.name, done))
    print(out / f"{config.name}.md")


def cells(name: str) -> Iterator[tuple[str, Row]]:
    """(target, row) in the order of training."""
    _, targets, rows = STUDIES[name]
    for target in targets:
        for row in rows:
            yield target, row


def row_config(row: Row, target: str, config: StudyConfig) -> TrainConfig:
    """The run of one row, but for its seed."""
    tuned = profile(row.game, target)
    changed = from_dict(type(tuned), merge(dataclasses.asdict(tuned), row.changes))
    return replace(changed, iterations=config.iterations, device=config.device)


def is_of(found: Mapping[str, Any], target: str, row: Row, wanted: TrainConfig) -> bool:
    """Whether a stored line is this row's; ValueError if it has the same name and other settings."""
    if (found["target"], found["game"], found["label"]) != (target, row.game, row.label):
        return False
    stored = plain(from_dict(type(wanted), found["config"]))  # settings that came later have their defaults there
    theirs, ours = dict(flatten(stored)), dict(flatten(plain(wanted)))
    other = ", ".join(f"{name} {theirs.get(name)}" for name in ours if ours[name] != theirs.get(name))
    if other:
        raise ValueError(
            f"studies: {target} {row.game}, {row.label}, has other settings there ({other}); choose another out"
        )
    return True


def train_row(target: str, row: Row, config: TrainConfig) -> dict[str, Any]:
    """Train the seeds of one row at once; their reverse KL, None where a run diverged."""
    started = time.monotonic()
    loop = side_by_side(row.game, config, SEEDS)
    for _ in progress(config.iterations, f"{target} {row.game}, {row.label}"):
        loop.iterate()
    samples = loop.samples(POINTS).cpu()
    law = DISTRIBUTIONS[target]()
    metrics = [run_metrics(run, law, seed) for run, seed in zip(samples, SEEDS, strict=True)]
    seconds = time.monotonic() - started
    values = [run and run["reverse_kl"] for run in metrics]
    shown = ", ".join("diverged" if value is None else f"{value:.4f}" for value in values)
    print(f"{target} {row.game}, {row.label}: reverse KL {shown}; {duration(seconds)}", flush=True)
    return {
        "target": target,
        "game": row.game,
        "label": row.label,
        "iterations": config.iterations,
        "config": plain(config),
        "seeds": list(SEEDS),
        "reverse_kl": values,
        "modes_covered": [run and run["modes_covered"] for run in metrics],
        "seconds": round(seconds, 1),
    }


def document(name: str, done: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown page of the rows that are there."""
    title, targets, rows = STUDIES[name]
    found = {(line["target"], line["game"], line["label"]): line for line in done}
    head = ["game", "what is changed", *(f"reverse KL, {target}" for target in targets)]
    table = [head, ["---"] * len(head)]
    for row in rows:
        lines = [found.get((target, row.game, row.label)) for target in targets]
        if any(lines):
            table.append([row.game, row.label, *map(_figure, lines)])
    machines = [line["machine"] for line in done]
    facts = {fact: sorted({str(m[fact]) for m in machines}) for fact in ("cpu", "threads", "torch", "commit", "date")}
    facts["date"] = [facts["date"][0], facts["date"][-1]]
    return "\n".join(
        [
            f"# {title}\n",
            "Each row is the game's tuned profile with what the row names; three runs, seeds "
            f"{', '.join(map(str, SEEDS))}, {done[0]['iterations']:,} iterations. Reverse KL in nats at n = {POINTS:,} "
            "and h = 0.1, mean ± standard error.\n",
            *("| " + " | ".join(line) + " |" for line in table),
            f"\n`{machines[-1]['command']}`; "
            + "; ".join(f"{fact} {' to '.join(dict.fromkeys(values))}" for fact, values in facts.items())
            + ".\n",
        ]
    )


def _figure(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return ""
    figure = summarise(line["reverse_kl"])
    gone = f" ({figure.diverged} diverged)" if figure.diverged else ""
    return f"{measured(figure)}{gone}" if figure.runs else "diverged"


def write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
