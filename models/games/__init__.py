"""Games by name."""

from __future__ import annotations

from models.games.game import Game, Loss, Phase, Turn
from models.games.gan import Dcgan, Gan
from models.games.potgan import PotGan
from models.games.sngan import Sngan
from models.games.three_player_wgan import ThreePlayerWgan
from models.games.vae import VaeGame
from models.games.veegan import Veegan
from models.games.wae_gan import WaeGan
from models.games.wgan import Wgan
from models.games.wgan_gp import WganGp

GAMES: dict[str, type[Game]] = {
    "vae": VaeGame,
    "gan": Gan,
    "dcgan": Dcgan,
    "wgan": Wgan,
    "wgan-gp": WganGp,
    "sngan": Sngan,
    "veegan": Veegan,
    "wae-gan": WaeGan,
    "potgan": PotGan,
    "3p-wgan": ThreePlayerWgan,
}

__all__ = [
    "GAMES",
    "Dcgan",
    "Game",
    "Gan",
    "Loss",
    "Phase",
    "PotGan",
    "Sngan",
    "ThreePlayerWgan",
    "Turn",
    "VaeGame",
    "Veegan",
    "WaeGan",
    "Wgan",
    "WganGp",
]
