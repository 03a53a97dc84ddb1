"""Table, curves and samples of the papers' tables on images, from whatever cells are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import ttest_ind, ttest_rel

from train.report import names
from train.report.curves import Chart, Line
from train.report.page import flatten
from train.report.plots import overlay
from train.reproduce.image_cells import CELL_FOLDER, PAIR_KINDS, check_together, pairs_picture, read_kept
from train.reproduce.image_plots import strips
from train.reproduce.image_tables import TABLES, ImageTable
from train.reproduce.statistics import pm, summarise
from train.run.files import write_atomically
from train.run.log import duration
from train.scores.protocol import check_same

COLUMNS = ("fid", "kid", "inception_score", "precision", "recall", "density", "coverage")
DRAWN = ("fid", "inception_score")  # as in POT-GAN's Fig. 4
KID_FACTOR = 1000  # makes it readable
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def write(out: Path, name: str) -> list[Path]:
    """NAME.md, NAME.png with the curves and NAME-samples.png; the paths written. ValueError for unlike protocols."""
    table = TABLES[name]
    rows = read_kept(out, list(table.rows))
    if not rows:
        return []
    kept = [cell for row in rows.values() for cell in row]
    check_same([cell["protocol"] for cell in kept], [f"{cell['row']}-{cell['seed']}" for cell in kept])
    check_together(kept)
    curves, samples, page = (out / f"{name}{end}" for end in (".png", "-samples.png", ".md"))
    shown = {key: row for key, row in rows.items() if key in table.main} or rows
    drawn = [name for name in DRAWN if name in first(rows)["scores"][-1]]  # DINOv2 has no inception score
    overlay([score_chart(shown, name, first(rows)["protocol"]) for name in drawn], curves)
    pictures = {label(row): out / CELL_FOLDER / f"{key}-0.png" for key, row in rows.items()}
    pictures = {title: path for title, path in pictures.items() if path.exists()}
    if pictures:
        strips(pictures, samples)
    pairs = [(key, kind) for key in rows for kind in PAIR_KINDS if pairs_picture(out, key, kind).exists()]
    text = document(table, rows, curves.name, samples.name if pictures else None, pairs)
    write_atomically(page, partial(Path.write_text, data=text, encoding="utf-8"))
    return [page, curves, *([samples] if pictures else [])]


def label(row: Sequence[Mapping[str, Any]]) -> str:
    return str(row[0]["label"])


def score_chart(rows: Rows, name: str, protocol: Mapping[str, Any]) -> Chart:
    """A score of ``rows`` along their training: means over seeds within one standard error."""
    lines = []
    for colour, row in enumerate(rows.values()):
        steps = sorted(set.intersection(*({point["step"] for point in cell["scores"]} for cell in row)))
        at = {step: [point for cell in row for point in cell["scores"] if point["step"] == step] for step in steps}
        found = [summarise([point[name] for point in points]) for points in at.values()]
        seconds = [fmean(point["seconds"] for point in points) for points in at.values()]
        low, high = ([s.mean + sign * s.error for s in found] if len(row) > 1 else None for sign in (-1, 1))
        x: dict[str, Sequence[float]] = {"step": steps, "seconds": seconds}
        lines.append(Line(label(row), x, [s.mean for s in found], low, high, colour))
    return Chart(names.title(name, protocol), lines, hint=names.better(name), linear=True)


def finals(row: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """A score at the end of each run of a row."""
    return [cell["scores"][-1][name] for cell in row]


def document(
    table: ImageTable, rows: Rows, curves: str, samples: str | None, pairs: Sequence[tuple[str, str]] = ()
) -> str:
    """The Markdown page; pairs: rows whose game makes something of images, and what."""
    parts = [f"# {table.title}: {describe_data(rows)}\n", preamble(rows), score_table(rows)]
    parts += [answers(table, rows), verdicts(table, rows)]
    parts.append("## Along the training\n\nThe main rows; a band is the standard error over seeds.\n")
    parts.append(f"![Scores against iterations and time]({curves})\n")
    if samples is not None:
        parts.append(f"## Samples\n\nSeed 0 of each row, not chosen.\n\n![samples by row]({samples})\n")
    for key, kind in pairs:
        parts.append(f"## {label(rows[key])}: {PAIR_KINDS[kind]} along the training\n")
        parts.append(f"In each pair of rows, real images above.\n\n![{kind}]({CELL_FOLDER}/{key}-{kind}.png)\n")
    parts.append(paper_table(table, rows))
    parts += ["## Settings\n", settings(rows), "## Where and when\n", provenance(rows)]
    return "\n".join(parts)


def describe_data(rows: Rows) -> str:
    data = first(rows)["config"]["data"]
    name = data["path"] if data["name"] == "folder" and data["path"] else data["name"]
    return f"{name}, {data['size']} px"


def first(rows: Rows) -> Mapping[str, Any]:
    return next(iter(rows.values()))[0]


def preamble(rows: Rows) -> str:
    protocol = first(rows)["protocol"]
    config = first(rows)["config"]
    networks = config["game"]["networks"]
    averaged = " with averaged weights" if protocol.get("ema") else ""
    return (
        f"Networks {networks['name']} of width {networks['width']}, batch {config['batch_size']}, "
        f"{config['iterations']:,} generator iterations in every row. Scores with the features of "
        f"{protocol['extractor']}, on {protocol['n']:,} samples of the generator{averaged}: they compare with each "
        "other, and with no figure of another extractor, data set or budget. Mean and standard error over seeds; a row "
        "of one run says so and has no error. Training is the time of the game itself, without phases before it "
        "(POT-GAN's VAE) and without scoring, by the clock on the wall: rows compare in it only "
        "where both had the machine to themselves.\n"
    )


def score_table(rows: Rows) -> str:
    protocol = first(rows)["protocol"]
    columns = [name for name in COLUMNS if name in first(rows)["scores"][-1]]  # DINOv2 has no inception score
    heads = {name: names.title(name, protocol) for name in columns}
    heads["kid"] += f" x {KID_FACTOR}"
    lines = ["| " + " | ".join(["", "runs", *heads.values(), "training"]) + " |", "|---" * (len(columns) + 3) + "|"]
    for row in rows.values():
        figures = []
        for name in columns:
            factor = KID_FACTOR if name == "kid" else 1
            summary = summarise([factor * value for value in finals(row, name)])
            figures.append(pm(summary.mean, summary.error) if summary.runs > 1 else f"{summary.mean:.4g}")
        runs = "one run" if len(row) == 1 else str(len(row))
        seconds = sum(cell["seconds"] for cell in row) / len(row)
        lines.append(f"| {label(row)} | {runs} | " + " | ".join(figures) + f" | {duration(seconds)} |")
    return "\n".join(lines) + "\n"


def answers(table: ImageTable, rows: Rows) -> str:
    """What the table tells of its questions, as far as their rows are there."""
    distance = names.title("fid", first(rows)["protocol"])
    lines = [
        f"- {question} {distance} of {label(rows[row])} less that of {label(rows[other])}: "
        f"{difference(rows[row], rows[other])}"
        for question, row, other in table.questions
        if row in rows and other in rows
    ]
    return "\n".join([*lines, ""]) if lines else ""


def verdicts(table: ImageTable, rows: Rows) -> str:
    """How each row's FID differs from that of the row it is compared with."""
    other = rows.get(table.against)
    if other is None:
        return ""
    distance = names.title("fid", first(rows)["protocol"])
    lines = [f"{distance} less that of {label(other)} (negative is better):\n"]
    for key, row in rows.items():
        if key != table.against:
            lines.append(f"- {label(row)}: {difference(row, other)}")
    return "\n".join(lines) + "\n"


def difference(row: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """Of the mean FID, with its 95 % interval: paired where both rows have the same seeds, else Welch's."""
    one, two = finals(row, "fid"), finals(other, "fid")
    gap = sum(one) / len(one) - sum(two) / len(two)
    if min(len(one), len(two)) < 2:
        return f"{gap:+.2f} (one run: no error is known)"
    paired = [cell["seed"] for cell in row] == [cell["seed"] for cell in other]
    test = ttest_rel(one, two) if paired else ttest_ind(one, two, equal_var=False)
    interval = test.confidence_interval(0.95)
    how = "the same seeds, paired" if paired else "Welch"
    return f"{gap:+.2f}, 95 % interval {interval.low:+.2f} to {interval.high:+.2f} ({how})"


def paper_table(table: ImageTable, rows: Rows) -> str:
    """What the paper states, which compares with nothing here."""
    sets = list(dict.fromkeys(name for row in table.rows.values() for name in row.stated))
    lines = [
        "## What the paper states\n",
        "Inception score / FID with Inception's features, full networks and 100,000 iterations: a different measure.\n",
        "| | " + " | ".join(sets) + " |",
        "|---" * (len(sets) + 1) + "|",
    ]
    seen: set[str] = set()
    for key, row in table.rows.items():
        if row.stated and row.game not in seen and key in rows:
            seen.add(row.game)
            figures = [f"{row.stated[name][0]} / {row.stated[name][1]}" if name in row.stated else "" for name in sets]
            lines.append(f"| {row.label.split(',')[0]} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n" if seen else ""


def settings(rows: Rows) -> str:
    """What all rows share, then what each has beside it."""
    flat = {key: dict(flatten(row[0]["config"])) for key, row in rows.items()}
    names = dict.fromkeys(name for values in flat.values() for name in values if name != "seed")
    shared = {
        name: first_value
        for name in names
        for first_value in [next(values[name] for values in flat.values() if name in values)]
        if all(values.get(name, first_value) == first_value for values in flat.values())
    }
    own = {key: {n: v for n, v in values.items() if n not in shared and n != "seed"} for key, values in flat.items()}
    lines = ["All rows that have the setting: " + listed(shared) + "\n"]
    lines += [f"- {label(rows[key])}: {listed(values) or 'nothing else'}" for key, values in own.items()]
    return "\n".join(lines) + "\n"


def listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items())


def provenance(rows: Rows) -> str:
    """Machines and commands, each once, with the cells they made; then the scores' protocol."""
    made: dict[str, list[str]] = {}
    for row in rows.values():
        for cell in row:
            facts = {name: value for name, value in cell["machine"].items() if name not in ("date", "load_before")}
            made.setdefault(listed(facts), []).append(f"{cell['row']}-{cell['seed']} ({cell['machine']['date']})")
    lines = [f"- {', '.join(cells)}: {facts}" for facts, cells in made.items()]
    protocol = listed(dict(flatten(first(rows)["protocol"])))
    return "\n".join([*lines, f"\nProtocol of the scores: {protocol}\n"])
