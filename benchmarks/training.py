"""How fast games train: iterations and images a second, by player, beside the same step in plain PyTorch.

    python -m benchmarks.training [--games potgan wgan-gp ...] [--presets ring8 ...] [--seconds 10] [--output FOLDER]

For each game and preset, this package's loop and, for four games, a plain one (`benchmarks/plain.py`) take turns of a
fraction of a second, in another order each round; speeds are medians over the rounds, ratios medians of the rounds'
ratios. For POT-GAN the same game without transport, WGAN-GP with POT-GAN's settings, takes turns with them: the share
of the regulariser is what its iteration takes less. Images are random bytes in the size of the preset's data, and
POT-GAN's encoder is that of a VAE with random weights: neither changes the time of a step.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.games import GAMES, Game, Loss
from train import provenance
from train.data.config import DISTRIBUTIONS, load
from train.data.datasets import Dataset, ImageSet
from train.recipes import profile
from train.run.config import TrainConfig, phase_as_run, torch_device
from train.run.loop import Loop
from train.run.source import Source
from train.run.threads import choose_threads

from .memory import growth
from .options import RESULTS
from .plain import PLAIN
from .report import markdown_row, size

Row = dict[str, Any]
OURS, PLAINLY, WITHOUT = "otkernels", "plain PyTorch", "otkernels, no transport"
TURN = 0.25  # seconds, or an iteration if that takes longer
PIXELS = {"digits": (1, 16), "fashion-mnist": (1, 32)}  # channels and size of other sets than colours at data.size
IMAGES = 2000
PRESETS = ("ring8", "ring8-paper", "folder32-cpu", "folder32-cpu-paper")


@dataclass
class Contestant:
    """An iteration to time; ``loop``: of this package's."""

    name: str
    iterate: Callable[[], Any]
    loop: Loop | None = None


def make_data(config: TrainConfig) -> Dataset:
    """The toy law, or random images in the data set's size."""
    device = torch_device(config.device)
    if config.data.name in DISTRIBUTIONS:
        return load(config.data, device, config.seed)
    channels, pixels = PIXELS.get(config.data.name, (3, config.data.size))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, channels, pixels, pixels), dtype=torch.uint8, generator=generator)
    return ImageSet(config.data.name, images.to(device), config.seed)


def make_loop(name: str, config: TrainConfig) -> Loop:
    """The loop that ``python -m train NAME`` plays with ``config``, on ``make_data``; phases are built, not trained."""
    data, kind = make_data(config), GAMES[name]
    torch.manual_seed(config.seed)
    earlier: dict[str, Game] = {}
    for phase, declared in kind.phases.items():
        if declared.needed(config.game, data.shape):
            game = next(game for game, known in GAMES.items() if known is declared.game)
            earlier[phase] = declared.game.build(phase_as_run(config, phase, game).game, data.shape)
    game = kind.build_on(config.game, data.shape, earlier)
    if torch_device(config.device).type == "cpu":
        torch.set_num_threads(config.threads or choose_threads(game, config.batch_size))
    source = Source(data, game.draw_noise, config.seed, torch_device(config.device))
    return Loop(game, source, config)


def without_transport(config: TrainConfig) -> TrainConfig:
    """WGAN-GP with the settings that it shares with POT-GAN's ``config``."""
    kind = profile("wgan-gp", "ring8")
    shared = {name: getattr(config, name) for name in kind.__dataclass_fields__ if name != "game"}
    game = {name: getattr(config.game, name) for name in kind.game.__dataclass_fields__}
    return type(kind)(**{**shared, "game": type(kind.game)(**game)})


def contestants(name: str, config: TrainConfig) -> list[Contestant]:
    """Ours; plain PyTorch where it is written; for POT-GAN also WGAN-GP with its settings."""
    loop = make_loop(name, config)
    loop.iterate()  # what only a first iteration does
    found = [Contestant(OURS, loop.iterate, loop)]
    if name == "potgan":
        other = make_loop("wgan-gp", without_transport(config))
        found.append(Contestant(WITHOUT, other.iterate, other))
    if name in PLAIN:
        source = make_loop(name, config).source
        plain = PLAIN[name](loop.game, config, lambda: source.draw(config.batch_size))
        found.append(Contestant(PLAINLY, plain))
    return found


def measure(name: str, preset: str, config: TrainConfig, seconds: float) -> list[Row]:
    """A row for each contestant, after ``seconds`` of turns for each."""
    playing = contestants(name, config)
    device = torch_device(config.device)
    counts = {}
    for contestant in playing:
        timed(contestant.iterate, 3, device)
        counts[contestant.name] = max(1, round(TURN / timed(contestant.iterate, 3, device)))
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in playing}
    order, until = random.Random(0), time.monotonic() + seconds * len(playing)
    while time.monotonic() < until or len(rates[OURS]) < 5:
        for contestant in order.sample(playing, len(playing)):
            rates[contestant.name].append(1 / timed(contestant.iterate, counts[contestant.name], device))
    batches = playing[0].loop.game.batches
    rows = []
    for contestant in playing:
        own, ours = rates[contestant.name], rates[OURS]
        row = {
            "game": name,
            "preset": preset,
            "contestant": contestant.name,
            "batch": config.batch_size,
            "threads": torch.get_num_threads(),
            "iterations_a_second": statistics.median(own),
            "images_a_second": statistics.median(own) * batches * config.batch_size,
            "time_to_ours": statistics.median(b / a for a, b in zip(own, ours, strict=True)),
            "rounds": len(own),
            "peak_bytes": peak(contestant.iterate, device),
        }
        if contestant.loop is not None:
            row["players"] = by_player(contestant.loop, counts[contestant.name])
        if contestant.name == OURS and WITHOUT in rates:
            shares = [1 - a / b for a, b in zip(ours, rates[WITHOUT], strict=True)]
            row["regulariser"] = statistics.median(shares)
        rows.append(row)
    return rows


def timed(iterate: Callable[[], Any], count: int, device: torch.device) -> float:
    """Seconds an iteration of ``count``."""
    start = time.perf_counter()
    for _ in range(count):
        iterate()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / count


def by_player(loop: Loop, count: int) -> dict[str, float]:
    """Shares of the iteration's time: of each player's steps, and of what lies between them (data, noise, average).

    On a GPU the device is waited for after each step, so that shares are of a slower iteration.
    """
    spent = dict.fromkeys(loop.game.players, 0.0)
    last = 0.0

    def watch(player: str, loss: Loss) -> None:
        nonlocal last
        if loop.device.type == "cuda":
            torch.cuda.synchronize(loop.device)
        spent[player] += time.perf_counter() - last

    step = loop.game.step

    def begun(*arguments: Any) -> Loss:
        nonlocal last
        last = time.perf_counter()
        return step(*arguments)

    loop.game.step = begun  # type: ignore[method-assign]
    start = time.perf_counter()
    for _ in range(count):
        loop.iterate(watch)
    whole = time.perf_counter() - start
    del loop.game.step
    return {name: seconds / whole for name, seconds in {**spent, "data, rest": whole - sum(spent.values())}.items()}


def peak(iterate: Callable[[], Any], device: torch.device) -> int:
    """Bytes that an iteration adds at most: to the resident set, or on a GPU to torch's allocator."""
    if device.type == "cpu":
        return growth(iterate)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    iterate()
    return torch.cuda.max_memory_allocated(device) - before


def document(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    facts = ", ".join(
        str(machine[name]) if name in ("cpu", "gpu") else f"{name} {machine[name]}"
        for name in ("gpu", "cpu", "isa", "cores", "python", "torch", "otkernels", "commit", "date")
        if name in machine
    )
    header = ("game", "preset", "contestant", "threads", "it/s", "images/s", "time / ours", "regulariser")
    lines = [markdown_row((*header, "shares of the time", "memory")), "|" + "---|" * (len(header) + 2)]
    for row in rows:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in row.get("players", {}).items())
        regulariser = f"{100 * row['regulariser']:.1f} %" if "regulariser" in row else ""
        speeds = f"{row['iterations_a_second']:.4g}", f"{row['images_a_second']:,.0f}", f"{row['time_to_ours']:.2f}x"
        cells = row["game"], row["preset"], row["contestant"], str(row["threads"]), *speeds, regulariser
        lines.append(markdown_row((*cells, shares, size(row["peak_bytes"]))))
    about = " ".join((__doc__ or "").split("\n\n")[2].split())
    load = f"load {machine['load_before']} before the start"
    head = f"# Training speed\n\n`{machine['command']}` on {facts}; {load}."
    return f"{head}\n\n{about} {COLUMNS}\n\n" + "\n".join(lines) + "\n"


COLUMNS = (
    "Images a second: real ones that the networks are trained on. Memory: what an iteration adds at most to what the "
    "process holds. Shares are measured in further iterations, with a clock around each step."
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--games", nargs="+", choices=list(GAMES), default=list(GAMES))
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each contestant of a row")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    device = torch_device(options.device)
    words = ["python -m benchmarks.training", *(argv or ())]
    machine = provenance.describe(" ".join(words), "models", "train")
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    rows, name = [], f"training-{device.type}"
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / f"{name}.jsonl").open("w") as file:
        print(json.dumps({"machine": machine}), file=file, flush=True)
        for preset in options.presets:
            for game in options.games:
                config = replace(profile(game, preset), device=options.device)
                for row in measure(game, preset, config, options.seconds):
                    rows.append(row)
                    print(json.dumps(row), file=file, flush=True)
                    speed, ratio = row["iterations_a_second"], row["time_to_ours"]
                    print(f"{game} {preset} {row['contestant']}: {speed:.4g} it/s, {ratio:.2f}x our time", flush=True)
    (options.output / f"{name}.md").write_text(document(rows, machine))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
