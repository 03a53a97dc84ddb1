"""One source of settings: the order in which they win, and nothing said twice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from models.games import GAMES
from train.cli import parse
from train.recipes import RECIPES, merge, profile, profiles
from train.recipes.common import SHARED
from train.run.config import run_config, save_config

TRAIN = Path(__file__).resolve().parents[3] / "train"


def test_the_later_wins_over_the_earlier(tmp_path):
    """Class, what a profile shares, the paper's own, the recipe, the resumed run, the command line."""
    assert run_config("3p-wgan")().iterations == 100_000
    chosen = profile("3p-wgan", "ring8")
    assert chosen.iterations == SHARED["ring8"]["iterations"] == 6000
    assert SHARED["ring8"]["betas"] == (0.5, 0.9)
    assert chosen.betas == GAMES["3p-wgan"].defaults["betas"] == (0.0, 0.9)
    assert (SHARED["ring8"]["lr"], chosen.lr) == (4e-3, RECIPES["3p-wgan"]["ring8"]["lr"])
    assert profile("wae-gan", "ring8").betas == (0.5, 0.9)  # the recipe over the paper's (0.5, 0.999)
    save_config(tmp_path, "3p-wgan", replace(chosen, lr=0.5, keep=7))
    config, resume = parse("3p-wgan", ["--resume", str(tmp_path), "--keep", "9"], "test")
    assert (config.lr, config.keep, config.iterations) == (0.5, 9, 6000)
    assert resume is not None


def test_networks_that_a_profile_shares_leave_the_games_own_choice():
    networks = profile("3p-wgan", "ring8").game.networks
    assert (networks.name, networks.width, networks.init) == ("mlp", 64, "normal")


@pytest.mark.parametrize("game", list(RECIPES))
def test_every_profile_of_a_recipe_can_be_asked_for_and_changes_something(game):
    for name in RECIPES[game]:
        assert name in profiles(game)
        shared = {key: value for key, value in RECIPES[game].items() if key != name}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(RECIPES, game, {**shared, name: {}})
            plain = profile(game, name)
        assert plain != profile(game, name)


def test_a_profile_that_a_game_does_not_have_is_named_with_those_it_has():
    assert "demo" in profiles("potgan")
    with pytest.raises(ValueError, match=r"^train: gan has no preset 'demo'; presets: ring8, .*, folder64$"):
        profile("gan", "demo")


def test_the_trainer_knows_no_game_by_name():
    """Games are named by their own modules, their recipes, the entry of one of them, and the papers' experiments."""
    names = {kind.__name__ for kind in GAMES.values()} | {f"{kind.__name__}Config" for kind in GAMES.values()}
    modules = {kind.__module__.rpartition(".")[2] for kind in GAMES.values()}
    word = re.compile(
        rf"""["']({"|".join(map(re.escape, GAMES))})["']|\b({"|".join(names)})\b|games\.({"|".join(modules)})\b"""
    )
    allowed = {TRAIN / "potgan.py", *(TRAIN / "recipes").glob("*.py"), *(TRAIN / "reproduce").glob("*.py")}
    files = set(TRAIN.rglob("*.py")) - allowed
    assert len(files) > 30
    found = {file.name: match[0] for file in files if (match := word.search(file.read_text(encoding="utf-8")))}
    assert not found


def test_merge_writes_over_nested_names_only():
    base = {"a": 1, "b": {"c": 2, "d": {"e": 3}}}
    assert merge(base, {"b": {"d": {"e": 4}}}) == {"a": 1, "b": {"c": 2, "d": {"e": 4}}}
    assert base["b"]["d"]["e"] == 3
