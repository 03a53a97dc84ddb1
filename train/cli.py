"""The command line: configuration by tyro, and one clear line for every error."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro

from models.games import GAMES
from train.entry import INTERRUPTED
from train.errors import TRAINING_ERROR, USER_ERROR, Stopped, TrainingError, printable, resource_message
from train.recipes import profile, profiles
from train.run.config import TrainConfig, load_config, run_config
from train.run.directory import RUN_FILE
from train.run.dry_run import dry_run
from train.run.launch import decided, launched, may_restart, restarted
from train.run.play import play
from train.run.resume import Resume, check_code

C = TypeVar("C")
DRY_RUN = "--dry-run"


def play_game(game: str, argv: Sequence[str], prog: str) -> None:
    """Play ``game`` as the command line ``argv`` says; ValueError for a wrong one."""
    config, resume = parse(game, [word for word in argv if word != DRY_RUN], prog)
    if DRY_RUN in argv:
        if resume is not None:
            raise ValueError(f"train: {DRY_RUN} describes a new run, and --resume continues one")
        print("\n".join(dry_run(game, config)), flush=True)
        return
    if resume is None and may_restart() and config.out is None:
        raise ValueError("train: torchrun --max-restarts needs a folder to come back to: add --out DIR")
    with launched(config.device):
        if resume is None and restarted() and decided((Path(config.out or "") / RUN_FILE).exists()):
            resume = _resume(game, Path(config.out or ""), argv, False)
            config = replace(resume.stored, out=config.out)
        play(game, config, resume, prog)


def parse(game: str, argv: Sequence[str], prog: str) -> tuple[TrainConfig, Resume | None]:
    """The configuration that ``argv`` describes, and the run to continue, if any.

    It starts from the class's defaults, a profile (--preset) or the run (--resume); each field can be overridden.
    """
    kind = run_config(game)
    if not argv:
        raise ValueError(f"train: no settings given: begin with --preset {'|'.join(profiles(game))}, or see --help")
    first = _Parser(add_help=False, allow_abbrev=False)
    source = first.add_mutually_exclusive_group()
    source.add_argument("--preset")
    source.add_argument("--resume", metavar="DIR")
    first.add_argument("--other-data", action="store_true")
    chosen, rest = first.parse_known_args(list(argv))
    if chosen.resume is None:
        if chosen.other_data:
            raise ValueError("train: --other-data goes with --resume")
        default = kind() if chosen.preset is None else profile(game, chosen.preset)
        return parse_fields(kind, default, rest, prog, about(game)), None
    if not chosen.resume:
        raise ValueError("train: --resume needs the folder of a run, got an empty name")
    resume = _resume(game, Path(chosen.resume), rest, chosen.other_data)
    default = replace(resume.stored, out=chosen.resume)
    config = parse_fields(kind, default, rest, prog, about(game))
    if config.out != default.out:
        raise ValueError("train: out cannot change when a run is resumed")
    return config, resume


def _resume(game: str, directory: Path, argv: Sequence[str], other_data: bool) -> Resume:
    stored = load_config(directory, game, run_config(game))
    check_code(directory, stored.game, argv)
    return Resume(directory, stored, other_data)


def about(game: str) -> str:
    """What a game is, which settings of a run its paper states, and what stands beside the fields, for --help."""
    kind = GAMES[game]
    stated = ", ".join(f"{name} {value}" for name, value in kind.defaults.items())
    own = f"Stated by its paper: {stated}; other" if stated else "The"
    return "\n".join(
        [
            f"{summary(kind)} Optimizer: {kind.optimizer.__name__}. {own} rates and batch are POT-GAN's.",
            "[stated]: a field's default is the value in the paper. [open]: the paper gives none; the default is ours.",
            f"--preset NAME starts from named settings: {', '.join(profiles(game))}.",
            "--resume DIR continues the run in DIR with its settings. It keeps its folder, its seed, its data and what "
            "its networks are made of; other fields may be given anew. --other-data, beside it: go on with other data "
            "than the run was trained on, such as a folder that has grown.",
            "--dry-run builds all of it, plays three iterations, says what the run would do, and writes nothing.",
        ]
    )


def summary(kind: type) -> str:
    """The first line of a docstring."""
    return (kind.__doc__ or "").strip().splitlines()[0]


def guarded(main: Callable[[], None]) -> int:
    """Run ``main``; what goes wrong becomes one line on stderr and an exit status.

    2: a wrong setting, path or file; 1: training failed, or disk or memory ran out; 128 + n: signal n.
    """
    try:
        main()
    except Stopped as stop:
        return stop.status
    except KeyboardInterrupt:
        print(f"\n{INTERRUPTED}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except TrainingError as error:
        return _fail(str(error), TRAINING_ERROR)
    except Exception as error:
        exhausted = resource_message(error)
        if exhausted is not None:
            return _fail(f"train: {exhausted}", TRAINING_ERROR)
        if isinstance(error, ValueError | OSError):
            return _fail(str(error), USER_ERROR)
        raise
    return 0


def _fail(message: str, status: int) -> int:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"train: {message}")


def parse_fields(kind: type[C], default: C, argv: Sequence[str], prog: str, description: str | None = None) -> C:
    """``default`` with the fields that ``argv`` sets; ValueError in one line for a wrong field or value."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, default=default, args=argv, prog=prog, description=description)
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        message = one_line(complaint.getvalue())  # a config's own complaint says whose it is
        raise ValueError(message if re.match(r"[a-z0-9]+: ", message) else f"train: {message}") from None


def one_line(box: str) -> str:
    """The message in tyro's framed error, with its first suggestion; the frame is drawn in Unicode or in ASCII."""
    blocks: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│ ")
        if text and set(text) <= {"─", "-"}:
            blocks.append([])
        elif text and not text.startswith(("╭", "╰")):
            blocks[-1].append(text)
    if "╭" not in box and len(blocks) > 1:
        del blocks[0]  # in ASCII the title is a block of its own
    message = re.sub(r"^Error parsing [\w.]+: ", "", " ".join(blocks[0]))
    for heading, *suggestions in filter(None, blocks[1:]):
        if heading.startswith("Perhaps you meant") and suggestions:
            return f"{message}; did you mean {suggestions[0].split()[0]}?"
    return message
