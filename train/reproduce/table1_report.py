"""Tables and pictures of the toy table, from whatever cells are there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from train import plots
from train.checkpoint import write_atomically, write_json
from train.data import TARGETS
from train.log import duration
from train.report import flatten
from train.reproduce.cells import MAIN_ROWS, ROWS, SETTINGS
from train.reproduce.statistics import Summary, apart, summarise

TITLES = {"ring8": "8 Gaussians on a ring (2-D)", "ball3d": "Gaussian ball (3-D) from 2-D noise"}
Cells = dict[tuple[str, str, str], dict[str, Any]]


def read_cells(out: Path) -> Cells:
    """(target, setting, row) -> what the cell's file holds, in the order of the tables."""
    names = [(target, setting, row) for target in TARGETS for setting in SETTINGS for row in ROWS]
    paths = {name: out / "cells" / f"{'-'.join(name)}.json" for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def write(out: Path) -> list[Path]:
    """table1.json, table1.md, table1.png and a picture of samples per target and setting; the paths written."""
    cells = read_cells(out)
    write_json(out / "table1.json", {"cells": [summary(name, cell) for name, cell in cells.items()]})
    text = document(cells)
    write_atomically(out / "table1.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    written = [out / "table1.json", out / "table1.md"]
    written.append(out / "table1.png")
    plots.runs_by_row(panels(cells), written[-1])
    for target in TARGETS:
        for setting in SETTINGS:
            shown = {
                ROWS[row].label: cells[target, setting, row] for row in MAIN_ROWS if (target, setting, row) in cells
            }
            samples = {label: torch.tensor(cell["samples"]) for label, cell in shown.items() if cell["metrics"][0]}
            if samples:
                written.append(out / f"{target}-{setting}.png")
                plots.side_by_side(samples, TARGETS[target](), written[-1])
    return written


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
        **{key: None if value != value else value for key, value in kl._asdict().items()},
        "floor": figures(cell, "reverse_kl_floor").mean,
        "stated": ROWS[row].stated.get(target),
        "seeds": cell["seeds"],
        "seconds": cell["seconds"],
        "machine": cell["machine"],
    }


def document(cells: Cells) -> str:
    """The Markdown page."""
    parts = ["# The toy table: POT-GAN's Table 1, with every game of the two papers\n", _preamble(cells)]
    for target in TARGETS:
        here = {(setting, row): cell for (t, setting, row), cell in cells.items() if t == target}
        if here:
            parts += [f"## {TITLES[target]}\n", _table(target, here), "\n".join(_verdicts(here)) + "\n"]
            parts.append("![each run's reverse KL](table1.png)\n")
            parts += [
                f"![samples of {setting}]({target}-{setting}.png)\n" for setting in SETTINGS if (setting, "gan") in here
            ]
    parts += ["## Settings\n", *_settings(cells), "## Where and when\n", _provenance(cells)]
    return "\n".join(parts)


def _preamble(cells: Cells) -> str:
    counts = sorted({len(cell["seeds"]) for cell in cells.values()})
    return (
        "Reverse KL in nats, KL(p_g * k_h || p_r * k_h) with a Gaussian kernel of bandwidth 0.1 and n = 10,000 samples "
        "(the paper's Parzen window is not stated, so its figures are not on the same scale). Mean and standard error "
        f"of {' or '.join(map(str, counts))} runs with seeds 0, 1, ...; runs that diverged are counted and left out. "
        "*floor*: what true samples score. *covered*: modes with at least a tenth of their due share of samples. "
        "*3 sigma*: share of samples within 3 sigma of a mode.\n"
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
    floor, due = (
        figures(next(iter(here.values())), name).mean for name in ("reverse_kl_floor", "within_3_sigma_target")
    )
    last = ["*floor*", ""]
    for _ in settings:
        last += [f"{floor:.4f}", "", f"{due:.3f}"]
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
    """0.0563 ± 0.0031: as many digits as the error has meaning."""
    if math.isnan(figure.error):
        return f"{figure.mean:.4f} (one run)"
    digits = max(0, min(4, 1 - math.floor(math.log10(figure.error)))) if figure.error > 0 else 4
    return f"{figure.mean:.{digits}f} ± {figure.error:.{digits}f}"


def _verdicts(here: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    """What the table says about the paper's claim, and about the forest."""
    for setting, (title, _) in SETTINGS.items():
        for row, other in (("potgan", "wgan-gp"), ("potgan", "potgan-identity")):
            if (setting, row) not in here or (setting, other) not in here:
                continue
            one, two = (figures(here[setting, name], "reverse_kl") for name in (row, other))
            intervals = "do not overlap" if apart(one, two) else "overlap"
            yield (
                f"* With {title}, {ROWS[row].label} has {one.mean / two.mean:.2f} times the reverse KL of "
                f"{ROWS[other].label}; 95 % intervals [{one.low:.4f}, {one.high:.4f}] and "
                f"[{two.low:.4f}, {two.high:.4f}] {intervals}."
            )


def _settings(cells: Cells) -> Iterator[str]:
    """What every cell of a setting shares, then what each game has beside it."""
    for setting, (title, _) in SETTINGS.items():
        flat = {
            (target, row): {k: v for k, v in flatten(cell["config"]) if k not in _IGNORED}
            for (target, s, row), cell in cells.items()
            if s == setting
        }
        if not flat:
            continue
        keys = {key for values in flat.values() for key in values}
        shared = {
            key: next(iter(found))
            for key in sorted(keys)
            if len(found := {json.dumps(v.get(key)) for v in flat.values() if key in v}) == 1
        }
        common = [k for k in shared if all(k in values for values in flat.values())]
        yield f"{title[0].upper()}{title[1:]}. Every cell: " + ", ".join(f"{k} {shared[k]}" for k in common) + ".\n"
        for (target, row), values in flat.items():
            own = ", ".join(f"{k} {json.dumps(v)}" for k, v in values.items() if k not in common)
            yield f"* {target}, {ROWS[row].label}: {own}"
        yield ""


_IGNORED = {
    *("seed", "out", "log_every", "sample_every", "checkpoint_every", "keep", "game.encoder"),
    *(f"data.{name}" for name in ("name", "path", "size", "subset", "cache", "limit")),
}


def _provenance(cells: Cells) -> str:
    """One line per distinct machine and version, with the commands, dates and time."""
    lines = []
    for facts in ("cpu", "cores", "python", "torch", "numpy", "otkernels"):
        found = sorted({str(cell["machine"][facts]) for cell in cells.values()})
        lines.append(f"* {facts}: {', '.join(found)}")
    dates = sorted(cell["machine"]["date"] for cell in cells.values())
    commits = sorted({cell["machine"]["commit"] for cell in cells.values()})
    commands = sorted({cell["machine"]["command"] for cell in cells.values()})
    seconds = sum(cell["seconds"]["training"] for cell in cells.values())
    lines += [
        f"* commits: {', '.join(commits)}",
        f"* from {dates[0]} to {dates[-1]}",
        f"* training of all cells: {duration(seconds)}, on a machine that did other work beside it",
        *(f"* `{command}`" for command in commands),
    ]
    return "\n".join(lines) + "\n"


def panels(cells: Cells) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Target -> row -> setting -> reverse KL of each run, as plots.runs_by_row takes it."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (target, setting, row), cell in cells.items():
        values = [run["reverse_kl"] for run in cell["metrics"] if run]
        rows = found.setdefault(TITLES[target], {})
        rows.setdefault(ROWS[row].label, {})[SETTINGS[setting][0]] = values
    return found
