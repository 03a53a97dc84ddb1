import dataclasses
import json

import pytest
import torch
import tyro
from safetensors.torch import save_file

from models.config import from_dict
from models.games import GAMES, PotGan, Vae
from models.games.export import load_game
from models.games.potgan import ForestConfig
from models.networks import NetworkConfig

NETWORKS = NetworkConfig("mlp", width=8, noise_dim=3)


def export(directory, name, game, shape):
    save_file(game.state_dict(), directory / "model.safetensors")
    description = {"game": name, "config": dataclasses.asdict(game.config), "shape": list(shape)}
    (directory / "config.json").write_text(json.dumps(description))


@pytest.mark.parametrize("name", GAMES)
def test_an_export_is_rebuilt(name, tmp_path):
    game = GAMES[name].build(GAMES[name].Config(networks=NETWORKS), (4,)).eval()
    export(tmp_path, name, game, (4,))
    loaded, shape = load_game(tmp_path, GAMES)
    assert shape == (4,)
    assert loaded.config == game.config
    assert not loaded.training
    noise = torch.randn(5, 3)
    assert torch.equal(loaded.sample(noise), game.sample(noise))


def test_potgan_takes_the_encoder_of_an_exported_vae(tmp_path):
    vae = Vae.build(Vae.Config(NETWORKS), (4,))
    export(tmp_path, "vae", vae, (4,))
    game = PotGan.build(PotGan.Config(NETWORKS, encoder=str(tmp_path)), (4,))
    x = torch.randn(6, 4)
    assert torch.equal(game.encoder(x), vae.vae.encoder(x))
    assert game.players["forest"].dim == 3
    with pytest.raises(ValueError, match=r"PotGan: encoder must take samples of \[5\], got .* for \[4\]"):
        PotGan.build(PotGan.Config(NETWORKS, encoder=str(tmp_path)), (5,))


def test_a_bad_export_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"load_game: .* must be the directory of an export"):
        load_game(tmp_path / "none", GAMES)
    export(tmp_path, "vae", Vae.build(Vae.Config(NETWORKS), (4,)), (4,))
    with pytest.raises(ValueError, match="must hold one of potgan, got 'vae'"):
        load_game(tmp_path, {"potgan": PotGan})
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match=r"load_game: .* cannot be read"):
        load_game(tmp_path, GAMES)


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"PotGanConfig: has no field forest\.branches"):
        from_dict(PotGan.Config, {"forest": {"branches": 3}})


def test_the_command_line_reaches_nested_fields():
    config = tyro.cli(PotGan.Config, args=["--forest.trees", "4", "--pairing", "literal", "--networks.width", "9"])
    assert config == PotGan.Config(NetworkConfig(width=9), pairing="literal", forest=ForestConfig(trees=4))
