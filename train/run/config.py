"""What a run is: its configuration, checked where it is made, and its form on disk."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import torch

from models.config import check_fields, from_dict
from models.games import GAMES
from train.data.datasets import DataConfig
from train.run.directory import RUN_FILE
from train.run.files import write_json


@dataclass(frozen=True)
class TrainConfig:
    """How to train; ``run_config`` adds the game's own fields."""

    data: DataConfig = field(default_factory=DataConfig)
    """What to train on."""
    iterations: int = 100_000
    """Rounds of the game: generator updates of a GAN, steps of a VAE. POT-GAN plays about 100,000."""
    batch_size: int = 64
    """Samples in a batch; POT-GAN and 3P-WGAN take 64."""
    lr: float = 2e-4
    """The optimizer's learning rate; a player may have its own."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's decay rates of both moments; RMSprop has none of them."""
    lr_decay: Literal["constant", "linear"] = "constant"
    """linear: every learning rate falls to 0 towards the last iteration."""
    ema: float = 0.0
    """Decay of the average of the weights that make samples; 0 takes the weights as they are."""
    seed: int = 0
    """Seed of weights, noise and the order of the data."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads (None: one where networks are small, else all cores). A run keeps its number when it is resumed:
    bit for bit the same only with the same number."""
    out: str | None = None
    """Run directory (None: runs/GAME-DATA, or the first free of runs/GAME-DATA-2, -3, ...)."""
    log_every: int = 50
    """Iterations between rows of metrics.jsonl."""
    sample_every: int = 1000
    """Iterations between pictures of samples (and, for points, metrics)."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        check_fields(self, "train")
        check_rates(self)
        for name in ("iterations", "log_every", "sample_every", "checkpoint_every", "keep"):
            _require(getattr(self, name) >= 1, name, "must be at least 1", getattr(self, name))
        _require(0 <= self.ema < 1, "ema", "must lie in [0, 1)", self.ema)
        _require(0 <= self.seed < 2**64, "seed", "must lie in 0..2^64 - 1", self.seed)
        _require(self.threads is None or 1 <= self.threads <= 1024, "threads", "must lie in 1..1024", self.threads)
        _require(DEVICE.fullmatch(self.device) is not None, "device", "must be cpu, cuda or cuda:N", self.device)


R = TypeVar("R", bound=TrainConfig)
DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@functools.cache
def run_config(game: str) -> type[TrainConfig]:
    """TrainConfig with a field ``game``, the configuration of the game of that name, and that game's defaults."""
    if game not in GAMES:
        raise ValueError(f"train: there is no game {game!r}; games: {', '.join(GAMES)}")
    kind: Any = GAMES[game].Config  # type: ignore[attr-defined]
    name = f"{GAMES[game].__name__}Run"
    hints = get_type_hints(TrainConfig)
    stated = [(setting, hints[setting], field(default=value)) for setting, value in GAMES[game].defaults.items()]
    extra = [*stated, ("game", kind, field(default_factory=kind))]
    return dataclasses.make_dataclass(name, extra, bases=(TrainConfig,), frozen=True)


def torch_device(name: str) -> torch.device:
    """The device of that name; ValueError if this machine has none."""
    device = torch.device(name)
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if count == 0:
        raise ValueError(f"train: device {name} is not available: torch {torch.__version__} sees no GPU here; use cpu")
    if (device.index or 0) >= count:
        raise ValueError(f"train: device {name} is not available: there are {count} GPUs, cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", device.index or 0)


def save_config(directory: Path, game: str, config: TrainConfig) -> None:
    """Write config.json to a run directory."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / RUN_FILE, {"game": game, "config": dataclasses.asdict(config)})


def load_config(directory: Path, game: str, kind: type[R]) -> R:
    """The configuration in a run directory, which must be of ``game``; ValueError in one line otherwise."""
    path = directory / RUN_FILE
    if not path.is_file():
        raise ValueError(f"resume: {directory} is no run directory: it has no {RUN_FILE}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        name, values = stored["game"], stored["config"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"resume: {path} is damaged: {error}") from error
    if name != game:
        raise ValueError(f"resume: {directory} is a run of {name}, not of {game}")
    try:
        return from_dict(kind, values)
    except ValueError as error:
        raise ValueError(f"resume: {path}: {error}") from error


def check_rates(config: Any, prefix: str = "") -> None:
    """ValueError for a wrong batch_size, lr or betas of ``config``; prefix: what precedes their names."""
    _require(config.batch_size >= 1, f"{prefix}batch_size", "must be at least 1", config.batch_size)
    _require(config.lr > 0, f"{prefix}lr", "must be positive", config.lr)
    _require(all(0 <= b < 1 for b in config.betas), f"{prefix}betas", "must lie in [0, 1)", config.betas)


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise ValueError(f"train: {name} {rule}, got {value}")
