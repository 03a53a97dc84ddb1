"""The cells of a table on images: a run of a row with one seed, in a folder of its own, and what is kept of it.

A cell is an ordinary run, started as a process of its own: whatever stops it, the same command goes on where it was.
What the tables are made of is kept apart from the runs, in one small file and one picture a cell.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from models.config import from_dict
from train.data.config import DataConfig
from train.errors import TrainingError
from train.provenance import moment
from train.recipes import PROFILES, merge, profile
from train.report.page import flatten
from train.report.pictures import by_step, chosen
from train.report.record import PAIRS, SCORES
from train.reproduce.image_plots import strips, top_rows
from train.reproduce.image_tables import ImageRow, ImageTable
from train.run.config import TrainConfig, save_config
from train.run.directory import RUN_FILE
from train.run.files import write_json
from train.scores.config import ScoreConfig

LOG = "cell.log"
CELL_FOLDER = "cells"
SHOWN_STEPS = 4  # of pictures along the training
PAIR_KINDS = {"moved": "what the mover makes of real images"}  # pictures of images above what a game makes of them
# Settings that say where or how fast, not what: a cell is the same whatever they are, and a run may go on with others.
_PLACES = ("device", "threads", "data.path", "data.cache", "data.download", "scores.weights", "scores.batch_size")
_FREE = ("out", "log_every", "keep", "checkpoint_every", *_PLACES)
# What all cells of a table have alike.
_SHARED = (
    *("iterations", "batch_size", "ema", "data.name", "data.size", "data.subset", "data.limit"),
    *("scores.extractor", "scores.n", "scores.reference"),
    *(f"game.networks.{name}" for name in ("name", "width", "depth", "noise_dim")),
)


@dataclass(frozen=True)
class ImagesConfig:
    """A paper's table on images: cell by cell, each row with the same data, networks, budget, seeds and scores."""

    preset: str = "cifar10"
    """The recipe's profile that gives data, networks, budget and rates. Rows with stated settings take PRESET-paper and
    are left out where there is none."""
    data: DataConfig = field(default_factory=DataConfig)
    """What to train on; the reference of the scores, too."""
    scores: ScoreConfig = field(default_factory=ScoreConfig)
    """How samples are scored, along the training and at its end."""
    iterations: int | None = None
    """Iterations of every cell (default: the preset's)."""
    seeds: int = 3
    """Seeds 0, 1, ... of the main rows."""
    other_seeds: int = 1
    """Seeds of the other rows."""
    rows: tuple[str, ...] = ()
    """Some of the table's rows (default: all)."""
    jobs: int = 1
    """Cells that are trained at the same time."""
    threads: int | None = None
    """CPU threads of a cell (default: cores divided by jobs)."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    plan: bool = False
    """Only print the plan of what is missing: cells, hours and disk, from a short timing on this machine. Without this
    the plan is printed, too, and then the cells are trained."""
    runs: str = "runs/images"
    """Where the cells' runs are."""
    out: str = "results/images"
    """Where what is kept of the cells, the tables and the pictures go."""

    def __post_init__(self) -> None:
        for name in ("iterations", "seeds", "other_seeds", "jobs", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"reproduce: {name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Cell:
    """One run of a table."""

    row: str
    seed: int
    game: str
    config: TrainConfig

    @property
    def name(self) -> str:
        """Of its run's folder and of its files."""
        return f"{self.row}-{self.seed}"


def cells(table: ImageTable, config: ImagesConfig) -> Iterator[Cell]:
    """Every cell of the table: first seed 0 of all rows in their order, then seed 1 of the rows that have it, ...

    A row whose settings are those of an earlier one is left out; so is one whose profile does not exist.
    """
    unknown = [row for row in config.rows if row not in table.rows]
    if unknown:
        raise ValueError(f"reproduce: rows must be of {', '.join(table.rows)}, got {', '.join(unknown)}")
    chosen: dict[str, TrainConfig] = {}
    for name, row in table.rows.items():
        if config.preset + row.variant in PROFILES:
            settings = row_config(row, config)
            if settings not in chosen.values() and (not config.rows or name in config.rows):
                chosen[name] = settings
    for seed in range(max(config.seeds, config.other_seeds)):
        for name, settings in chosen.items():
            if seed < (config.seeds if name in table.main else config.other_seeds):
                own = replace(settings, seed=seed, out=str(Path(config.runs) / f"{name}-{seed}"))
                yield Cell(name, seed, table.rows[name].game, own)


def row_config(row: ImageRow, config: ImagesConfig) -> TrainConfig:
    """The run of a row, but for its seed and folder: the game's profile, what sets the row apart, what all share."""
    base = profile(row.game, config.preset + row.variant)
    shared = {
        "data": dataclasses.asdict(config.data),
        "scores": dataclasses.asdict(config.scores),
        "iterations": config.iterations or base.iterations,
        "threads": config.threads,
        "device": config.device,
    }
    return from_dict(type(base), merge(merge(dataclasses.asdict(base), row.changes), shared))


def kept_file(out: Path, cell: Cell) -> Path:
    """What is kept of a cell."""
    return out / CELL_FOLDER / f"{cell.name}.json"


def is_kept(out: Path, cell: Cell, fingerprint: str) -> bool:
    """Whether the cell's file is there; ValueError if it is of other settings or of other images.

    fingerprint: of the images that the table is about.
    """
    path = kept_file(out, cell)
    if not path.exists():
        return False
    kept = json.loads(path.read_text(encoding="utf-8"))
    check_same_settings(path, plain(from_dict(type(cell.config), kept["config"])), plain(cell.config))
    check_same_images(path, kept["protocol"], fingerprint)
    return True


def check_run(cell: Cell) -> bool:
    """Whether the cell's run has begun; ValueError if it has other settings."""
    folder = Path(cell.config.out or "")
    if not (folder / RUN_FILE).exists():
        return False
    stored = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["config"]
    check_same_settings(folder, plain(from_dict(type(cell.config), stored)), plain(cell.config))
    return True


def check_same_images(path: Path, protocol: Mapping[str, Any], fingerprint: str) -> None:
    """ValueError unless scores of ``protocol`` are of the images with that fingerprint."""
    if protocol["fingerprint"] != fingerprint:
        raise ValueError(f"reproduce: {path} is of other images; remove it or choose another folder")


def check_same_settings(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """ValueError, naming what differs, unless both are the same settings."""
    other = ", ".join(f"{name} {theirs.get(name)}" for name in ours if ours[name] != theirs.get(name))
    if other:
        raise ValueError(f"reproduce: {path} is of other settings ({other}); remove it or choose another folder")


def check_together(cells: Sequence[Mapping[str, Any]]) -> None:
    """ValueError, naming two cells and what differs, unless all may stand in one table.

    cells: "row", "seed" and "config", as they are kept. Budget, networks, data and scores must be the same in all, and
    every setting but the seed in those of one row.
    """
    firsts: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        theirs, row = dict(flatten(cell["config"])), firsts.setdefault(cell["row"], cell)
        for other, names in ((cells[0], set(_SHARED)), (row, theirs.keys() - {"seed", *_FREE})):
            ours = dict(flatten(other["config"]))
            for name in sorted(names & ours.keys() & theirs.keys()):  # a setting that came later is in newer ones alone
                if ours[name] != theirs[name]:
                    one, two = f"{other['row']}-{other['seed']}", f"{cell['row']}-{cell['seed']}"
                    raise ValueError(
                        f"reproduce: {one} has {name} {ours[name]}, {two} {theirs[name]}: they cannot stand in one "
                        "table; remove one or choose another folder"
                    )


def plain(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a cell is, as JSON gives them back: dotted name -> value."""
    values = dict(flatten(json.loads(json.dumps(dataclasses.asdict(config)))))
    return {name: value for name, value in values.items() if name not in _FREE}


def train(cell: Cell, run: Callable[[Sequence[str], IO[str]], int]) -> dict[str, str]:
    """Play the cell's run to its end, from wherever it stands; TrainingError with its last line if it fails.

    run: runs a command with its output to a file, and returns its exit status. Returns the date at which the cell began
    and the commit of the code then: each cell imports what it finds.
    """
    folder, began = Path(cell.config.out or ""), moment("models", "train")
    if not check_run(cell):
        save_config(folder, cell.game, cell.config)
    command = [sys.executable, "-m", "train", cell.game, "--resume", str(folder), *places(cell.config)]
    with (folder / LOG).open("a", encoding="utf-8") as log:
        status = run(command, log)
    if status != 0:
        lines = (folder / LOG).read_text(encoding="utf-8").strip().splitlines() or ["nothing was printed"]
        raise TrainingError(f"reproduce: {cell.name} ended with status {status}: {lines[-1]} (see {folder / LOG})")
    return began


def places(config: TrainConfig) -> list[str]:
    """The words of a command line that say where a run finds things and on what it runs, which may have changed."""
    values = dict(flatten(dataclasses.asdict(config)))
    given = [(name, values[name]) for name in _PLACES if values[name] is not None and values[name] is not False]
    return [word for name, value in given for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])]


def keep(out: Path, cell: Cell, label: str, machine: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Write what the tables need of a finished run: settings, scores along the training, seconds; a picture.

    ValueError if it was trained on other images than those with the fingerprint.
    """
    folder = Path(cell.config.out or "")
    scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    check_same_images(folder, scores["protocol"], fingerprint)
    kept = {
        "label": label,
        "row": cell.row,
        "seed": cell.seed,
        "config": without_places(cell.config),
        "scores": scores["rows"],
        "protocol": scores["protocol"],
        "seconds": scores["rows"][-1]["seconds"],
        "machine": dict(machine),
    }
    path = kept_file(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    if cell.seed == 0:
        top_rows(folder / "samples.png", path.with_suffix(".png"))
        for pairs in filter(Path.is_dir, (folder / PAIRS / kind for kind in PAIR_KINDS)):
            steps = by_step(pairs)
            shown = {f"iteration {step:,}": steps[step] for step in chosen(list(steps), SHOWN_STEPS)}
            strips({**shown, "the end": folder / f"{pairs.name}.png"}, pairs_picture(out, cell.row, pairs.name), rows=2)
    write_json(path, kept)
    return kept


def pairs_picture(out: Path, row: str, name: str) -> Path:
    """The kept picture of what the row's game makes of images, along the training of seed 0."""
    return out / CELL_FOLDER / f"{row}-{name}.png"


def without_places(config: TrainConfig) -> dict[str, Any]:
    """The settings as JSON gives them back, without paths, which mean nothing elsewhere; the data's last name stays."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(replace(config, out=None))))
    values["data"] |= {"path": config.data.path and Path(config.data.path).name, "cache": None}
    values["scores"]["weights"] = None
    return values


def read_kept(out: Path, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Row -> what is kept of its cells, by seed, in the order of ``names``; rows without any are left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        paths = [path for path in (out / CELL_FOLDER).glob(f"{name}-*.json") if path.stem[len(name) + 1 :].isdecimal()]
        cells = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        if cells:
            found[name] = sorted(cells, key=lambda cell: cell["seed"])
    return found
