"""What a run shows of its samples: pictures, metrics of the toy sets, loss curves, an export and a report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from models.export import save_game
from train.data.datasets import Dataset
from train.errors import TrainingError, printable
from train.report.page import number, write_report
from train.run.directory import EXPORT, REPORT
from train.run.files import write_atomically
from train.run.log import METRICS, RunLog
from train.run.loop import Loop

GRID = 64
POINTS = 10_000
REBUILT, COLUMNS = 32, 8


class Outputs:
    """Pictures and figures of what ``loop`` samples; the noise behind them is the same at every step.

    data: what the run is trained on. directory: the run's. label: the name of the game in the registry.
    """

    def __init__(self, loop: Loop, data: Dataset, directory: Path, label: str) -> None:
        self._loop, self._data, self._directory, self._label = loop, data, directory, label

    def at_interval(self, log: RunLog) -> None:
        """A picture samples/<step>.png and, for points, a row of metrics unless the log has it."""
        self._show(log, self._interval_picture())

    def make_up(self, log: RunLog) -> None:
        """What ``at_interval`` would have made where the loop stands after a resume, if it is missing.

        A run that is killed between a checkpoint and its picture has neither the picture, or a part of it, nor the row.
        """
        measured = self._data.target is None or log.has_metrics(self._loop.step)
        if not measured or not _is_picture(self._interval_picture()):
            self.at_interval(log)

    def final(self, log: RunLog, seconds: float) -> dict[str, float]:
        """samples.png, losses.png, the export and report.html, for images that are rebuilt reconstructions.png too.

        seconds: of training. Returns the final metrics.
        """
        from train.report import plots  # matplotlib is slow to import

        loop, directory = self._loop, self._directory
        pictures = {"Samples": directory / "samples.png", "Losses": directory / "losses.png"}
        metrics = self._show(log, pictures["Samples"])
        plots.loss_curves(directory / METRICS, pictures["Losses"])
        try:
            with loop.sampling() as game:
                save_game(directory / EXPORT, self._label, game, self._data.shape, write_atomically)
        except ValueError as error:
            raise TrainingError(printable(str(error))) from error
        rebuilt = self.reconstructions()
        if rebuilt is not None:
            images, columns = rebuilt
            pictures["Reconstructions"] = directory / "reconstructions.png"
            plots.image_grid(images, pictures["Reconstructions"], columns=columns)
        write_report(
            directory / REPORT,
            title=f"{self._label} on {self._data.name}",
            config=dataclasses.asdict(loop.config),
            table={self._label: {"iterations": loop.step, "training seconds": seconds, **metrics}},
            pictures=pictures,
        )
        width = max(map(len, metrics), default=0)
        for name, value in metrics.items():
            log.say(f"  {name:<{width}}  {number(value)}")
        paths = {**{name.lower(): path for name, path in pictures.items()}, "report": directory / REPORT}
        column = max(map(len, paths))
        log.say("\n".join(f"{name:<{column}} {path}" for name, path in paths.items()))
        return metrics

    def samples(self, n: int) -> Tensor:
        """n samples [n, ...] of the averaged game, the same noise at each call; TrainingError if one is not finite."""
        samples = self._loop.samples(n)
        if not samples.isfinite().all():
            raise TrainingError(f"train: the samples at step {self._loop.step} are not finite")
        return samples

    def reconstructions(self) -> tuple[Tensor, int] | None:
        """Up to 32 images in whole rows, each row above what the game rebuilds of it, and their columns.

        None for points, and for a game that rebuilds nothing. TrainingError if a rebuilt image is not finite.
        """
        if len(self._data.shape) != 3:
            return None
        n = min(REBUILT, self._data.size or REBUILT)
        columns = min(COLUMNS, n)
        real = self._data.preview(n // columns * columns)
        with self._loop.sampling() as game:
            rebuilt = game.reconstruct(real)
        if rebuilt is None:
            return None
        if not rebuilt.isfinite().all():
            raise TrainingError(f"train: the reconstructions at step {self._loop.step} are not finite")
        rows = [part for pair in zip(real.split(columns), rebuilt.split(columns), strict=True) for part in pair]
        return torch.cat(rows), columns

    def _interval_picture(self) -> Path:
        return self._directory / "samples" / f"{self._loop.step:08d}.png"

    def _show(self, log: RunLog, path: Path) -> dict[str, float]:
        from train.report import plots
        from train.scores import toy

        path.parent.mkdir(parents=True, exist_ok=True)
        target, step = self._data.target, self._loop.step
        if target is None:
            plots.image_grid(self.samples(GRID), path)
            return {}
        samples = self.samples(POINTS)
        scatter = plots.scatter_ring if target.dim == 2 else plots.scatter_ball
        scatter(samples, target, path)
        values = toy.toy_metrics(samples, target)
        if not log.has_metrics(step):
            log.row(step, {f"metrics/{name}": value for name, value in values.items()})
        return values


def _is_picture(path: Path) -> bool:
    """Whether ``path`` is a PNG that can be read to its end."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
    except Exception:  # whatever a parser raises on damaged bytes, the picture is made again
        return False
    return True
