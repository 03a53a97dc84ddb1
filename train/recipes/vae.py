"""The VAE's own settings."""

from typing import Any

PROFILES: dict[str, dict[str, Any]] = {"folder32-cpu": {"iterations": 2000, "betas": (0.9, 0.999)}}
