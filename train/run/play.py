"""A whole run: its phases, then its game."""

from __future__ import annotations

import shlex
from dataclasses import replace

import torch

from train.run.build import load_data, load_run, make_trainer, open_run, run_directory
from train.run.config import TrainConfig
from train.run.launch import in_turn, wait
from train.run.phases import fixed_by_phases, play_phases
from train.run.resume import Resume, check_changes
from train.run.scoring import make_scorer
from train.run.trainer import Trainer


def play(name: str, config: TrainConfig, resume: Resume | None, prog: str) -> tuple[Trainer, dict[str, float]]:
    """Play the game ``name``: its trainer and the final metrics, none if the run had ended before.

    prog: the command that continues the run with --resume.
    """
    if resume is not None:
        check_changes(resume, config, fixed_by_phases(name, config, resume.directory))
    with run_directory(config, name, resume) as directory:
        wait()  # nothing changes on disk before all processes have looked at it
        data = load_data(config)
        command = f"{prog} --resume {shlex.quote(str(directory))}"
        if config.threads is not None:
            torch.set_num_threads(config.threads)  # the scorer's network has as many as there are when it is made
        with in_turn():  # the first computes the statistics of real images, for which the others look in the cache
            scorer = make_scorer(config, data)  # what it lacks is said before hours of a phase
        earlier = play_phases(name, config, data, directory, resume, command)
        trainer = make_trainer(name, config, data, directory, earlier, scorer)
        metrics = trainer.run(command) if begin(trainer, config, resume) else {}
        return trainer, metrics


def begin(trainer: Trainer, config: TrainConfig, resume: Resume | None) -> bool:
    """Load a resumed run, then write its config.json, with the number of threads; whether anything is left to do.

    Nothing on disk changes before the checkpoint is loaded, nor if the run has ended already.
    """
    load_run(trainer, resume)
    if resume is not None and trainer.ended():
        print(f"{trainer.label}: all {trainer.loop.step} iterations are done; --iterations N asks for more", flush=True)
        return False
    open_run(trainer.directory, trainer.label, replace(config, threads=trainer.config.threads))
    return True
