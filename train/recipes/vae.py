"""The VAE's own settings."""

from typing import Any

_CPU = {"iterations": 2000, "betas": (0.9, 0.999)}
PROFILES: dict[str, dict[str, Any]] = {"folder32-cpu": _CPU, "folder32-cpu-paper": {**_CPU, "lr": 1e-3}}
