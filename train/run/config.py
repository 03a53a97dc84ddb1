"""What a run is: its configuration, checked where it is made, and its form on disk."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

import torch

from models.config import check_fields, from_dict
from models.games import GAMES, Game
from train.data.config import DataConfig
from train.run.directory import RUN_FILE
from train.run.files import write_json
from train.run.schedule import Decay
from train.scores.config import ScoreConfig


@dataclass(frozen=True)
class TrainConfig:
    """How to train; ``run_config`` says what is in the field ``game``."""

    data: DataConfig = field(default_factory=DataConfig)
    """What to train on."""
    iterations: int = 100_000
    """Rounds of the game: generator updates of a GAN, steps of a VAE. POT-GAN plays about 100,000."""
    batch_size: int = 64
    """Samples in a batch, of all processes together; POT-GAN and 3P-WGAN take 64."""
    lr: float = 2e-4
    """The optimizer's learning rate; a player may have its own."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's decay rates of both moments; RMSprop has none of them."""
    lr_decay: Decay = "constant"
    """linear, cosine: every learning rate falls to 0 towards the last iteration, in a line or as half a cosine."""
    lr_warmup: int = 0
    """Iterations over which every learning rate rises in a line at the start."""
    sync_batch_norm: bool = False
    """Over several processes: batch norm takes its statistics from the whole batch, not from a process's rows of it."""
    ema: float = 0.0
    """Decay of the average of the weights that make samples; 0 takes the weights as they are."""
    seed: int = 0
    """Seed of weights, noise and the order of the data."""
    device: str = "cpu"
    """cpu, cuda or cuda:N; over several processes cpu, or cuda: each takes the GPU of its number on its node."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16: networks compute in bfloat16 while they train; weights, losses and the gradient penalty stay float32."""
    cuda_graphs: bool = True
    """On a GPU, and in one process: each player's step is one CUDA graph after the first few."""
    channels_last: bool = True
    """Images and convolutions keep a pixel's channels together in memory: a tenth faster on a CPU, and as the tensor
    cores of a GPU read them."""
    compile: bool = False
    """Compile steps by torch.compile, in one process on a CPU: for points little faster, with other rounding."""
    threads: int | None = None
    """CPU threads (None: one where networks are small, else all cores). A run keeps its number when it is resumed:
    bit for bit the same only with the same number."""
    out: str | None = None
    """Run directory (None: runs/GAME-DATA, or the first free of runs/GAME-DATA-2, -3, ...)."""
    wandb: str | None = None
    """Project of Weights & Biases that gets the rows, too (None: none); needs pip install wandb."""
    log_every: int = 50
    """Iterations between rows of metrics.jsonl."""
    sample_every: int = 1000
    """Iterations between pictures of samples (and, for points, metrics)."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    scores: ScoreConfig = field(default_factory=ScoreConfig)
    """Scores of images, at the end of the run and along the way; of none unless an extractor is named."""
    game: Any = None
    """The game."""

    def __post_init__(self) -> None:
        check_fields(self, "train")
        check_rates(self)
        for name in ("iterations", "log_every", "sample_every", "checkpoint_every", "keep"):
            _require(getattr(self, name) >= 1, name, "must be at least 1", getattr(self, name))
        _require(self.lr_warmup >= 0, "lr_warmup", "must not be negative", self.lr_warmup)
        _require(0 <= self.ema < 1, "ema", "must lie in [0, 1)", self.ema)
        _require(0 <= self.seed < 2**64, "seed", "must lie in 0..2^64 - 1", self.seed)
        _require(self.threads is None or 1 <= self.threads <= 1024, "threads", "must lie in 1..1024", self.threads)
        _require(DEVICE.fullmatch(self.device) is not None, "device", "must be cpu, cuda or cuda:N", self.device)


R = TypeVar("R", bound=TrainConfig)
C = TypeVar("C")
NONE: Mapping[str, Any] = {}
DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class PhaseConfig:
    """The training of a game before the run's own. Data, device and intervals are those of the run."""

    known_as: ClassVar[str] = "phase"

    iterations: int = 100_000
    """Steps; 0 skips the phase. It is skipped, too, where the game does not need it: POT-GAN's VAE for points, or if
    game.encoder names one."""
    batch_size: int = 64
    """Samples in a batch."""
    lr: float = 2e-4
    """The optimizer's learning rate."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's decay rates of the first and second moment."""
    seed: int | None = None
    """Seed of the phase's weights, noise and order of the data (None: the run's). Runs whose seeds differ share one
    phase if this is fixed."""
    reuse: bool = True
    """Take the phase from the cache folder if it was trained before with the same data, settings, seed and code, and
    keep it there for other runs; python -m train phases lists what is kept."""
    game: Any = None
    """The game of the phase."""

    def __post_init__(self) -> None:
        check_fields(self, "train")
        name = self.known_as
        _require(self.iterations >= 0, f"{name}.iterations", "must not be negative", self.iterations)
        _require(self.seed is None or 0 <= self.seed < 2**64, f"{name}.seed", "must lie in 0..2^64 - 1", self.seed)
        if self.iterations > 0:
            check_rates(self, f"{name}.")


@functools.cache
def run_config(game: str) -> type[TrainConfig]:
    """TrainConfig for the game of that name: its Config as the field ``game``, its defaults, a field for each phase."""
    if game not in GAMES:
        raise ValueError(f"train: there is no game {game!r}; games: {', '.join(GAMES)}")
    kind = GAMES[game]
    phases = {name: _with_game(PhaseConfig, name, phase.game, phase.defaults) for name, phase in kind.phases.items()}
    return _with_game(TrainConfig, "", kind, kind.defaults, phases)


def phase_as_run(config: TrainConfig, name: str, game: str) -> TrainConfig:
    """The phase ``name`` of a run as a run of its own: the phase's fields where it has them, else those of the run."""
    phase = getattr(config, name)
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(TrainConfig)}
    own = {f.name: getattr(phase, f.name) for f in dataclasses.fields(PhaseConfig) if f.name in shared}
    if phase.seed is None:
        own["seed"] = config.seed
    plain = {"scores": ScoreConfig(), "ema": 0.0, "lr_decay": "constant", "lr_warmup": 0, "wandb": None, "out": None}
    return run_config(game)(**{**shared, **plain, **own})


def _with_game(
    base: type[C], known_as: str, game: type[Game], defaults: Mapping[str, Any], more: Mapping[str, type] = NONE
) -> type[C]:
    """``base`` with the Config of ``game``, other defaults, and a field for each config class of ``more``."""
    hints = get_type_hints(base)
    fields = [
        *((name, hints[name], field(default=value)) for name, value in defaults.items()),
        *((name, kind, field(default_factory=kind)) for name, kind in {"game": game.Config, **more}.items()),
    ]
    named = {"known_as": known_as, "__doc__": base.__doc__} if known_as else {}
    name = f"{game.__name__}{base.__name__.removesuffix('Config').replace('Train', 'Run')}"
    return dataclasses.make_dataclass(name, fields, bases=(base,), frozen=True, namespace=named)


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
    if device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


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
