"""Tables and pictures of the toy table, from whatever cells are there."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from scipy.stats import chi2

from train.data.config import DISTRIBUTIONS
from train.report import plots
from train.report.page import flatten
from train.reproduce.cells import MAIN_ROWS, ROWS, SETTINGS
from train.reproduce.statistics import Summary, apart, pm, ratio, summarise
from train.run.files import write_atomically, write_json
from train.run.log import duration
from train.run.outputs import POINTS
from train.scores.toy import BANDWIDTH, reverse_kl_floor

TITLES = {"ring8": "8 Gaussians on a ring (2-D)", "ball3d": "Gaussian ball (3-D) from 2-D noise"}
Cells = dict[tuple[str, str, str], dict[str, Any]]


def read_cells(out: Path) -> Cells:
    """(target, setting, row) -> what the cell's file holds, in the order of the tables."""
    names = [(target, setting, row) for target in DISTRIBUTIONS for setting in SETTINGS for row in ROWS]
    paths = {name: out / "cells" / f"{'-'.join(name)}.json" for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def write(out: Path) -> list[Path]:
    """table1.json, table1.md, table1.png and a picture of samples per target and setting; the paths written."""
    cells = read_cells(out)
    pictures = {name: out / f"{'-'.join(name)}.png" for name in itertools.product(DISTRIBUTIONS, SETTINGS)}
    shown = {name: samples(cells, *name) for name in pictures}
    pictures = {name: path for name, path in pictures.items() if shown[name]}
    for name, path in pictures.items():
        plots.side_by_side(shown[name], DISTRIBUTIONS[name[0]](), path)
    plots.runs_by_row(panels(cells), out / "table1.png")
    write_json(out / "table1.json", {"cells": [summary(name, cell) for name, cell in cells.items()]})
    text = document(cells, {name: path.name for name, path in pictures.items()})
    write_atomically(out / "table1.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return [out / "table1.json", out / "table1.md", out / "table1.png", *pictures.values()]


def samples(cells: Cells, target: str, setting: str) -> dict[str, torch.Tensor]:
    """The paper's rows in one setting: label -> samples of one run [n, dim]."""
    found = {ROWS[row].label: cells.get((target, setting, row), {}).get("samples") for row in MAIN_ROWS}
    return {label: torch.tensor(points) for label, points in found.items() if points}


def figures(cell: Mapping[str, Any], name: str) -> Summary:
    """One metric over the runs of a cell."""
    return summarise([run and run[name] for run in cell["metrics"]])


def summary(name: tuple[str, str, str], cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell as table1.json has it."""
    kl = figures(cell, "reverse_kl")
    target, setting, row = name
    return {
        "target": target,
        "settings": setting,
        "row": row,
        "label": ROWS[row].label,
        "reverse_kl": [run and run["reverse_kl"] for run in cell["metrics"]],
        **{key: None if math.isnan(value) else value for key, value in kl._asdict().items()},
        "floor": floor(target, [cell]),
        "stated": ROWS[row].stated.get(target),
        "seeds": cell["seeds"],
        "seconds": cell["seconds"],
        "machine": cell["machine"],
    }


def floor(target: str, cells: Iterable[Mapping[str, Any]]) -> float:
    """Mean reverse KL of true samples over the runs of these cells; computed, if all of them diverged."""
    floors = [run["reverse_kl_floor"] for cell in cells for run in cell["metrics"] if run]
    return sum(floors) / len(floors) if floors else reverse_kl_floor(DISTRIBUTIONS[target](), POINTS)


def document(cells: Cells, pictures: Mapping[tuple[str, str], str]) -> str:
    """The Markdown page; pictures: (target, setting) -> file of samples."""
    parts = ["# The toy table: POT-GAN's Table 1, with every game of the two papers\n", _preamble(cells)]
    parts.append("![reverse KL of each run, by row](table1.png)\n")
    for target in DISTRIBUTIONS:
        here = {(setting, row): cell for (t, setting, row), cell in cells.items() if t == target}
        if here:
            parts += [f"## {TITLES[target]}\n", _table(target, here), *_verdicts(target, here)]
            parts += [
                f"Samples of one run each, {SETTINGS[setting][0]}:\n\n![samples by game]({name})\n"
                for (t, setting), name in pictures.items()
                if t == target
            ]
    parts += ["## Settings\n", *_settings(cells), "## Where and when\n", _provenance(cells)]
    return "\n".join(parts)


def _preamble(cells: Cells) -> str:
    counts = sorted({len(cell["seeds"]) for cell in cells.values()})
    runs = "one run, seed 0" if counts == [1] else f"{' or '.join(map(str, counts))} runs with seeds 0, 1, ..."
    return (
        f"Reverse KL in nats, KL(p_g * k_h || p_r * k_h) with a Gaussian kernel of bandwidth h = {BANDWIDTH} and "
        f"n = {POINTS:,} samples (the paper's Parzen window is not stated, so its figures are not on the same scale). "
        f"Mean and standard error of {runs}; runs that diverged are counted and left out. *floor*: what true samples "
        "score. *covered*: modes with at least a tenth of their due share of samples. *3 sigma*: share of samples "
        "within 3 sigma of a mode. *POT-GAN's stated settings* are those of its image experiments (rate, betas, batch, "
        "weights); networks, forest, critic steps and iterations are ours; 3P-WGAN has its own paper's rate and betas, "
        "first weights N(0, 0.02^2), and batch norm in the generator alone "
        "(docs/studies/settings.md, which also says how *our tuned settings* were found).\n"
    )


def _table(target: str, here: Mapping[tuple[str, str], Any]) -> str:
    settings = [setting for setting in SETTINGS if any(s == setting for s, _ in here)]
    head = ["", "Table 1 of the paper"]
    for setting in settings:
        head += [f"reverse KL, {SETTINGS[setting][0]}", "covered", "3 sigma"]
    lines = [head, ["---"] * len(head)]
    for row in ROWS:
        if any((setting, row) in here for setting in settings):
            stated = ROWS[row].stated.get(target)
            line = [ROWS[row].label, "" if stated is None else f"{stated:.4f}"]
            for setting in settings:
                line += _entries(here.get((setting, row)))
            lines.append(line)
    due = float(chi2.cdf(9, DISTRIBUTIONS[target]().dim))  # P(|x - mean| <= 3 sigma)
    last = ["*floor*", ""]
    for _ in settings:
        last += [f"{floor(target, here.values()):.4f}", "", f"{due:.3f}"]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, last]) + "\n"


def _entries(cell: Mapping[str, Any] | None) -> list[str]:
    if cell is None:
        return ["", "", ""]
    kl, modes, near = (figures(cell, name) for name in ("reverse_kl", "modes_covered", "within_3_sigma"))
    failed = f" ({kl.diverged} of {kl.runs + kl.diverged} diverged)" if kl.diverged else ""
    if not kl.runs:
        return ["diverged", "", ""]
    every = next(run["modes"] for run in cell["metrics"] if run)
    return [f"{measured(kl)}{failed}", f"{modes.mean:.3g} of {every}", f"{near.mean:.3f}"]


def measured(figure: Summary) -> str:
    """0.0563 ± 0.0031."""
    return f"{figure.mean:.4f} (one run)" if math.isnan(figure.error) else pm(figure.mean, figure.error)


def _verdicts(target: str, here: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    """What the table says about the paper's claim, about the forest and about the mover."""
    for setting, (title, _) in SETTINGS.items():
        for row, other, beside in (
            ("potgan", "wgan-gp", "each with its own settings"),
            ("potgan", "potgan-identity", "all else equal"),
            ("3p-wgan", "3p-wgan-identity", "all else equal"),
        ):
            pair = [here[setting, name] for name in (row, other) if (setting, name) in here]
            if len(pair) < 2:
                continue
            kl = [[run and run["reverse_kl"] for run in cell["metrics"]] for cell in pair]
            quotient, (one, two) = ratio(*kl), map(summarise, kl)
            if quotient is None:
                continue
            gone = one.diverged + two.diverged
            yield (
                f"* {title[0].upper()}{title[1:]}, {ROWS[row].label} against {ROWS[other].label}, {beside}: reverse KL "
                f"{quotient.value:.2f} times as large (geometric means; 95 % interval {quotient.low:.2f} to "
                f"{quotient.high:.2f}). The 95 % intervals of the means, [{one.low:.4f}, {one.high:.4f}] and "
                f"[{two.low:.4f}, {two.high:.4f}], {'do not overlap' if apart(one, two) else 'overlap'}"
                + (f"; {gone} runs diverged and are left out." if gone else ".")
                + f" True samples score {floor(target, pair):.4f}."
            )
    yield ""


def _settings(cells: Cells) -> Iterator[str]:
    """What every cell of a setting shares, then what each row has beside it."""
    for setting, (title, _) in SETTINGS.items():
        flat = {
            (target, row): {k: json.dumps(v) for k, v in flatten(cell["config"]) if not _ignored(k)}
            for (target, s, row), cell in cells.items()
            if s == setting
        }
        if not flat:
            continue
        common = set.intersection(*(set(values.items()) for values in flat.values()))
        yield f"{title[0].upper()}{title[1:]}. Every cell: {_list(sorted(common))}.\n"
        lines: dict[tuple[str, str], list[str]] = {}
        for (target, row), values in flat.items():
            first = next(name for name in ROWS if ROWS[name].game == ROWS[row].game)
            base = flat.get((target, first), {}).items() if first != row else common
            own = _list([pair for pair in values.items() if pair not in base])
            own = own if base is common or not base else f"as {ROWS[first].label}, but {own}"
            lines.setdefault((ROWS[row].label, own), []).append(target)
        for (label, own), targets in lines.items():
            yield f"* {label} ({', '.join(targets)}): {own or 'nothing else'}"
        yield ""


def _list(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name.removeprefix('game.')} {value}" for name, value in pairs)


_IGNORED = ("seed", "out", "threads", "log_every", "sample_every", "checkpoint_every", "keep", "game.encoder")


def _ignored(name: str) -> bool:
    """Whether a setting says nothing of the runs of a toy: where and how often, and those of images alone."""
    return name in _IGNORED or name.startswith(("data.", "scores."))


def _provenance(cells: Cells) -> str:
    """One line per distinct machine and version, with the commands, dates and time."""
    lines = []
    for facts in ("gpu", "cpu", "cores", "threads", "python", "torch", "numpy", "otkernels"):
        found = sorted({str(cell["machine"][facts]) for cell in cells.values() if facts in cell["machine"]})
        lines += [f"* {facts}: {', '.join(found)}"] if found else []
    dates = sorted(cell["machine"]["date"] for cell in cells.values())
    commits = sorted({cell["machine"]["commit"] for cell in cells.values()})
    commands = sorted({cell["machine"]["command"] for cell in cells.values()})
    seconds = sum(cell["seconds"]["training"] for cell in cells.values())
    loads = [cell["machine"]["load_before"] for cell in cells.values()]
    lines += [
        f"* commits: {', '.join(commits)}",
        f"* from {dates[0]} to {dates[-1]}",
        f"* training of all cells: {duration(seconds)}; load before it {min(loads)} to {max(loads)}",
        *(f"* `{command}`" for command in commands),
    ]
    return "\n".join(lines) + "\n"


def panels(cells: Cells) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Target -> row -> setting -> reverse KL of each run, as plots.runs_by_row takes it; rows as in the table."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (target, setting, row), cell in sorted(cells.items(), key=lambda item: list(ROWS).index(item[0][2])):
        values = [run["reverse_kl"] for run in cell["metrics"] if run]
        rows = found.setdefault(TITLES[target], {})
        rows.setdefault(ROWS[row].label, {})[SETTINGS[setting][0]] = values
    return found
