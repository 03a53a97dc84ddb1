"""The completion script in bash: what it offers for some command lines."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from models.games import GAMES
from train.__main__ import COMMANDS, main
from train.cli import guarded, parse
from train.completion import options, script
from train.run.config import run_config

BASH = shutil.which("bash")


def offered(*words: str) -> list[str]:
    """What bash offers for the last of the words."""
    line = "COMP_WORDS=(" + " ".join(f"'{word}'" for word in words) + f"); COMP_CWORD={len(words) - 1}"
    shown = 'printf "%s\\n" "${COMPREPLY[@]}"'
    found = subprocess.run(
        [BASH or "", "-c", f"{script()}\n{line}\n_otkernels_train\n{shown}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return found.stdout.split()


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_games_fields_and_values_are_offered():
    assert set(offered("python", "-m", "train", "")) == {*GAMES, "list", *COMMANDS}
    assert offered("python", "-m", "train", "potgan", "--pre") == ["--preset", "--precision"]
    assert offered("python", "-m", "train", "potgan", "--preset", "ball") == ["ball3d", "ball3d-paper"]
    assert offered("python", "-m", "train", "potgan", "--game.pairing", "s") == ["sinkhorn"]
    assert "--game.forest.trees" in offered("python", "-m", "train", "potgan", "--game.forest.")
    assert "--game.forest.trees" not in offered("python", "-m", "train", "gan", "--game.")
    assert offered("python", "-m", "pip", "ins") == []


@pytest.mark.parametrize("game", GAMES)
def test_every_option_is_one_that_the_command_line_takes(game):
    for name, values in options(run_config(game)):
        for value in values:
            parse(game, ["--preset", "ring8", name, value], "train")
        if (not values and ".no-" in name) or name.startswith("--no-"):
            parse(game, ["--preset", "ring8", name], "train")


def test_another_shell_is_refused(capsys):
    assert guarded(lambda: main(["completion", "fish"])) == 2
    assert "completion: of which shell? one of bash, zsh, got fish" in capsys.readouterr().err
    assert guarded(lambda: main(["completion", "zsh"])) == 0
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit && bashcompinit\n_otkernels_train")
