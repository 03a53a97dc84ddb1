"""POT-GAN from data to samples: ``python train/potgan.py --preset ring8``.

For images, a VAE is trained first (in the folder ``vae`` of the run) and its encoder frozen, as the paper does; for
points the latent is the point itself. Either phase can be stopped and resumed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from train.entry import run  # before PyTorch is imported

    sys.exit(run("train.potgan", lambda module: module.main(sys.argv[1:], "python train/potgan.py")))

import copy
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, cast

import torch

from models.config import check_fields, fixed_fields
from models.games.export import load_game
from models.games.potgan import PotGanConfig
from models.games.vae import Vae, VaeConfig
from train.cli import parse
from train.data.datasets import Dataset, ImageSet
from train.run.checkpoint import checkpoints, valid_states
from train.run.config import TrainConfig, check_rates, run_config, save_config
from train.run.directory import locked
from train.run.outputs import EXPORT
from train.run.play import begin, load_data, load_run, make_trainer, open_run, run_directory
from train.run.resume import Resume, check_changes
from train.run.trainer import CHECKPOINTS

SHOWN, COLUMNS = 32, 8


@dataclass(frozen=True)
class VaePhase:
    """The VAE's own training, before the game. Data, seed, device and intervals are those of the run."""

    known_as: ClassVar[str] = "vae"

    iterations: int = 20_000
    """Steps; 0 skips the phase and leaves the encoder as game.encoder says. Points never have this phase."""
    batch_size: int = 64
    """Images in a batch."""
    lr: float = 2e-4
    """Adam's learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    game: VaeConfig = field(default_factory=VaeConfig)
    """The VAE."""

    def __post_init__(self) -> None:
        check_fields(self, "train")
        if self.iterations < 0:
            raise ValueError(f"train: vae.iterations must not be negative, got {self.iterations}")
        if self.iterations > 0:
            check_rates(self, "vae.")


@dataclass(frozen=True)
class PotGanRun(TrainConfig):
    """POT-GAN, with the pre-training of its encoder."""

    game: PotGanConfig = field(default_factory=PotGanConfig)
    """The game."""
    vae: VaePhase = field(default_factory=VaePhase)
    """The pre-training."""


def main(argv: Sequence[str], prog: str) -> None:
    """Run the command line ``argv``; ValueError for a wrong one."""
    config, resume = parse("potgan", PotGanRun, argv, prog)
    train(config, resume, prog)


def train(config: PotGanRun, resume: Resume | None, prog: str) -> dict[str, float]:
    """Both phases in one run directory; the final metrics, none if the run had ended before."""
    if resume is not None:
        check_changes(resume, config, fixed_phase(resume.directory, config))
    with run_directory(config, "potgan", resume) as directory:
        data = load_data(config)
        resume_command = f"{prog} --resume {shlex.quote(str(directory))}"
        game = config.game
        if isinstance(data, ImageSet) and config.vae.iterations > 0 and game.encoder == "identity":
            game = replace(game, encoder=str(pretrain(config, data, directory, resume, resume_command)))
        trainer = make_trainer("potgan", replace(config, game=game), data, directory)
        metrics = trainer.run(resume_command) if begin(trainer, config, resume) else {}
        reconstructions = directory / "reconstructions.png"
        if isinstance(data, ImageSet) and game.encoder != "identity" and (metrics or not reconstructions.exists()):
            show_reconstructions(Path(game.encoder), data, reconstructions)
        return metrics


def fixed_phase(directory: Path, config: PotGanRun) -> set[str]:
    """Settings of the VAE that cannot change any more in the run ``directory``: all of them once the game has begun."""
    if whole(directory / "vae" / EXPORT) or checkpoints(directory / CHECKPOINTS):
        return {"vae"}
    return {f"vae.game.{name}" for name in fixed_fields(config.vae.game)}


def whole(exported: Path) -> bool:
    """Whether the export is there; its config.json is written last."""
    return (exported / "config.json").exists()


def pretrain(config: PotGanRun, data: Dataset, directory: Path, resume: Resume | None, resume_command: str) -> Path:
    """Train the VAE in ``directory``/vae, unless its export is there; the export's path. ``data`` is left as it was."""
    folder = directory / "vae"
    exported = folder / EXPORT
    start = copy.deepcopy(data.state_dict())
    vae_config = phase_config(config)
    vae_resume = None
    if resume is not None:
        vae_resume = Resume(folder, phase_config(cast(PotGanRun, resume.stored)), resume.other_data)
    if not whole(exported):
        trainer = make_trainer("vae", vae_config, data, folder)
        folder.mkdir(exist_ok=True)
        with locked(folder):  # it is a run of its own to python -m train vae --resume
            load_run(trainer, vae_resume, "vae.")
            open_run(directory, "potgan", config)
            save_config(folder, "vae", trainer.config)
            trainer.run(resume_command)
    elif vae_resume is not None and not checkpoints(directory / CHECKPOINTS):  # else the game's own state is asked
        check_data(folder, data, vae_resume.other_data)
    data.load_state_dict(start)
    return exported


def check_data(folder: Path, data: Dataset, other_data: bool) -> None:
    """ValueError if ``data`` are not those that the finished phase in ``folder`` was trained on, unless allowed."""
    for _, state in valid_states(folder / CHECKPOINTS, lambda text: print(f"warning: {text}", flush=True)):
        data.load_state_dict(state["data"], allow_other=other_data)
        return


def phase_config(config: PotGanRun) -> TrainConfig:
    """The VAE's training as a run of its own: fields of ``config.vae`` where it has them, else those of the run."""
    shared = {f.name: getattr(config, f.name) for f in fields(TrainConfig)}
    own = {f.name: getattr(config.vae, f.name) for f in fields(VaePhase)}
    return run_config("vae")(**{**shared, "ema": 0.0, "lr_decay": "constant", "out": None, **own})


def show_reconstructions(exported: Path, data: ImageSet, path: Path) -> None:
    """A grid of up to 32 images in whole rows, each above what the exported VAE makes of it."""
    from train.report import plots  # matplotlib is slow to import

    vae = cast(Vae, load_game(exported, {"vae": Vae})[0])
    columns = min(COLUMNS, len(data))
    real = data.preview(min(SHOWN, len(data) // columns * columns))
    with torch.no_grad():
        rebuilt = vae.to(real.device).reconstruct(real)
    rows = [part for pair in zip(real.split(columns), rebuilt.split(columns), strict=True) for part in pair]
    plots.image_grid(torch.cat(rows), path, columns=columns)
    print(f"reconstructions {path}", flush=True)
