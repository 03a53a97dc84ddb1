"""``python -m train GAME ...``: play any game."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before PyTorch is imported
    from train.entry import run

    sys.exit(run("train.__main__", lambda module: module.main(sys.argv[1:])))

import importlib
from collections.abc import Sequence
from typing import get_args

from models.games import GAMES
from train.cli import play_game, summary
from train.data.config import DataName
from train.recipes import PROFILES

USAGE = """usage: python -m train GAME [--preset NAME | --resume DIR] [--FIELD VALUE ...]
       python -m train GAME --help    every field of a game, with its default
       python -m train list           games, presets and data sets"""
# What is not a game: the function that runs it, "module:function", called with the arguments after its name; its usage.
COMMANDS: dict[str, tuple[str, str]] = {
    "data": (
        "train.data.command:main",
        "data NAME --info   counts, sizes and a picture; data --cache   decoded images that are kept",
    ),
    "report": ("train.report.command:report_main", "report RUN ...   the page of a run, from its files"),
    "evaluate": (
        "train.scores.evaluate:evaluate_main",
        "evaluate SAMPLES --against DATA   scores of a run or of images against real ones",
    ),
    "compare": ("train.report.compare:compare_main", "compare RUN RUN ...   curves and a table of several runs"),
    "phases": ("train.run.shelf:phases_main", "phases   trained VAEs that are kept, and how to clear them"),
    "sample": ("train.samples.command:sample_main", "sample RUN --out DIR   samples of a run or an export, as files"),
    "interpolate": ("train.samples.interpolate:interpolate_main", "interpolate RUN --out FILE   between samples"),
    "completion": ("train.completion:completion_main", "completion bash|zsh   a script: eval it in your shell's start"),
}


def main(argv: Sequence[str]) -> None:
    """Run the command line ``argv``; ValueError for a wrong one."""
    if not argv:
        raise ValueError(f"train: which game? one of {', '.join(GAMES)}; see python -m train --help")
    name, rest = argv[0], argv[1:]
    if name in ("-h", "--help"):
        print("\n".join([USAGE, *(f"       python -m train {usage}" for _, usage in COMMANDS.values())]))
    elif name == "list":
        print("games")
        for game, kind in GAMES.items():
            print(f"  {game:<8} {summary(kind)}")
        print(f"presets\n  {', '.join(PROFILES)}\ndata sets\n  {', '.join(get_args(DataName))}")
    elif name in COMMANDS:
        module, function = COMMANDS[name][0].split(":")
        getattr(importlib.import_module(module), function)(rest)
    else:
        play_game(name, rest, f"python -m train {name}")
