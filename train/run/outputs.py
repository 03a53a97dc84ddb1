"""What a run shows of its samples: pictures, metrics of the toy sets, loss curves, an export and a report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from train.errors import TrainingError
from train.report.page import number, write_report
from train.run.checkpoint import export
from train.run.directory import REPORT
from train.run.log import METRICS, RunLog

if TYPE_CHECKING:
    from train.run.trainer import Trainer

GRID = 64
POINTS = 10_000
EXPORT = "export"


class Outputs:
    """Pictures of one trainer's samples; the noise behind them is the same at every step."""

    def __init__(self, trainer: Trainer, directory: Path) -> None:
        self._trainer = trainer
        self._directory = directory

    def at_interval(self, log: RunLog) -> None:
        """A picture samples/<step>.png and, for points, a row of metrics unless the log has it."""
        self._show(log, self._interval_picture(self._trainer.step))

    def make_up(self, log: RunLog, step: int) -> None:
        """What ``at_interval`` would have made at ``step``, where the trainer stands after a resume, if it is missing.

        A run that is killed between a checkpoint and its picture has neither the picture, or a part of it, nor the row.
        """
        measured = self._trainer.data.target is None or log.has_metrics(step)
        if not measured or not _is_picture(self._interval_picture(step)):
            self.at_interval(log)

    def final(self, log: RunLog) -> dict[str, float]:
        """samples.png, losses.png, the export and report.html; the final metrics."""
        from train.report import plots  # matplotlib is slow to import

        trainer, directory = self._trainer, self._directory
        samples_path, losses_path = directory / "samples.png", directory / "losses.png"
        metrics = self._show(log, samples_path)
        plots.loss_curves(directory / METRICS, losses_path)
        with trainer.sampling() as game:
            export(directory / EXPORT, trainer.label, game, trainer.data.shape)
        write_report(
            directory / REPORT,
            title=f"{trainer.label} on {trainer.data.name}",
            config=dataclasses.asdict(trainer.config),
            table={trainer.label: {"iterations": trainer.step, "training seconds": trainer.seconds, **metrics}},
            pictures={"Samples": samples_path, "Losses": losses_path},
        )
        width = max(map(len, metrics), default=0)
        for name, value in metrics.items():
            log.say(f"  {name:<{width}}  {number(value)}")
        log.say(f"samples {samples_path}\nlosses  {losses_path}\nreport  {directory / REPORT}")
        return metrics

    def samples(self, n: int) -> Tensor:
        """n samples [n, ...] of the averaged game, the same noise at each call; TrainingError if one is not finite."""
        trainer = self._trainer
        generator = torch.Generator(trainer.device).manual_seed((trainer.config.seed + 1) % 2**64)
        with trainer.sampling() as game:
            samples = game.sample(game.draw_noise(n, generator))
        if not samples.isfinite().all():
            raise TrainingError(f"train: the samples at step {trainer.step} are not finite")
        return samples

    def _interval_picture(self, step: int) -> Path:
        return self._directory / "samples" / f"{step:08d}.png"

    def _show(self, log: RunLog, path: Path) -> dict[str, float]:
        from train.report import plots
        from train.scores import toy

        path.parent.mkdir(parents=True, exist_ok=True)
        target = self._trainer.data.target
        if target is None:
            plots.image_grid(self.samples(GRID), path)
            return {}
        samples = self.samples(POINTS)
        scatter = plots.scatter_ring if target.dim == 2 else plots.scatter_ball
        scatter(samples, target, path)
        values = toy.toy_metrics(samples, target)
        if not log.has_metrics(self._trainer.step):
            log.row(self._trainer.step, {f"metrics/{name}": value for name, value in values.items()})
        return values


def _is_picture(path: Path) -> bool:
    """Whether ``path`` is a PNG that can be read to its end."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
    except Exception:  # whatever a parser raises on damaged bytes, the picture is made again
        return False
    return True
