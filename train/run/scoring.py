"""Scores of a run's images along its training: scores.json, rows of the log, and a second export of the best."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from train.data.config import split_name
from train.data.datasets import Dataset, ImageSet
from train.errors import TrainingError
from train.report.record import SCORES
from train.run.config import TrainConfig, torch_device
from train.run.directory import BEST
from train.run.files import write_json
from train.run.log import RunLog, Unheard
from train.run.loop import Loop
from train.samples.draw import noise
from train.scores.images import Scorer, to_uint8
from train.scores.protocol import check_same


class Asked(Exception):  # noqa: N818 - it is no error
    """Someone asked the run to stop while samples were scored."""


def make_scorer(config: TrainConfig, data: Dataset) -> Scorer | None:
    """The scorer that ``config.scores`` asks for, None if it asks for none; made before anything is trained.

    ValueError in one line if the scores could not be computed: points instead of images, too few images, weights that
    are missing or damaged.
    """
    if config.scores.extractor == "none":
        return None
    if not isinstance(data, ImageSet):
        raise ValueError(f"scores: {data.name} has no images to score; toy sets have their own figures")
    return Scorer(
        config.scores,
        data.images,
        data=config.data.name,
        split=split_name(config.data),
        fingerprint=data.fingerprint,
        ema=config.ema,
        device=torch_device(config.device),
        cache=config.data.cache,
    )


class Scoring:
    """Scores what ``loop`` samples, the first samples of the run's seed as ``python -m train sample`` draws them;

    ``directory`` is the run's, ``export`` writes one.

    scores.json holds the protocol, a row of each scored step with the seconds of training until then, and which step
    the export of the lowest Frechet distance is of.
    """

    def __init__(self, scorer: Scorer, loop: Loop, directory: Path, export: Callable[[Path], None]) -> None:
        self._scorer, self._loop, self._directory, self._export = scorer, loop, directory, export
        self._rows: list[dict[str, Any]] = []
        self._best: int | None = None

    def resume(self, other_data: bool = False) -> None:
        """Take up the rows up to the loop's step; ValueError if they are of another protocol. Nothing is written.

        other_data: of other images than now, as the run allows; then its scores begin anew.
        """
        path = self._directory / SCORES
        if not path.exists():
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            protocol, rows, best = stored["protocol"], stored["rows"], stored["best"]
            kept = [row for row in rows if row["step"] <= self._loop.step]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"resume: {path} is damaged: {error}") from error
        if other_data and protocol["fingerprint"] != self._scorer.protocol["fingerprint"]:
            print("scores: those so far are of other images and do not compare; they begin anew", flush=True)
            return
        if not kept:
            return
        try:
            check_same([protocol, self._scorer.protocol], ["the run so far", "these settings"])
        except ValueError as error:
            raise ValueError(f"{error}; move {path} away to begin its scores anew") from error
        self._rows = kept
        self._best = best if any(row["step"] == best for row in kept) else None  # else the export is of a lost future

    def due(self) -> bool:
        """Whether the loop's step is to be scored, and has not been."""
        step, config = self._loop.step, self._loop.config
        every = config.scores.every
        scheduled = step == config.iterations or (every > 0 and step > 0 and step % every == 0)
        return scheduled and all(row["step"] != step for row in self._rows)

    def score(self, log: RunLog | Unheard, seconds: float, asked: Callable[[], bool]) -> None:
        """Score where the loop stands, and keep the export if it is the best so far.

        Of several processes each draws its part of the samples, and the first keeps the scores.

        seconds: of training until now. asked: whether to stop, looked at between batches: then Asked is raised, and the
        scores are made up for when the run is resumed.
        """
        loop, game = self._loop, self._loop.game

        def draw(start: int, stop: int) -> Tensor:
            if asked():
                raise Asked
            images = game.sample(noise(game, start, stop, loop.config.seed))
            if not images.isfinite().all():
                raise TrainingError(f"scores: samples at iteration {loop.step} hold NaN or infinite values")
            return to_uint8(images)

        log.say(f"scores at iteration {loop.step}: {loop.config.scores.n:,} samples")
        with loop.sampling():
            found = self._scorer.score(draw)
        self._rows.append({"step": loop.step, "seconds": round(seconds, 3), **found})
        if not isinstance(log, RunLog):
            return
        log.say("  " + ", ".join([f"{self._scorer.label} {found['fid']:.4g}", *_described(found)]))
        if self._best is None or found["fid"] < next(row["fid"] for row in self._rows if row["step"] == self._best):
            self._export(self._directory / BEST)
            self._best = loop.step
        if not log.has(loop.step, "scores"):
            log.row(loop.step, {f"scores/{name}": value for name, value in found.items()})
        stored = {"protocol": self._scorer.protocol, "rows": self._rows, "best": self._best}
        write_json(self._directory / SCORES, stored)


def _described(found: dict[str, float]) -> list[str]:
    names = ("inception_score", "precision", "recall", "coverage")
    return [f"{name.replace('_', ' ')} {found[name]:.3g}" for name in names if name in found]
