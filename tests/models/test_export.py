import dataclasses
import hashlib
import json
import random
import shutil
from typing import cast

import pytest
import torch
import tyro
from safetensors.torch import load_file, save_file

from models.config import from_dict
from models.export import load_game, save_game, write_and_rename
from models.games import GAMES, PotGan, VaeGame
from models.games.potgan import ForestConfig, PotGanConfig
from models.games.vae import VaeConfig
from models.networks import NetworkConfig

NETWORKS = NetworkConfig("mlp", width=8, noise_dim=3)


def export(directory, name, game, shape):
    save_file(game.state_dict(), directory / "model.safetensors")
    description = {"game": name, "config": dataclasses.asdict(game.config), "shape": list(shape)}
    (directory / "config.json").write_text(json.dumps(description))


def test_potgan_takes_the_encoder_of_an_exported_vae(tmp_path):
    vae = VaeGame.build(VaeGame.Config(NETWORKS), (4,))
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
    export(tmp_path, "vae", VaeGame.build(VaeGame.Config(NETWORKS), (4,)), (4,))
    with pytest.raises(ValueError, match="must hold one of potgan, got 'vae'"):
        load_game(tmp_path, {"potgan": PotGan})
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match=r"load_game: .* is damaged"):
        load_game(tmp_path, GAMES)


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"PotGanConfig: has no field forest\.branches"):
        from_dict(PotGan.Config, {"forest": {"branches": 3}})


def test_the_command_line_reaches_nested_fields():
    config = tyro.cli(PotGan.Config, args=["--forest.trees", "4", "--pairing", "literal", "--networks.width", "9"])
    assert config == PotGan.Config(NetworkConfig(width=9), pairing="literal", forest=ForestConfig(trees=4))


def exported(directory, name="wgan-gp", **options):
    """A small export, with the description to edit."""
    export(directory, name, GAMES[name].build(GAMES[name].Config(networks=NETWORKS, **options), (4,)), (4,))
    return json.loads((directory / "config.json").read_text())


def describe(directory, description):
    (directory / "config.json").write_text(json.dumps(description))


def refused(directory, match=""):
    with pytest.raises(ValueError, match=match) as caught:
        load_game(directory, GAMES)
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(directory)) + 400


def test_the_weights_are_those_that_were_hashed(tmp_path):
    description = exported(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    describe(tmp_path, {**description, "sha256": hashlib.sha256(content).hexdigest()})
    load_game(tmp_path, GAMES)
    flipped = bytearray(content)
    flipped[-2] ^= 1  # a well-formed file with another weight
    (tmp_path / "model.safetensors").write_bytes(flipped)
    refused(
        tmp_path, r"is damaged: model\.safetensors has the SHA-256 [0-9a-f]{64}, but config\.json says '[0-9a-f]{64}'"
    )
    for wrong in (5, "", ["x"], "z" * 10_000):
        describe(tmp_path, {**description, "sha256": wrong})
        refused(tmp_path, r"has the SHA-256")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    game = GAMES["wgan-gp"].build(GAMES["wgan-gp"].Config(networks=NETWORKS), (4,))
    with torch.no_grad():
        game.players["critic"][1][0].bias[3] = value
    export(tmp_path, "wgan-gp", game, (4,))
    refused(tmp_path, r"is damaged: players\.critic\.1\.0\.bias must be finite, got NaN or infinite weights")


def test_weights_of_another_kind_are_named(tmp_path):
    exported(tmp_path)
    good = load_file(tmp_path / "model.safetensors")
    name = "players.critic.1.0.bias"
    for weights, message in (
        ({**good, name: torch.zeros(9)}, rf"{name} must be torch.float32 \[8\], got torch.float32 \[9\]"),
        ({**good, name: torch.zeros(8, 1)}, rf"{name} must be torch.float32 \[8\], got torch.float32 \[8, 1\]"),
        ({**good, name: good[name].double()}, rf"{name} must be torch.float32 \[8\], got torch.float64"),
        ({**good, name: torch.zeros(8, dtype=torch.int64)}, rf"{name} must be torch.float32 \[8\], got torch.int64"),
        ({**good, "more": torch.zeros(1)}, r"model\.safetensors should not have more$"),
        ({key: value for key, value in good.items() if key != name}, rf"model\.safetensors lacks {name}$"),
        ({}, r"model\.safetensors lacks players\.critic.* and \d+ more$"),
    ):
        save_file(weights, tmp_path / "model.safetensors")
        refused(tmp_path, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [10**18]}, "shape must be"),
        ({"shape": [2**30]}, "must be torch.float32"),
        ({"shape": [4.0]}, "shape must be"),
        ({"shape": ["4"]}, "shape must be"),
        ({"shape": []}, "shape must be"),
        ({"shape": [1, 2]}, "shape must be"),
        ({"shape": [0]}, "shape must be"),
        ({"shape": 4}, "must have 'shape', a list, got 4"),
        ({"shape": {"0": 4}}, "must have 'shape', a list"),
        ({"game": 3}, "must have 'game', a str, got 3"),
        ({"game": ["vae"]}, "must have 'game', a str"),
        ({"game": "x\n\x1b[2J" * 999}, "must hold one of vae"),
        ({"config": None}, "must have 'config', a dict, got None"),
        ({"config": {"networks": {"name": "mlp", "width": 10**8}}}, "must be torch.float32"),
        ({"config": {"networks": {"name": "mlp", "width": 10**40}}}, "is damaged: "),
        ({"config": {"networks": {"name": "mlp", "depth": 10**9}}}, "networks.depth must be at most 1000"),
        ({"config": {"networks": {"name": "mlp", "width": 8.5}}}, "networks.width must be an integer, got 8.5"),
        ({"config": {"gradient_penalty_weight": float("nan")}}, "gradient_penalty_weight must be a finite number"),
        ({"config": {"networks": []}}, r"networks must be a mapping of names to values, got \[\]"),
        ({"parts": [1]}, r"must have 'parts', a dict, got \[1\]"),
    ],
)
def test_a_description_that_cannot_be_is_refused_before_anything_is_built(changes, message, tmp_path):
    """Whatever sizes it names: 10^16 numbers are never allocated."""
    describe(tmp_path, {**exported(tmp_path), **changes})
    refused(tmp_path, message)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "3",
        "null",
        '"x"',
        "[" * 100_000,
        '{"a":' * 100_000,
        "\x00",
        " " * 2**21,
        '{"game": ' + "9" * 5000,
    ],
    ids=["empty", "cut", "list", "number", "null", "text", "deep", "deep dict", "nul", "long", "digits"],
)
def test_a_description_that_is_no_json_mapping_is_refused(text, tmp_path):
    exported(tmp_path)
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "is damaged")


def test_a_description_in_another_encoding_is_refused(tmp_path):
    exported(tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"game": "\xff\xfe"}')
    refused(tmp_path, "is damaged")


def test_the_parts_of_potgan_are_checked(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "game").mkdir()
    exported(tmp_path / "vae", "vae")
    description = exported(tmp_path / "game", "potgan", encoder=str(tmp_path / "vae"))
    game, _ = load_game(tmp_path / "game", GAMES)  # without parts, as an old export: the VAE is read where it lay
    assert not any(tensor.is_meta for tensor in game.state_dict().values())
    for parts in ({"vae": 3}, {"vae": {"noise_scale": "x"}}, {"vae": {"networks": {"width": 9, "name": "mlp"}}}):
        describe(tmp_path / "game", {**description, "parts": parts})
        refused(tmp_path / "game", "is damaged")


def test_a_loaded_game_can_train_on(tmp_path):
    exported(tmp_path)
    game = load_game(tmp_path, GAMES)[0].train()
    for player in game.players:
        game.loss(player, torch.randn(8, 4), game.draw_noise(8)).value.backward()
    assert all(parameter.grad is not None for parameter in game.parameters())


def edited(value, draw):
    """A JSON value with one random change somewhere inside."""
    odd = [None, True, -1, 0, 1.5, 2**70, float("nan"), float("-inf"), "", "\x00", "x" * 300, [], {}, [[]], {"a": {}}]
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(sorted(value))
        changed = {**value, name: edited(value[name], draw)}
        if draw.random() < 0.1:
            del changed[name]
        return changed | ({f"f{draw.random()}": draw.choice(odd)} if draw.random() < 0.1 else {})
    if isinstance(value, list) and value and draw.random() < 0.5:
        return [edited(item, draw) if draw.random() < 0.5 else item for item in value]
    return draw.choice(odd)


@pytest.mark.parametrize("name", ["vae", "potgan", "sngan"])
def test_random_damage_is_refused_or_harmless(name, tmp_path):
    """Bytes of both files and values of the description, 60 times each: a game of finite weights, or ValueError."""
    description = exported(tmp_path, name)
    paths = [tmp_path / "model.safetensors", tmp_path / "config.json"]
    whole = [path.read_bytes() for path in paths]
    seed = torch.initial_seed()
    draw = random.Random(seed)
    for trial in range(180):
        for path, content in zip(paths, whole, strict=True):
            path.write_bytes(content)
        if trial % 3 == 2:
            describe(tmp_path, edited(description, draw))
        else:
            content = bytearray(whole[trial % 3])
            end = draw.choice([len(content), min(len(content), 600)])  # the head of safetensors is what is parsed
            for _ in range(draw.choice([1, 1, 3, 30])):
                content[draw.randrange(end)] = draw.randrange(256)
            cut = draw.randrange(len(content)) if draw.random() < 0.1 else len(content)
            paths[trial % 3].write_bytes(content[:cut])
        try:
            game, _ = load_game(tmp_path, GAMES)
        except ValueError as error:
            fine = str(tmp_path) in str(error) and "\n" not in str(error)
        else:
            fine = all(tensor.isfinite().all() for tensor in game.state_dict().values())
        assert fine, f"seed {seed}, trial {trial}"


@pytest.mark.parametrize("name", list(GAMES))
def test_an_export_loads_as_the_same_game(tmp_path, name):
    kind = GAMES[name].Config
    config = kind(networks=kind().networks.__class__(name="mlp", width=8, depth=1, noise_dim=2))
    torch.manual_seed(0)
    game = GAMES[name].build(config, (2,)).eval()
    save_game(tmp_path / name, name, game, (2,))
    loaded, shape = load_game(tmp_path / name, GAMES)
    assert (shape, loaded.config, loaded.training) == ((2,), config, False)
    noise = torch.randn(5, 2)
    assert torch.equal(loaded.sample(noise), game.sample(noise))


def test_an_export_with_an_encoder_loads_after_the_run_has_moved(tmp_path):
    small, large = NetworkConfig("mlp", width=8, noise_dim=2), NetworkConfig("mlp", width=4, depth=1, noise_dim=5)
    save_game(tmp_path / "run/vae", "vae", VaeGame.build(VaeConfig(large), (3,)), (3,))
    game = PotGan.build(PotGanConfig(small, encoder=str(tmp_path / "run/vae")), (3,)).eval()
    save_game(tmp_path / "run/export", "potgan", game, (3,))
    (tmp_path / "run/export").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    loaded, _ = load_game(tmp_path / "elsewhere", GAMES)
    x = torch.randn(4, 3)
    assert torch.equal(cast(PotGan, loaded).encoder(x), game.encoder(x))
    save_game(tmp_path / "again", "potgan", loaded, (3,))  # an export of an export is as complete
    assert (tmp_path / "again/config.json").read_text() == (tmp_path / "elsewhere/config.json").read_text()


def exported_game():
    torch.manual_seed(0)
    return VaeGame.build(VaeConfig(NetworkConfig("mlp", width=8, depth=1, noise_dim=2)), (2,))


def test_an_export_names_the_hash_of_its_weights(tmp_path):
    save_game(tmp_path, "vae", exported_game(), (2,))
    content = (tmp_path / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "config.json").read_text())["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_not_exported(tmp_path, value):
    save_game(tmp_path, "vae", exported_game(), (2,))
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    game = exported_game()
    with torch.no_grad():
        next(game.parameters())[0, 0] = value
    name = next(iter(game.state_dict()))
    with pytest.raises(ValueError, match=f"^export: {name} of vae are not finite; nothing was written$"):
        save_game(tmp_path, "vae", game, (2,))
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before


def test_an_export_that_is_interrupted_never_pairs_new_weights_with_an_old_description(tmp_path):
    save_game(tmp_path, "vae", exported_game(), (2,))
    before = (tmp_path / "model.safetensors").read_bytes()
    other = exported_game()
    with torch.no_grad():
        next(other.parameters()).mul_(2)

    def dies(path, write):
        if path.name == "config.json":
            raise KeyboardInterrupt
        write_and_rename(path, write)

    with pytest.raises(KeyboardInterrupt):
        save_game(tmp_path, "vae", other, (2,), dies)
    assert (tmp_path / "model.safetensors").read_bytes() != before
    assert not (tmp_path / "config.json").exists()


def test_a_game_read_from_its_export_rebuilds_no_images(tmp_path):
    """It has the encoder of the VAE that was handed to it, and no decoder."""
    shape = (1, 8, 8)
    vae = VaeGame.build(VaeConfig(NETWORKS), shape)
    game = PotGan.build_on(PotGanConfig(NETWORKS), shape, {"vae": vae})
    real = torch.rand(2, *shape)
    rebuilt = game.reconstruct(real)
    assert rebuilt is not None
    assert torch.equal(rebuilt, vae.reconstruct(real))
    save_game(tmp_path, "potgan", game, shape)
    loaded, _ = load_game(tmp_path, GAMES)
    assert loaded.reconstruct(real) is None
    assert loaded.parts() == game.parts()
    assert PotGan.build(PotGanConfig(NETWORKS), shape).reconstruct(real) is None


@pytest.mark.parametrize("parts", [{"gan": {}}, {"vae": 3}])
def test_parts_that_are_none_are_named(tmp_path, parts):
    save_game(tmp_path, "potgan", PotGan.build(PotGanConfig(NETWORKS), (4,)), (4,))
    description = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**description, "parts": parts}))
    with pytest.raises(
        ValueError, match=r"PotGan: parts must be of vae, got 'gan'|VaeConfig: a config must be a mapping"
    ):
        load_game(tmp_path, GAMES)
