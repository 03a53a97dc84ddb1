"""What ends a run early, and the exit status that each ending has."""

from __future__ import annotations

import signal

USER_ERROR = 2
TRAINING_ERROR = 1


class TrainingError(RuntimeError):
    """Training cannot go on: a loss, a parameter or a sample is NaN or infinite. Exit status 1."""


class Stopped(Exception):  # noqa: N818 - no error
    """A signal asked the run to end, and it was saved. Exit status 128 + signal number, as a shell has it."""

    def __init__(self, number: int, step: int, directory: str) -> None:
        super().__init__(f"{signal.Signals(number).name} at step {step}: saved in {directory}")
        self.status = 128 + number
