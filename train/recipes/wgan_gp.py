"""WGAN-GP's own settings."""

from typing import Any

_TUNED = {"lr": 1e-3, "game": {"critic_steps": 5, "gradient_penalty_weight": 0.1}}
_TWO_STEPS = {"game": {"critic_steps": 2}}  # of the critic: its paper's five take 2.1 times as long an iteration
PROFILES: dict[str, dict[str, Any]] = {
    "ring8": _TUNED,
    "ball3d": _TUNED,
    "demo": _TUNED,
    "folder32-cpu": {"lr": 8e-3, **_TWO_STEPS},
    "folder32-cpu-paper": _TWO_STEPS,
}
