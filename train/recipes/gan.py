"""GAN's own settings."""

from typing import Any

_TUNED = {"lr": 1e-3}
PROFILES: dict[str, dict[str, Any]] = {"ring8": _TUNED, "ball3d": _TUNED}
