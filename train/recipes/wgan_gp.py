"""WGAN-GP's own settings."""

from typing import Any

_TUNED = {"lr": 1e-3, "game": {"critic_steps": 5, "gradient_penalty_weight": 0.1}}
PROFILES: dict[str, dict[str, Any]] = {
    "ring8": _TUNED,
    "ball3d": _TUNED,
    "demo": _TUNED,
    "folder32-cpu": {"game": {"critic_steps": 2}},
    "folder32-cpu-paper": {"game": {"critic_steps": 2}},
}
