"""POT-GAN's own settings. In the profiles of its paper, what it does not state (the forest's size) is ours."""

from typing import Any

from train.recipes.common import CPU, FULL_SIZE, SMALL
from train.recipes.vae import IMAGES

_TREES = {"trees": 16, "depth": 3}
_FOREST = {**_TREES, "thresholds": "latents", "leaves": "identity", "lr": 4e-3, "inner_steps": 1}
_TUNED = {
    "game": {"critic_steps": 1, "gradient_penalty_weight": 0.02, "transport_weight": 4.0, "forest": _FOREST},
}
_PAPER = {"game": {"forest": _TREES}}
_SMALL_VAE = {"vae": {"game": {"networks": SMALL}}}
_VAE = {"vae": {"game": IMAGES}}
_CPU_VAE = {"game": {"networks": CPU, **IMAGES}, "iterations": 2000, "lr": 1e-3}
PROFILES: dict[str, dict[str, Any]] = {
    "ring8": _TUNED,
    "ball3d": _TUNED,
    "demo": _TUNED,
    "ring8-paper": _PAPER,
    "ball3d-paper": _PAPER,
    "digits": _SMALL_VAE,
    "fashion-mnist": _SMALL_VAE,
    **dict.fromkeys(FULL_SIZE, _VAE),
    "folder32-cpu": {"lr": 4e-3, "game": {"critic_steps": 2}, "vae": _CPU_VAE},
    "folder32-cpu-paper": {"game": {"critic_steps": 2}, "vae": _CPU_VAE},
}
