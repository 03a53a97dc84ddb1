"""VEEGAN's own settings.

The ring's were chosen among rates from 1e-3 to 8e-3, spreads from 0.03 to 2 and noise in 2 to 32 dimensions (study of
settings). The ball is to be made from noise in two dimensions.
"""

from typing import Any

PROFILES: dict[str, dict[str, Any]] = {
    "ring8": {"lr": 4e-3, "game": {"reconstructor_std": 1.0, "networks": {"noise_dim": 8}}},
    "ball3d": {"lr": 2e-3, "game": {"reconstructor_std": 0.1}},
}
