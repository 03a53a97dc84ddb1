"""Games by name."""

from __future__ import annotations

from models.games.game import Game, Loss, Turn
from models.games.potgan import PotGan
from models.games.vae import Vae
from models.games.wgan_gp import WganGp

GAMES: dict[str, type[Game]] = {"vae": Vae, "wgan-gp": WganGp, "potgan": PotGan}

__all__ = ["GAMES", "Game", "Loss", "PotGan", "Turn", "Vae", "WganGp"]
