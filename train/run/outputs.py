"""What a run shows of its samples: pictures, metrics of the toy sets, loss curves, an export and a report."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from models.export import save_game
from train.data.datasets import Dataset, ImageSet
from train.errors import TrainingError, printable
from train.report.page import number
from train.report.record import FIGURES, PAIRS, read_record
from train.report.run_page import write_run_report
from train.run.checkpoint import checkpoints
from train.run.directory import CHECKPOINTS, EXPORT, REPORT
from train.run.files import write_atomically, write_json
from train.run.log import METRICS, RunLog
from train.run.loop import Loop

if TYPE_CHECKING:
    from train.scores.images import Scorer

GRID = 64
POINTS = 10_000
PAIRED, COLUMNS = 32, 8
BETWEEN = 8  # rows of interpolations
CHECKED = 256  # samples whose nearest training image is looked for
REPORT_SECONDS = 300.0  # between reports while a run goes on; one takes two seconds of a core


class Outputs:
    """Pictures and figures of what ``loop`` samples; the noise behind them is the same at every step.

    data: what the run is trained on. directory: the run's. label: the name of the game in the registry. scorer: where
    the run has scores, for training images that are nearest in features.
    """

    def __init__(self, loop: Loop, data: Dataset, directory: Path, label: str, scorer: Scorer | None = None) -> None:
        self._loop, self._data, self._directory, self._label = loop, data, directory, label
        self._scorer = scorer
        self._reported = time.monotonic()

    def at_interval(self, log: RunLog) -> None:
        """Pictures samples/<step>.png and pictures/NAME/<step>.png; for points, a row of metrics unless the log has it.

        From time to time also the report of the run so far.
        """
        path = self._interval_picture()
        for name, grid in self.pairs().items():
            self._draw(grid, self._directory / PAIRS / name / path.name)
        self._show(log, path)
        if time.monotonic() - self._reported > REPORT_SECONDS:
            self._report()
            self._reported = time.monotonic()

    def make_up(self, log: RunLog) -> None:
        """What ``at_interval`` would have made where the loop stands after a resume, if it is missing.

        A run that is killed between a checkpoint and its picture has neither the picture, or a part of it, nor the row.
        """
        measured = self._data.target is None or log.has(self._loop.step, "metrics")
        if not measured or not _is_picture(self._interval_picture()):
            self.at_interval(log)

    def final(self, log: RunLog, seconds: float) -> dict[str, float]:
        """samples.png, losses.png, the export and report.html; for images also pairs and nearest training images.

        seconds: of training. Returns the final metrics.
        """
        from train.report import plots  # matplotlib is slow to import

        loop, directory = self._loop, self._directory
        pictures = {"Samples": directory / "samples.png", "Losses": directory / "losses.png"}
        metrics = self._show(log, pictures["Samples"])
        plots.loss_curves(directory / METRICS, pictures["Losses"])
        self.export(directory / EXPORT)
        pairs = self.pairs()
        for name, grid in pairs.items():
            pictures[name.capitalize()] = directory / f"{name}.png"
            self._draw(grid, pictures[name.capitalize()])
        if len(self._data.shape) == 3:
            pictures["Interpolations"] = directory / "interpolations.png"
            self._draw(self.interpolations(), pictures["Interpolations"])
        found = {"step": loop.step, "seconds": seconds, "metrics": metrics, "pairs": list(pairs)}
        write_json(directory / FIGURES, {**found, "neighbours": self._neighbours()})
        report = self._report()
        width = max(map(len, metrics), default=0)
        for name, value in metrics.items():
            log.say(f"  {name:<{width}}  {number(value)}")
        paths = {**{name.lower(): path for name, path in pictures.items()}, "report": report}
        column = max(map(len, paths))
        log.say("\n".join(f"{name:<{column}} {path}" for name, path in paths.items()))
        return metrics

    def export(self, directory: Path) -> None:
        """The averaged game as it is now, as an export; TrainingError, and no file, if a weight is not finite."""
        training = {"step": self._loop.step, "ema": self._loop.config.ema}
        try:
            with self._loop.sampling() as game:
                save_game(directory, self._label, game, self._data.shape, write_atomically, training)
        except ValueError as error:
            raise TrainingError(printable(str(error))) from error

    def samples(self, n: int) -> Tensor:
        """n samples [n, ...] of the averaged game, the same noise at each call; TrainingError if one is not finite."""
        samples = self._loop.samples(n)
        self._check_finite("samples", samples)
        return samples

    def pairs(self) -> dict[str, tuple[Tensor, int]]:
        """The game's pictures in pairs, by name: up to 32 pairs, in rows of the first above rows of the second.

        Each with its number of columns. Empty for points. TrainingError if an image is not finite.
        """
        if len(self._data.shape) != 3:
            return {}
        n = min(PAIRED, self._data.size or PAIRED)
        columns = min(COLUMNS, n)
        n = n // columns * columns
        with self._loop.sampling() as game:
            pairs = game.pictures(self._data.preview(n), self._loop.source.fixed_noise(n))
        grids = {}
        for name, (first, second) in pairs.items():
            self._check_finite(name, first, second)
            rows = [row for pair in zip(first.split(columns), second.split(columns), strict=True) for row in pair]
            grids[name] = torch.cat(rows), columns
        return grids

    def _report(self) -> Path:
        described = {"game": self._label, "config": dataclasses.asdict(self._loop.config)}
        return write_run_report(read_record(self._directory, "report", described))

    def interpolations(self) -> tuple[Tensor, int]:
        """Images between samples in rows, as ``python -m train interpolate`` makes them, and their columns."""
        from train.samples.interpolate import interpolations  # needs the command line, which needs this module

        try:
            with self._loop.sampling() as game:
                images = interpolations(game, BETWEEN, COLUMNS, self._loop.config.seed)
        except ValueError as error:
            raise TrainingError(printable(str(error))) from error
        return images.flatten(0, 1), COLUMNS

    def _check_finite(self, name: str, *images: Tensor) -> None:
        if not all(part.isfinite().all() for part in images):
            raise TrainingError(f"train: the {name} at step {self._loop.step} are not finite")

    def _draw(self, grid: tuple[Tensor, int], path: Path) -> None:
        from train.report import plots

        path.parent.mkdir(parents=True, exist_ok=True)
        plots.image_grid(grid[0], path, columns=grid[1])

    def _neighbours(self) -> dict[str, Any]:
        """The training images nearest to samples, for images."""
        from train.report.figures import nearest_training_images
        from train.scores.images import to_uint8

        if not isinstance(self._data, ImageSet):
            return {}
        return nearest_training_images(
            to_uint8(self.samples(CHECKED)), self._data.images, self._directory, self._scorer
        )

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
        if not log.has(step, "metrics"):
            log.row(step, {f"metrics/{name}": value for name, value in values.items()})
        return values


def are_final(directory: Path) -> bool:
    """Whether ``Outputs.final``, whose last two files are these, came to its end after the newest checkpoint."""
    last = [directory / FIGURES, directory / REPORT]
    saved = checkpoints(directory / CHECKPOINTS)[:1]
    if not saved or not all(path.exists() for path in last):
        return False
    return min(path.stat().st_mtime_ns for path in last) >= saved[0].stat().st_mtime_ns


def _is_picture(path: Path) -> bool:
    """Whether ``path`` is a PNG that can be read to its end."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
    except Exception:  # whatever a parser raises on damaged bytes, the picture is made again
        return False
    return True
