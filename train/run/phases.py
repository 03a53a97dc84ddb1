"""The games that are trained before a run's own, as it declares (``Game.phases``), each in a folder of its name.

A phase is handed to the run's game as an object; its export is there for a resumed run, and for other programs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from models.config import fixed_fields
from models.export import load_game
from models.games import GAMES, Game
from models.processes import here
from train.data.datasets import Dataset
from train.errors import printable
from train.run.build import load_run, make_trainer, open_run
from train.run.checkpoint import checkpoints, valid_states
from train.run.config import TrainConfig, load_config, phase_as_run, run_config, save_config
from train.run.directory import CHECKPOINTS, EXPORT, RUN_FILE, locked
from train.run.launch import decided, wait
from train.run.outputs import are_final
from train.run.resume import Resume
from train.run.shelf import ORIGIN, Shelf, shelf
from train.run.trainer import Trainer


def play_phases(
    name: str, config: TrainConfig, data: Dataset, directory: Path, resume: Resume | None, resume_command: str
) -> dict[str, Game]:
    """Train each phase that the game ``name`` needs, unless it is done; the games by phase. ``data`` does not move.

    A phase is needed if its game says so and its iterations are not 0. It is taken from the cache folder if it is kept
    there (``train.run.shelf``).
    """
    played = {}
    for phase, declared in GAMES[name].phases.items():
        if getattr(config, phase).iterations == 0 or not declared.needed(config.game, data.shape):
            continue
        game = registered(declared.game)
        folder, settings = directory / phase, phase_as_run(config, phase, game)
        if settings.threads is None and (folder / RUN_FILE).exists():  # this machine may have other cores
            settings = replace(settings, threads=load_config(folder, game, run_config(game)).threads)
        own = data.with_seed(settings.seed)
        past = None
        if resume is not None:
            past = Resume(folder, phase_as_run(resume.stored, phase, game), resume.other_data)
        if decided(_is_done(directory, phase)):
            if past is not None and not checkpoints(directory / CHECKPOINTS):  # else the game's own state is asked
                _check_data(folder, own, past.other_data)
            played[phase] = _exported(folder / EXPORT, game, data.shape)
            continue
        trainer = make_trainer(game, settings, own, folder)
        kept = shelf(game, trainer, config.data.cache) if getattr(config, phase).reuse else None
        new = decided(not checkpoints(folder / CHECKPOINTS))
        if resume is None:
            open_run(directory, name, config)  # before the phase's folder: the run could not be resumed without
        alone = kept is None or not new or not here().first
        with nullcontext() if kept is None or alone else kept.taken(phase):
            if kept is not None and new and decided(here().first and kept.holds()):
                open_run(directory, name, config)
                if here().first:
                    _take(kept, folder)
                wait()
                print(f"{phase}: it was trained before; taken from {printable(str(kept.path))}", flush=True)
                played[phase] = _exported(folder / EXPORT, game, data.shape)
                continue
            with _own(folder):  # it is a run of its own to python -m train GAME --resume
                load_run(trainer, past, f"{phase}.")
                open_run(directory, name, config)
                if here().first:
                    save_config(folder, game, trainer.config)
                _train(trainer, kept, resume_command)
        played[phase] = trainer.loop.game
        played[phase].zero_grad(set_to_none=True)  # else the last step's gradients stay in memory
    return played


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """The phase's folder, made and locked within the block by the first process."""
    if not here().first:
        yield
        return
    folder.mkdir(exist_ok=True)
    with locked(folder):
        yield


def _train(trainer: Trainer, kept: Shelf | None, command: str) -> None:
    """Train to the end and put a copy on the shelf; a training that changed on its way has no place there."""
    folder = trainer.directory
    if not here().first:
        trainer.run(command)
        return
    if kept is None:
        (folder / ORIGIN).unlink(missing_ok=True)
    elif trainer.loop.step == 0:
        kept.begin(folder)
    else:
        kept.go_on(folder)
    trainer.run(command)
    if kept is not None:
        kept.keep(folder)


def _take(kept: Shelf, folder: Path) -> None:
    """A copy in ``folder``, which may have been left by a process that ended before its first checkpoint."""
    if folder.exists():
        with locked(folder):
            shutil.rmtree(folder)
    kept.copy_to(folder)


def fixed_by_phases(name: str, config: TrainConfig, directory: Path) -> Iterator[str]:
    """Settings of phases that cannot change any more in the run ``directory``: all of them once a phase is done."""
    for phase in GAMES[name].phases:
        if _is_done(directory, phase) or checkpoints(directory / CHECKPOINTS):
            yield phase
        else:
            if checkpoints(directory / phase / CHECKPOINTS):
                yield f"{phase}.seed"
            yield from (f"{phase}.game.{field}" for field in fixed_fields(getattr(config, phase).game))


def registered(kind: type[Game]) -> str:
    """The name of a class of games in the registry."""
    return next(name for name, known in GAMES.items() if known is kind)


def _exported(folder: Path, game: str, shape: tuple[int, ...]) -> Game:
    """A phase's game from its export; ValueError unless it is for samples of ``shape``."""
    loaded, theirs = load_game(folder, {game: GAMES[game]})
    if theirs != tuple(shape):
        raise ValueError(f"resume: {folder} is for samples of {list(theirs)}, the data have {list(shape)}")
    return loaded


def _is_done(directory: Path, phase: str) -> bool:
    """Whether a phase has its export, in which config.json is written last, and the outputs that come after it.

    These are not asked for if the run itself has begun, or if there is no checkpoint that they could be made from.
    """
    folder = directory / phase
    if not (folder / EXPORT / "config.json").exists():
        return False
    begun = bool(checkpoints(directory / CHECKPOINTS))
    return begun or not checkpoints(folder / CHECKPOINTS) or are_final(folder)


def _check_data(folder: Path, data: Dataset, other_data: bool) -> None:
    """ValueError if ``data`` are not those that the finished phase in ``folder`` was trained on, unless allowed."""
    for _, state in valid_states(folder / CHECKPOINTS, lambda text: print(f"warning: {text}", flush=True)):
        data.load_state_dict(state["data"], allow_other=other_data)
        return
