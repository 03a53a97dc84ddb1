"""Configurations: checked where they are made, the same after a trip to disk, buildable under every profile."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from models.games import GAMES
from models.games.potgan import PotGanConfig
from train.recipes import profile, profiles
from train.run.config import TrainConfig, load_config, phase_as_run, run_config, save_config, torch_device


@pytest.mark.parametrize(("game", "name"), [(game, name) for game in GAMES for name in profiles(game)])
def test_every_profile_survives_the_disk_and_builds_its_game(tmp_path, game, name):
    config = profile(game, name)
    save_config(tmp_path, game, config)
    assert load_config(tmp_path, game, run_config(game)) == config
    shape = {"ring8": (2,), "ball3d": (3,), "digits": (1, 32, 32), "fashion-mnist": (1, 32, 32)}
    if config.data.name in shape:  # the paper-sized networks of the others take seconds
        GAMES[game].build(config.game, shape[config.data.name])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("betas", (0.5, 1.0)),
        ("lr_decay", "exponential"),
        ("lr_warmup", -1),
        ("ema", 1.0),
        ("seed", -1),
        ("device", "cuda:x"),
        ("log_every", 0),
        ("keep", 0),
    ],
)
def test_a_wrong_value_names_its_field(field, value):
    with pytest.raises(ValueError, match=rf"^train: {field} must .*, got "):
        TrainConfig(**{field: value})


def test_a_device_that_is_not_there_is_an_error():
    assert torch_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device cuda:99 is not available"):
        torch_device("cuda:99")


def test_a_run_of_another_game_or_a_damaged_file_is_an_error(tmp_path):
    save_config(tmp_path, "vae", run_config("vae")())
    with pytest.raises(ValueError, match="is a run of vae, not of wgan-gp"):
        load_config(tmp_path, "wgan-gp", run_config("wgan-gp"))
    (tmp_path / "config.json").write_text('{"game": "vae"')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_config(tmp_path, "vae", run_config("vae"))
    with pytest.raises(ValueError, match="is no run directory"):
        load_config(tmp_path / "missing", "vae", run_config("vae"))


def test_the_vae_phase_shares_the_runs_data_and_seed_and_has_its_own_rates():
    config = run_config("potgan")(seed=7, lr=1e-3, ema=0.9, log_every=3)
    config = replace(config, vae=replace(config.vae, iterations=11, lr=5e-4))
    phase = phase_as_run(config, "vae", "vae")
    assert (phase.seed, phase.log_every, phase.iterations, phase.lr, phase.ema) == (7, 3, 11, 5e-4, 0.0)
    assert phase.data == config.data
    assert isinstance(phase, run_config("vae"))


def test_the_papers_settings_are_the_defaults():
    config = run_config("potgan")()
    assert (config.batch_size, config.lr, config.betas, config.iterations) == (64, 2e-4, (0.5, 0.9), 100_000)
    assert dataclasses.asdict(config.game)["transport_weight"] == 0.01
    assert config.game == PotGanConfig()
    assert config.vae.game.networks.noise_dim == 128
