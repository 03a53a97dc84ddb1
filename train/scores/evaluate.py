"""``python -m train evaluate``: scores of a run, an export or files of images against real images."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import torch
import tyro
from torch import Tensor

from models.config import check_fields, from_dict
from models.processes import here
from train.cli import parse_fields
from train.data.config import DISTRIBUTIONS, DataConfig, DataName, load_images, split_name
from train.errors import printable
from train.provenance import describe
from train.report.names import better, is_error, title
from train.report.record import read_record
from train.run.config import torch_device
from train.run.directory import CHECKPOINTS, RUN_FILE
from train.run.files import write_json
from train.run.launch import in_turn, launched
from train.samples.draw import batches
from train.samples.source import Weights, check_counts, load_trained
from train.scores.config import ExtractorName, ScoreConfig
from train.scores.extractors import load_extractor
from train.scores.image_files import read_files, read_npz
from train.scores.images import DRAW, Scorer, to_uint8
from train.scores.progress import shown

SAMPLES = 10_000  # of a run or an export


@dataclass(frozen=True)
class EvaluateConfig:
    """Score the images of SAMPLES against real ones; print the scores, and write them with their protocol as JSON."""

    samples: Annotated[str, tyro.conf.Positional] = ""
    """A run directory or an export, which is sampled; or a folder, tar or zip of images, or an npz (arr_0, uint8
    [N, H, W, C])."""
    against: str = ""
    """The real images: a data set's name, or a folder, archive or npz. A run is scored against its own data by default.
    """
    path: str | None = None
    """Where the data set of that name is (None: for a run's own data where they were)."""
    subset: str | None = None
    """As data.subset: train or test, or a folder's name (None: for a run's own data the split that it was trained on).
    """
    extractor: ExtractorName = "inception"
    """inception: FID and inception score as published; dinov2: FD-DINOv2; efficientnet-lite2: needs no download."""
    weights: str | None = None
    """A file with the extractor's weights (None: the published ones)."""
    n: int | None = None
    """Generated images that are scored (None: all files, or 10,000 samples of a run)."""
    reference: int | None = None
    """Real images, evenly spaced over the set (None: all)."""
    batch_size: int = 64
    """Images that pass through the extractor at once on a GPU."""
    snapshot: Weights = "last"
    """Of a run. last: its averaged export or newest checkpoint; best: the snapshot with the best Frechet distance;
    raw: without the average."""
    seed: int = 0
    """Of a run's samples."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads (None: all cores)."""
    cache: str | None = None
    """Where decoded images and statistics of real ones are kept (None: for a run's own data where the run kept them,
    else otkernels in the user's cache folder)."""
    out: str | None = None
    """The JSON file (None: scores-EXTRACTOR.json in the run or export, NAME.scores-EXTRACTOR.json beside files)."""

    def __post_init__(self) -> None:
        check_fields(self, "evaluate")
        check_counts(self, "evaluate", "batch_size", *(() if self.n is None else ("n",)))
        if self.extractor == "none":
            raise ValueError("evaluate: extractor must be one, got none")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"evaluate: threads must be at least 1, got {self.threads}")


@dataclass(frozen=True)
class Subject:
    """What is scored: n images of ``shape``, uint8, in ``batches`` of DRAW; ema: as Scorer has it."""

    label: str
    n: int
    shape: tuple[int, ...]
    batches: Iterable[Tensor]
    ema: float | None


def evaluate_main(argv: Sequence[str]) -> None:
    """Score what ``argv`` names; ValueError in one line, before the long part, for what cannot be scored."""
    config = parse_fields(EvaluateConfig, EvaluateConfig(), argv, "python -m train evaluate")
    with launched(config.device):
        _evaluate(config, argv)


def _evaluate(config: EvaluateConfig, argv: Sequence[str]) -> None:
    start = time.perf_counter()
    if not config.samples:
        raise ValueError("evaluate: of what? give a run, an export, a folder, an archive or an npz")
    path = Path(config.samples)
    if not path.exists():
        raise ValueError(f"evaluate: there is no {printable(config.samples)}")
    device, out = torch_device(config.device), _out(config, path)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    extractor = load_extractor(config.extractor, config.weights, device, config.batch_size)
    subject = _trained(config, path, device) if _is_trained(path) else _files(config, path)
    scores = ScoreConfig(config.extractor, n=subject.n, reference=config.reference)
    real, data, split, cache = _real(config, path, subject)
    subject = _as_real(subject, real)
    with in_turn():
        scorer = Scorer(
            scores, real, data=data, split=split, ema=subject.ema, device=device, cache=cache, extractor=extractor
        )
    found = scorer.score(shown(subject.batches, -(-subject.n // DRAW), "samples"))
    if not here().first:
        return
    protocol, seconds = scorer.protocol, time.perf_counter() - start
    against = printable(config.against or data)
    print(f"{subject.n:,} images of {subject.label} against {protocol['reference']:,} of {against}")
    print("\n".join(table(found, protocol)))
    command = shlex.join(["python", "-m", "train", "evaluate", *argv])
    provenance = {**describe(command, "train", "models"), "seconds": round(seconds, 1)}
    write_json(out, {"samples": subject.label, "scores": found, "protocol": protocol, "provenance": provenance})
    print(f"scores and protocol in {printable(str(out))}", flush=True)


def table(scores: Mapping[str, float], protocol: Mapping[str, Any]) -> list[str]:
    """A line a score: its name, the figure with its standard error if it has one, and which way is better."""
    names = [name for name in scores if not is_error(name, scores)]
    titles = {name: title(name, protocol) for name in names}
    width = max(map(len, titles.values()))
    lines = []
    for name in names:
        error = scores.get(f"{name}_error")
        figure = f"{scores[name]:.4g}" + ("" if error is None else f" +- {error:.2g}")
        lines.append(f"  {titles[name]:<{width}}  {figure:<20} {better(name)}")
    return lines


def _is_trained(path: Path) -> bool:
    """Whether ``path`` is a run directory or an export, and no folder of images."""
    return (path / RUN_FILE).is_file()


def _out(config: EvaluateConfig, path: Path) -> Path:
    """The JSON file, whose folder must exist before hours of work go into it."""
    snapshot = "" if config.snapshot == "last" else f"-{config.snapshot}"
    name = f"scores-{config.extractor}{snapshot}.json"
    if config.out is not None:
        out = Path(config.out)
    else:
        out = path / name if _is_trained(path) else path.absolute().with_name(f"{path.absolute().name}.{name}")
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(
            f"evaluate: out: {printable(str(out))} cannot be written; --out names a file in another folder"
        )
    return out


def _trained(config: EvaluateConfig, path: Path, device: torch.device) -> Subject:
    trained = load_trained(path, config.snapshot)
    if len(trained.shape) != 3:
        raise ValueError(f"evaluate: {trained.name} makes points here, and extractors take images")
    game, n = trained.game.to(device), SAMPLES if config.n is None else config.n
    drawn = (to_uint8(batch) for batch in batches(game, n, config.seed, DRAW))
    return Subject(f"{trained}, seed {config.seed}", n, trained.shape, drawn, trained.ema)


def _files(config: EvaluateConfig, path: Path) -> Subject:
    if config.snapshot != "last":
        raise ValueError(f"evaluate: snapshot {config.snapshot} is of a run, but {printable(str(path))} is none")
    images = read_files(path, config.n)
    return Subject(printable(str(path)), len(images), tuple(images.shape[1:]), images.split(DRAW), None)


def _real(config: EvaluateConfig, path: Path, subject: Subject) -> tuple[Tensor, str, str | None, str | None]:
    """The real images in the subject's size, the name of their set, their split, and the folder of their cache."""
    size, against = subject.shape[-1], config.against
    if not against:
        described = read_record(path, "evaluate").config.get("data") if (path / CHECKPOINTS).is_dir() else None
        if described is None:
            raise ValueError("evaluate: against what? --against names a data set, a folder, an archive or an npz")
        data = from_dict(DataConfig, described)
        place, subset = config.path or data.path, config.subset or data.subset
        data = replace(data, path=place, subset=subset, cache=config.cache or data.cache)
    elif against.lower().endswith(".npz"):
        _refuse(config, "path", "subset")
        return read_npz(Path(against)), Path(against).name, None, config.cache
    else:
        known = against in get_args(DataName)
        if not known:
            _refuse(config, "path")
        name = cast(DataName, against) if known else "folder"
        place = config.path if known else against
        data = DataConfig(name=name, path=place, size=size, subset=config.subset, cache=config.cache)
    if data.name in DISTRIBUTIONS:
        raise ValueError(f"evaluate: {data.name} has points, and extractors take images")
    with in_turn():
        return load_images(data), data.name, split_name(data), data.cache


def _refuse(config: EvaluateConfig, *names: str) -> None:
    """ValueError if an option is given that means nothing for what --against names."""
    for name in names:
        if getattr(config, name) is not None:
            raise ValueError(f"evaluate: {name} is of a data set, and --against {printable(config.against)} is a file")


def _as_real(subject: Subject, real: Tensor) -> Subject:
    """The subject with as many channels as the real images: grey samples in a file of colours become one, and the
    reverse. ValueError for images of another size."""
    channels, (height, width), (real_height, real_width) = real.shape[1], subject.shape[1:], real.shape[2:]
    if (height, width) != (real_height, real_width):
        raise ValueError(
            f"evaluate: the samples are {width} x {height} pixels, the real images {real_width} x {real_height}"
        )
    if subject.shape[0] == channels:
        return subject
    turned = (_grey(batch) if channels == 1 else batch.expand(-1, 3, -1, -1) for batch in subject.batches)
    return replace(subject, shape=(channels, *subject.shape[1:]), batches=turned)


def _grey(batch: Tensor) -> Tensor:
    if not (batch == batch[:, :1]).all():
        raise ValueError("evaluate: the samples have colours, but the real images are grey")
    return batch[:, :1]
