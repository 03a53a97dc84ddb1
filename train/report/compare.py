"""``python -m train compare RUN RUN ...``: curves and a table of several runs, where they may be compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from train.cli import parse_fields
from train.errors import printable
from train.report import curves, names
from train.report.compare_scores import scores_table
from train.report.curves import Chart, Line
from train.report.page import flatten
from train.report.record import Record, read_record
from train.run.resume import DATA_FIXED, within
from train.scores.protocol import check_same

# Settings in which repeated runs may differ: they change neither what is learned nor how it is measured. (What scores
# depend on is their protocol.)
FREE = (
    "seed", "out", "threads", "wandb", "cuda_graphs", "log_every", "sample_every", "checkpoint_every", "keep", "scores",
    "data.path", "data.cache", "data.download",
)  # fmt: skip
MOST_NAMED = 3  # settings in a group's name


@dataclass(frozen=True)
class CompareConfig:
    """Overlay runs, with a table of means and standard errors over seeds; or print a table of what evaluate wrote.

    Of runs it writes compare.html, compare.md and compare.png. Runs that differ by their seed alone are one curve.
    Unlike data and scores of unlike protocols are refused.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run directories, or JSON files of scores that evaluate wrote."""
    out: Path = Path("runs/comparison")
    """The folder that the files are written to; those of an earlier comparison are replaced."""


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone. rows: the figures of each, by step, as ``Record.measured`` has them."""

    label: str
    runs: Sequence[Record]
    rows: Sequence[Mapping[int, Mapping[str, Any]]]

    def steps(self, name: str) -> list[int]:
        """The steps at which every run has a finite figure of that name."""
        found = [{step for step, row in rows.items() if row.get(name) is not None} for rows in self.rows]
        return sorted(set.intersection(*found))

    def at(self, step: int, name: str) -> tuple[float, float | None]:
        """Mean over the runs, and its standard error if there are several."""
        values = [rows[step][name] for rows in self.rows]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return statistics.fmean(values), error


def compare_main(argv: Sequence[str]) -> None:
    """Compare the runs of a command line; ValueError in one line for what cannot be compared."""
    from train.report.compare_outputs import write_comparison  # matplotlib is slow to import

    chosen = parse_fields(CompareConfig, CompareConfig(), argv, "python -m train compare")
    if len(chosen.runs) < 2:
        raise ValueError(f"compare: two runs or more are needed, got {len(chosen.runs)}")
    files = [path for path in chosen.runs if path.suffix == ".json"]
    if len(files) == len(chosen.runs):
        print(scores_table(files))
        return
    if files:
        raise ValueError(f"compare: runs or files of scores, not both: {printable(str(files[0]))} is a file")
    groups = grouped([read_record(directory, "compare") for directory in chosen.runs])
    for path in write_comparison(groups, chosen.out):
        print(path, flush=True)


def grouped(runs: Sequence[Record]) -> list[Group]:
    """The runs in groups that differ by their seed alone; ValueError unless all may be compared."""
    _check_data(runs)
    rows = {id(run): {row["step"]: row for row in run.measured()} for run in runs}
    for run in runs:
        if not rows[id(run)]:
            raise ValueError(f"compare: {_name(run)} has no scores, and no figures of points")
    shown = [_name(run) for run in runs]
    check_same([_protocol(run, rows[id(run)]) for run in runs], shown)
    by_settings: dict[str, list[Record]] = {}
    for run in runs:
        by_settings.setdefault(repr((run.game, sorted(settings(run).items()))), []).append(run)
    kinds = list(by_settings.values())
    for kind in kinds:
        _check_seeds(kind)
    labels = _labels([kind[0] for kind in kinds])
    made = [Group(label, kind, [rows[id(run)] for run in kind]) for label, kind in zip(labels, kinds, strict=True)]
    for group in made:
        if not any(group.steps(name) for name in figures(made)):
            raise ValueError(f"compare: the runs of {group.label} have no iteration with figures in common")
    return made


def settings(run: Record) -> dict[str, Any]:
    """What tells a run from its repetitions: dotted name -> value, as text."""
    return {name: str(value) for name, value in flatten(run.config) if not _free(name)}


def _free(name: str) -> bool:
    return within(name, FREE) or name.endswith(".reuse")  # of a phase: whether it may be taken from an earlier run


def figures(groups: Sequence[Group]) -> list[str]:
    """The names of the figures that at least one group has, in the order in which they are shown."""
    return names.varying([row for group in groups for rows in group.rows for row in rows.values()])


def last_step(group: Group, shown: Sequence[str]) -> int:
    """The last iteration at which every run of the group has its figures."""
    return max(step for name in shown for step in group.steps(name))


def charts(groups: Sequence[Group], protocol: Mapping[str, Any]) -> list[Chart]:
    """A chart of each figure with a line for each group: means over its runs, within one standard error."""
    made = []
    for name in figures(groups):
        lines = []
        for colour, group in enumerate(groups):
            steps = group.steps(name)
            if not steps:
                continue
            points = [group.at(step, name) for step in steps]
            seconds = [statistics.fmean(rows[step]["seconds"] for rows in group.rows) for step in steps]
            several = len(group.runs) > 1
            low = [mean - error for mean, error in points if error is not None] if several else None
            high = [mean + error for mean, error in points if error is not None] if several else None
            x: dict[str, Sequence[float]] = {"step": steps, "seconds": seconds}
            lines.append(Line(group.label, x, [mean for mean, _ in points], low, high, colour))
        made.append(Chart(names.title(name, protocol), lines, curves.AXES, names.better(name)))
    return made


def _check_data(runs: Sequence[Record]) -> None:
    first = dict(flatten(runs[0].config))
    for run in runs[1:]:
        other = dict(flatten(run.config))
        for name in DATA_FIXED:
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"compare: {name} must be the same in all runs, got {first.get(name)} in {_name(runs[0])} and "
                    f"{other.get(name)} in {_name(run)}"
                )


def _check_seeds(runs: Sequence[Record]) -> None:
    """A run that is counted twice would make the standard error too small."""
    seen: dict[Any, Record] = {}
    for run in runs:
        other = seen.setdefault(run.config.get("seed"), run)
        if other is not run:
            raise ValueError(f"compare: {_name(other)} and {_name(run)} have the same settings and the same seed")


def _protocol(run: Record, rows: Mapping[int, Mapping[str, Any]]) -> Mapping[str, Any]:
    if run.scores:
        return run.protocol
    last = rows[max(rows)]
    return {name: last[name] for name in names.MEASURED if name in last}


def _labels(runs: Sequence[Record]) -> list[str]:
    """A name for each run that tells it from the others: its game, and the settings in which runs of it differ."""
    labels = []
    for run in runs:
        alike = [settings(other) for other in runs if other.game == run.game]
        own = settings(run)
        differ = [name for name in own if len({other.get(name) for other in alike}) > 1]
        if len(differ) > MOST_NAMED:
            labels.append(f"{run.game} ({run.directory.name})")
            continue
        told = ", ".join(f"{name.removeprefix('game.')} {own[name]}" for name in differ)
        labels.append(f"{run.game} ({told})" if told else run.game)
    doubled = {label for label in labels if labels.count(label) > 1}
    return [f"{la} ({r.directory})" if la in doubled else la for la, r in zip(labels, runs, strict=True)]


def _name(run: Record) -> str:
    return printable(str(run.directory))
