"""3P-WGAN's own settings.

First weights are N(0, 0.02^2), which its paper states for images. Batch norm is in the generator alone: with the stated
one in the critic too, at the stated rate, the ring is slow and unstable.
"""

from typing import Any

_GAME = {"networks": {"init": "normal"}, "batch_norm": "generator"}
_TUNED = {"lr": 3e-4, "game": {**_GAME, "noise": "normal"}}
_PAPER = {"lr": 1e-4, "lr_decay": "constant", "game": _GAME}
# Fig. 1 of the paper: all 2,048 points of a fixed set in every batch.
_FIGURE_1 = {
    "data": {"limit": 2048},
    "iterations": 25_000,
    "batch_size": 2048,
    "lr": 1e-4,
    "lr_decay": "constant",
    "game": {"networks": {"width": 128, "depth": 2, "noise_dim": 128, "init": "normal"}, "batch_norm": "generator"},
}
# At a rate of 1e-3 the cost as the text has it, a sum, makes the critic constant within 300 iterations, and the paper's
# five mover steps, which take more than twice as long as two, within 400 (study of images).
_FOLDER_CPU = {"lr": 5e-4, "game": {"cost_scale": "mean", "mover_steps": 2}}
PROFILES: dict[str, dict[str, Any]] = {
    "ring8": _TUNED,
    "ball3d": _TUNED,
    "ring8-paper": _PAPER,
    "ball3d-paper": _PAPER,
    "figure1": _FIGURE_1,
    "folder32-cpu": _FOLDER_CPU,
}
