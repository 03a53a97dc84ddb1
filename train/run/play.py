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
from train.run.wandb_log import check_wandb


def play(name: str, config: TrainConfig, resume: Resume | None, prog: str) -> tuple[Trainer, dict[str, float]]:
    """Play the game ``name``: its trainer and the final metrics, none if the run had ended before.

    prog: the command that continues the run with --resume.
    """
    check_wandb(config.wandb)
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
        if not begin(trainer, config, resume):
            return trainer, {}
        metrics = trainer.run(command)
        print("\n".join(["next:", *next_steps(trainer, command)]), flush=True)
        return trainer, metrics


def next_steps(trainer: Trainer, resume_command: str) -> list[str]:
    """Commands that a person may type when a run has ended, each with what it does."""
    run, images = shlex.quote(str(trainer.directory)), len(trainer.source.data.shape) == 3
    commands = {f"python -m train sample {run} --out samples.npz": "samples as a file for other programs"}
    if images:
        commands[f"python -m train interpolate {run} --out between.png"] = "images between samples"
        commands[f"python -m train evaluate {run}"] = "FID and other scores against the training images"
    commands[f"python -m train compare {run} OTHER"] = "curves and a table beside another run"
    commands[f"{resume_command} --iterations {2 * trainer.config.iterations}"] = "train as long again"
    width = max(map(len, commands))
    return [f"  {command:<{width}}  {what}" for command, what in commands.items()]


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
