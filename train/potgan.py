"""POT-GAN from data to samples: ``python train/potgan.py --preset ring8``.

For images, a VAE is trained first (in the folder ``vae`` of the run) and its encoder frozen, as the paper does; for
points the latent is the point itself. Either phase can be stopped and resumed.
"""

from __future__ import annotations

import copy
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import cast

if __name__ == "__main__":  # run as a script: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from models.games.export import load_game
from models.games.potgan import PotGanConfig
from models.games.vae import Vae, VaeConfig
from train.cli import guarded, parse
from train.config import TrainConfig, run_config, save_config
from train.data import Dataset, ImageSet
from train.outputs import EXPORT
from train.runs import load_data, make_trainer, open_run, run_directory

SHOWN, COLUMNS = 32, 8


@dataclass(frozen=True)
class VaePhase:
    """The VAE's own training, before the game. Data, seed, device and intervals are those of the run."""

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
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.iterations < 0:
            raise ValueError(f"train: vae.iterations must not be negative, got {self.iterations}")


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


def train(config: PotGanRun, resume: Path | None, prog: str) -> dict[str, float]:
    """Both phases in one run directory; the final metrics."""
    directory = run_directory(config, "potgan", resume)
    data = load_data(config)
    resume_command = f"{prog} --resume {shlex.quote(str(directory))}"
    game = config.game
    if isinstance(data, ImageSet) and config.vae.iterations > 0 and game.encoder == "identity":
        game = replace(game, encoder=str(pretrain(config, data, directory, resume_command)))
    trainer = make_trainer("potgan", replace(config, game=game), data, directory)
    open_run(directory, "potgan", config)
    metrics = trainer.run(resume_command)
    if isinstance(data, ImageSet) and game.encoder != "identity":
        show_reconstructions(Path(game.encoder), data, directory / "reconstructions.png")
    return metrics


def pretrain(config: PotGanRun, data: Dataset, directory: Path, resume_command: str) -> Path:
    """Train the VAE in ``directory``/vae, unless its export is there; the export's path. ``data`` is left as it was."""
    folder = directory / "vae"
    exported = folder / EXPORT
    if (exported / "config.json").exists():  # written last, so the export is whole
        return exported
    start = copy.deepcopy(data.state_dict())
    vae_config = phase_config(config)
    trainer = make_trainer("vae", vae_config, data, folder)
    open_run(directory, "potgan", config)
    save_config(folder, "vae", vae_config)
    trainer.run(resume_command)
    data.load_state_dict(start)
    return exported


def phase_config(config: PotGanRun) -> TrainConfig:
    """The VAE's training as a run of its own: fields of ``config.vae`` where it has them, else those of the run."""
    shared = {f.name: getattr(config, f.name) for f in fields(TrainConfig)}
    own = {f.name: getattr(config.vae, f.name) for f in fields(VaePhase)}
    return run_config("vae")(**{**shared, "ema": 0.0, "lr_decay": "constant", "out": None, **own})


def show_reconstructions(exported: Path, data: ImageSet, path: Path) -> None:
    """A grid of up to 32 images in whole rows, each above what the exported VAE makes of it."""
    from train import plots  # matplotlib is slow to import

    vae = cast(Vae, load_game(exported, {"vae": Vae})[0])
    columns = min(COLUMNS, len(data))
    real = data.preview(min(SHOWN, len(data) // columns * columns))
    with torch.no_grad():
        rebuilt = vae.to(real.device).reconstruct(real)
    rows = [part for pair in zip(real.split(columns), rebuilt.split(columns), strict=True) for part in pair]
    plots.image_grid(torch.cat(rows), path, columns=columns)
    print(f"reconstructions {path}", flush=True)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:], "python train/potgan.py")))
