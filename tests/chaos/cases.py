"""The games that are killed, and the moments of their runs that are worth a kill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CACHE = "cache"  # beside the run's folder
PICTURES = "pictures"  # beside the folders of all runs


@dataclass(frozen=True)
class Case:
    """A game with its settings. moments: files at whose appearance a run is killed, as patterns in the run's folder.

    They stand in the order in which a run makes them. A name that begins with a dot is a temporary file: it is there
    between the beginning of a write and the renaming.
    """

    game: str
    settings: Sequence[str]
    moments: Sequence[str]


_ENDING = ("samples.png", "losses.png", "export/.model.*.part", "export/model.safetensors", "export/config.json",
           ".figures.json.*.part", "figures.json", ".report.html.*.part", "report.html")  # fmt: skip
_TRAINING = ("tensorboard", "metrics.jsonl", "checkpoints/.step_*.part", ".metrics.jsonl.*.part",
             "checkpoints/step_*.pt", "samples/.*.part", "samples/*.png")  # fmt: skip
_TOY = (".config.json.*.part", "config.json", *_TRAINING, *_ENDING)
_IMAGES = (
    *(f"../{CACHE}/otkernels/{name}" for name in (".pictures-*.part", "pictures-*.safetensors", "scores/.*.part")),
    *("vae", "config.json", "vae/config.json", "vae/phase.json"),
    *(f"vae/{name}" for name in (*_TRAINING, *_ENDING)),
    *(f"../{CACHE}/otkernels/phases/{name}" for name in (".*.part", "vae-*")),
    *(*_TRAINING, "export-best/model.safetensors", "export-best/config.json", ".scores.json.*.part", "scores.json"),
    *_ENDING,
)


def _fields(prefix: str, **values: object) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{prefix}{name.replace('_', '-')}", str(value))]


_OFTEN = _fields("", log_every=7, sample_every=150, checkpoint_every=25)
_RING = ["--preset", "ring8", *_fields("", batch_size=16, iterations=300), *_OFTEN]
_RING += _fields("game.networks.", width=8, depth=1)
_NETWORKS = {"name": "mlp", "width": 8, "depth": 1, "noise_dim": 4}
_FOLDER = ["--preset", "folder32-cpu", *_fields("data.", path=f"../{PICTURES}", size=8)]
_FOLDER += _fields("", batch_size=8, iterations=60, log_every=4, sample_every=20, checkpoint_every=10)
_FOLDER += _fields("game.networks.", **_NETWORKS)
_VAE = [*_fields("vae.", batch_size=8, iterations=60), *_fields("vae.game.networks.", **_NETWORKS)]
_SCORES = _fields("scores.", extractor="efficientnet-lite2", n=10, reference=10, every=15)

CASES = {
    "wgan-gp": Case("wgan-gp", _RING, _TOY),  # with an average of the weights and rates that fall, as all of the ring
    "potgan": Case("potgan", _RING, _TOY),
    "3p-wgan": Case("3p-wgan", _RING, _TOY),
    "potgan-images": Case("potgan", [*_FOLDER, *_VAE, *_SCORES], _IMAGES),
}


def make_pictures(folder: Path, count: int = 40) -> None:
    """Write small images for the cases that train on a folder of them."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
