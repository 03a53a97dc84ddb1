"""Games by name."""

from __future__ import annotations

from models.games.game import Game, Loss, Turn
from models.games.gan import Dcgan, Gan
from models.games.potgan import PotGan
from models.games.sngan import Sngan
from models.games.three_player_wgan import ThreePlayerWgan
from models.games.vae import Vae
from models.games.veegan import Veegan
from models.games.wae_gan import WaeGan
from models.games.wgan import Wgan
from models.games.wgan_gp import WganGp

GAMES: dict[str, type[Game]] = {
    "vae": Vae,
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
    "PotGan",
    "Sngan",
    "ThreePlayerWgan",
    "Turn",
    "Vae",
    "Veegan",
    "WaeGan",
    "Wgan",
    "WganGp",
]
