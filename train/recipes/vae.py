"""The VAE's own settings."""

from typing import Any

from train.recipes.common import FULL_SIZE

# On images. A Gaussian decoder is calibrated where noise_scale is the root mean square error of the reconstructions:
# 0.20 on CIFAR-10 in the profile folder32-cpu with 0.2 (1,500 steps, torch 2.11.0, 2026-11-26). With 0.5, the class's
# default, the error was 0.27 after 400 steps, against 0.24.
IMAGES = {"noise_scale": 0.2}
_IMAGES = {"game": IMAGES}
_CPU = {**_IMAGES, "iterations": 2000, "betas": (0.9, 0.999)}
PROFILES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(FULL_SIZE, _IMAGES),
    "folder32-cpu": _CPU,
    "folder32-cpu-paper": {**_CPU, "lr": 1e-3},
}
