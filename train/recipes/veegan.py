"""VEEGAN's own settings."""

from typing import Any

# The reconstructor's spread, of 0.03, 0.1, 0.3, 0.5 and 1, and the rate, of 1e-3 and 2e-3: see the study of settings.
_TUNED = {"lr": 2e-3, "game": {"reconstructor_std": 0.1}}
PROFILES: dict[str, dict[str, Any]] = {"ring8": _TUNED, "ball3d": _TUNED}
