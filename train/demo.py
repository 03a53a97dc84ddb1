"""``python -m train.demo``: the games that have a demo profile side by side on the ring of 8 Gaussians."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before PyTorch is imported
    from train.entry import run

    sys.exit(run("train.demo", lambda module: module.main(sys.argv[1:])))

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from train.cli import parse_fields
from train.data.distributions import ring8
from train.recipes import RECIPES, profile, profiles
from train.report.page import write_report
from train.run.config import TrainConfig
from train.run.directory import new_directory
from train.run.log import duration
from train.run.outputs import POINTS
from train.run.play import play
from train.run.trainer import Trainer

GAMES = sorted(game for game in RECIPES if "demo" in profiles(game))
COLUMNS = {
    "reverse_kl": "reverse KL",
    "reverse_kl_floor": "floor",
    "modes_covered": "modes of 8",
    "within_3_sigma": "within 3 sigma",
}


@dataclass(frozen=True)
class DemoConfig:
    """POT-GAN on 8 Gaussians in the plane, then WGAN-GP: the same networks, data, seed and number of iterations.

    Each has its own tuned settings, those of its profile "demo".
    """

    iterations: int = 6000
    """Generator updates of each."""
    seed: int = 0
    """Seed of weights, noise and data."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    out: str | None = None
    """Where everything is written (default: runs/demo, or the first free of runs/demo-2, ...)."""


def main(argv: Sequence[str]) -> None:
    """Train both, compare them in a table, a picture and a page."""
    demo = parse_fields(DemoConfig, DemoConfig(), argv, "python -m train.demo")
    trainers, rows = {}, {}
    with new_directory(demo.out, Path("runs/demo")) as directory:
        for name in GAMES:
            print(f"\n{name}", flush=True)
            config = replace(config_of(name, demo), out=str(directory / name))
            trainers[name], metrics = play(name, config, None, f"python -m train {name}")
            rows[name] = {**metrics, "seconds": trainers[name].seconds}
        Console().print(table(rows, demo))
        picture, report = compare(trainers, rows, directory)
    print(f"picture {picture}\nreport  {report}")


def config_of(name: str, demo: DemoConfig) -> TrainConfig:
    """The profile "demo" of one game on the demo's budget."""
    return replace(profile(name, "demo"), iterations=demo.iterations, seed=demo.seed, device=demo.device)


def table(rows: dict[str, dict[str, float]], demo: DemoConfig) -> Table:
    """Method by metric."""
    caption = f"one run each, seed {demo.seed}, {demo.iterations} iterations; reverse KL with h = 0.1, n = {POINTS}"
    made = Table(title="8 Gaussians on a ring", caption=caption)
    made.add_column("")
    for heading in (*COLUMNS.values(), "training"):
        made.add_column(heading, justify="right")
    for name, row in rows.items():
        made.add_row(name, *(f"{row[column]:.3g}" for column in COLUMNS), duration(row["seconds"]))
    return made


def compare(trainers: dict[str, Trainer], rows: dict[str, dict[str, float]], directory: Path) -> tuple[Path, Path]:
    """comparison.png and report.html, which also shows both runs' losses."""
    from train.report import plots  # matplotlib is slow to import

    picture = directory / "comparison.png"
    plots.side_by_side({name: t.outputs.samples(POINTS) for name, t in trainers.items()}, ring8(), picture)
    write_report(
        directory / "report.html",
        title="8 Gaussians on a ring: " + " and ".join(trainers),
        config={name: dataclasses.asdict(trainer.config) for name, trainer in trainers.items()},
        table=rows,
        pictures={"Samples": picture, **{f"Losses of {name}": directory / name / "losses.png" for name in trainers}},
    )
    return picture, directory / "report.html"
