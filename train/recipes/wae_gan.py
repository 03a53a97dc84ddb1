"""WAE-GAN's own settings."""

from typing import Any

# The betas of all others on the toys; its paper's are (0.5, 0.999).
_TUNED = {
    "betas": (0.5, 0.9),
    "lr": 2e-3,
    "game": {"adversary_weight": 0.3, "discriminator_steps": 3},
}
PROFILES: dict[str, dict[str, Any]] = {"ring8": _TUNED, "ball3d": _TUNED, "folder32-cpu": {"lr": 3e-3}}
