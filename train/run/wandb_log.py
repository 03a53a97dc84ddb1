"""Rows of a run for Weights & Biases, beside TensorBoard's, if a run asks for it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.run.files import write_atomically

NAME = "wandb_id"


def check_wandb(project: str | None) -> None:
    """ValueError if a project is named and the package is not there, before anything is trained."""
    if project is None:
        return
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise ValueError("train: wandb needs the package of that name: pip install wandb") from error


class Wandb:
    """The run of ``project`` that belongs to the run in ``directory``, whose file wandb_id names it; resumed with it.

    Rows of steps that the service has got before are passed over by it: a run that is killed and resumed plays them
    again, with the same values. Whether one is logged in, works offline and so on is wandb's own matter.
    """

    def __init__(self, project: str, directory: Path, config: Mapping[str, Any]) -> None:
        import wandb

        path = directory / NAME
        if not path.exists():
            write_atomically(path, lambda temporary: temporary.write_text(uuid.uuid4().hex[:16]))
        self._run = wandb.init(
            project=project,
            id=path.read_text().strip(),
            name=directory.name,
            resume="allow",
            dir=str(directory),
            config=dict(config),
        )

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name, at ``step``."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
