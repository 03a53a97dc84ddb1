"""WAE-GAN's own settings."""

from typing import Any

_TUNED = {"betas": (0.5, 0.9)}  # as all others on the toys; its paper's are (0.5, 0.999)
PROFILES: dict[str, dict[str, Any]] = {"ring8": _TUNED, "ball3d": _TUNED, "folder32-cpu": {"lr": 3e-3}}
