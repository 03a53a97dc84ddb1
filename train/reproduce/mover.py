"""3P-WGAN's synthetic experiment (section 3.1 and Fig. 1): 8 Gaussians, 2048 points, full batch."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from models.games import ThreePlayerWgan
from train.cli import parse_fields
from train.data.config import load
from train.data.datasets import PointSet
from train.data.distributions import ring8
from train.recipes import profile
from train.reproduce.start import start
from train.run.config import TrainConfig, torch_device
from train.run.files import write_atomically, write_json
from train.run.log import duration, progress
from train.run.loop import Loop, side_by_side
from train.run.outputs import POINTS
from train.scores.toy import toy_metrics

_FACTS = ("gpu", "cpu", "cores", "threads", "load_before", "python", "torch", "otkernels", "commit", "date")
GAME = "3p-wgan"
FIGURE_1 = profile(GAME, "figure1")
PAPER_EPOCHS = (100, 500, 3000, 7000)  # Fig. 1
_WHERE = {
    "both": "generator and critic, as in the paper",
    "generator": "the generator alone (the paper has it in the critic too)",
    "none": "no network (the paper has it in generator and critic)",
}


@dataclass(frozen=True)
class MoverConfig:
    """3P-WGAN's Fig. 1: trains on a fixed set of points, full batch; draws where they go and how far h moves them.

    As the paper's synthetic experiment, but for batch norm, which is in the generator alone. All weights start as
    N(0, 0.02^2), which the paper states for images.
    """

    iterations: int = FIGURE_1.iterations
    """Iterations, each on all points: the paper's epochs. [stated]"""
    points: int = FIGURE_1.batch_size
    """Points of the data set. [stated]"""
    lr: float = FIGURE_1.lr
    """Adam's learning rate. [stated]"""
    width: int = FIGURE_1.game.networks.width
    """Hidden units of the three networks, FC-ReLU-FC-ReLU-FC. [open]"""
    lambda_end: float = FIGURE_1.game.lambda_end
    """lambda rises linearly from 0.1 to this. [stated]"""
    batch_norm: Literal["both", "generator", "none"] = FIGURE_1.game.batch_norm
    """Batch norm in the layers of generator and critic. [stated: both], with which ours is slow and unstable:
    docs/studies/settings.md."""
    seed: int = 0
    """Seed of weights, noise and data."""
    every: int = 50
    """Iterations between rows of the curve of the mean move."""
    threads: int | None = None
    """CPU threads (default: all)."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    out: str = "results/mover"
    """Where mover.json, mover.md and mover.png go."""

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("points", 2), ("every", 1), ("threads", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"mover: {name} must be at least {least}, got {getattr(self, name)}")


def main(argv: Sequence[str], prog: str) -> None:
    """Train, then write the page, the numbers and the picture."""
    config = parse_fields(MoverConfig, MoverConfig(), argv, prog)
    out, machine = start(shlex.join([*prog.split(), *argv]), config.threads, config.device, config.out)
    for path in write(out, config, play(config), machine):
        print(path)


def game_config(config: MoverConfig) -> TrainConfig:
    """The paper's synthetic settings as a run of the game."""
    game = FIGURE_1.game
    networks = replace(game.networks, width=config.width)
    return replace(
        FIGURE_1,
        data=replace(FIGURE_1.data, limit=config.points),
        iterations=config.iterations,
        batch_size=config.points,
        lr=config.lr,
        seed=config.seed,
        device=config.device,
        game=replace(game, networks=networks, lambda_end=config.lambda_end, batch_norm=config.batch_norm),
    )


def play(config: MoverConfig) -> dict[str, Any]:
    """One run: {"curve": rows of step, move, lambda, "snapshots": step -> clouds and figures, "seconds"}."""
    settings = game_config(config)
    loop, points = side_by_side(GAME, settings, [config.seed]), data_points(settings)
    shown = {step for step in PAPER_EPOCHS if step < config.iterations} | {config.iterations}
    curve, snapshots, started = [], {}, time.monotonic()
    for step in progress(config.iterations, "mover"):
        loop.iterate()
        if step % config.every == 0 or step == config.iterations or step == 1:
            curve.append({"step": step, "move": float(way(loop, points)), "lambda": float(game_of(loop).cost_weight)})
        if step in shown:
            snapshots[step] = snapshot(loop, points)
            figures = ", ".join(f"{name} {value:.4g}" for name, value in snapshots[step]["figures"].items())
            print(f"iteration {step}: {figures}", flush=True)
    return {"curve": curve, "snapshots": snapshots, "seconds": time.monotonic() - started}


def game_of(loop: Loop) -> ThreePlayerWgan:
    game = loop.game
    assert isinstance(game, ThreePlayerWgan)
    return game


def way(loop: Loop, points: Tensor) -> Tensor:
    """Mean |h(x) - x|_2 over points [1, n, 2]."""
    with loop.sampling():
        return (game_of(loop).move(points) - points).norm(dim=-1).mean()


def data_points(settings: TrainConfig) -> Tensor:
    """The fixed set [1, points, 2] that the run is trained on."""
    data = load(settings.data, torch_device(settings.device), settings.seed)
    assert isinstance(data, PointSet)
    assert data.points is not None
    return data.points[None]


def snapshot(loop: Loop, points: Tensor) -> dict[str, Any]:
    """Real, generated and moved points [n, 2], and the figures of 10,000 generated ones; points [1, n, 2]."""
    samples = loop.samples(POINTS)[0].cpu()
    with loop.sampling():
        moved = game_of(loop).move(points)
    metrics = toy_metrics(samples, ring8())
    figures = {name: metrics[name] for name in ("reverse_kl", "modes_covered", "within_3_sigma")}
    clouds = {"real": points[0].cpu(), "generated": samples[: points.shape[1]], "moved real": moved[0].cpu()}
    return {"clouds": clouds, "figures": figures | {"move": float(way(loop, points))}}


def write(out: Path, config: MoverConfig, run: dict[str, Any], machine: dict[str, Any]) -> list[Path]:
    """mover.json, mover.md and mover.png; the paths written."""
    from train.report import plots  # matplotlib is slow to import

    snapshots, curve = run["snapshots"], run["curve"]
    figures = {str(step): shot["figures"] for step, shot in snapshots.items()}
    stored = {"config": asdict(config), "figures": figures, "curve": curve, "seconds": round(run["seconds"], 1)}
    write_json(out / "mover.json", stored | {"machine": machine})
    text = document(config, figures, curve, run["seconds"], machine)
    write_atomically(out / "mover.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    titles = {step: f"iteration {step:,}" for step in snapshots}
    plots.clouds(
        {titles[step]: shot["clouds"] for step, shot in snapshots.items()},
        {
            "mean move |h(x) - x|": [(row["step"], row["move"]) for row in curve],
            "lambda": [(row["step"], row["lambda"]) for row in curve],
        },
        out / "mover.png",
    )
    return [out / name for name in ("mover.json", "mover.md", "mover.png")]


def document(
    config: MoverConfig, figures: dict[str, Any], curve: list[dict[str, float]], seconds: float, machine: dict[str, Any]
) -> str:
    """The Markdown page."""
    rows = [
        f"| {int(step):,} | {f['modes_covered']} of 8 | {f['within_3_sigma']:.3f} | {f['reverse_kl']:.3f} "
        f"| {f['move']:.4f} |"
        for step, f in figures.items()
    ]
    facts = ", ".join(f"{name} {machine[name]}" for name in _FACTS if name in machine)
    return "\n".join(
        [
            f"# 3P-WGAN's Fig. 1: 8 Gaussians, {config.points:,} points, full batch\n",
            f"One run, with batch norm in {_WHERE[config.batch_norm]}. Blue: real points, orange: generated, green: "
            "moved real points h(x).\n",
            "![real, generated and moved points](mover.png)\n",
            "| iteration | modes covered | within 3 sigma | reverse KL | mean move |",
            "|---|---|---|---|---|",
            *rows,
            f"\nThe mean move starts at {curve[0]['move']:.3f} and ends at {curve[-1]['move']:.4f}; its largest value, "
            f"{max(row['move'] for row in curve):.3f}, is at iteration "
            f"{int(max(curve, key=lambda row: row['move'])['step']):,}.\n",
            f"`{machine['command']}`, {duration(seconds)}; {facts}. Settings: `{json.dumps(asdict(config))}`.\n",
        ]
    )
