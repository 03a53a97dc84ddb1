"""WGAN's own settings."""

from typing import Any

PROFILES: dict[str, dict[str, Any]] = {"folder32-cpu": {"lr": 4e-3, "game": {"critic_steps": 2}}}
