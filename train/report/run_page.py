"""report.html of a run, written from what its directory holds: while it runs, at its end, and whenever one likes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.games import GAMES
from train.report import curves, names, page, pictures
from train.report.curves import Chart, Line
from train.report.page import Frame, Page
from train.report.record import PAIRS, Record
from train.run.directory import PHASES, REPORT
from train.run.log import duration

MAIN = ("extractor", "n", "reference", "data", "split")  # of a protocol
NEIGHBOURS = {  # kind of distance -> heading and unit
    "pixels": ("In pixels", "root mean square difference of pixel values, of 255"),
    "features": ("In features", "distance of features"),
}


def write_run_report(run: Record) -> Path:
    """Write report.html beside the other files of ``run``; its path."""
    path = run.directory / REPORT
    run_page(run).write(path)
    return path


def run_page(run: Record) -> Page:
    """The page about ``run``; a section for everything that its directory holds."""
    state = "" if run.ended else ", not ended"
    made = Page(
        f"{run.game} on {run.data}",
        f"{run.step:,} of {run.iterations:,} iterations{state}; {duration(run.seconds)} of training on "
        f"{run.config.get('device', 'an unknown device')}; seed {run.config.get('seed')}",
    )
    made.section("", *_summary(run))
    measured, losses = _figure_charts(run), _loss_charts(run)
    if measured or losses:
        about = "Time is that of training alone, without pictures, scores and checkpoints. Where a curve has too many "
        about += "points to be seen, it shows means of neighbouring ones, in a band from the least to the greatest."
        shown = [page.axis_switch()]
        for heading, charts in (("Figures of the samples", measured), ("Losses", losses)):
            shown += [page.heading(heading) + made.charts(charts)] if charts else []
        made.section("Curves", *shown, page.paragraph(about, "note"))
    _pictures(made, run)
    _neighbours(made, run)
    phases = [name for name in PHASES if (run.directory / name / REPORT).is_file()]
    if phases:
        made.section("Phases", *(page.link(f"The report of the phase {name}", f"{name}/{REPORT}") for name in phases))
    made.section("Settings", page.settings({"game": run.game, **run.config}))
    return made


def _summary(run: Record) -> list[str]:
    rows, protocol = run.measured(), run.protocol
    if not rows:
        return []
    last, cards = rows[-1], {}
    for name in names.varying(rows):
        value = last.get(name)
        if value is None:
            continue
        cards[names.title(name, protocol)] = page.measured(value, last.get(f"{name}_error")), _remark(name, rows)
    measured = f"At iteration {last['step']:,}, measured with {said(protocol, rows)}."
    folded = [page.folded("The whole protocol of the scores", protocol)] if protocol else []
    return [page.facts(cards), page.paragraph(measured, "note"), *folded]


def said(protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """How the figures were measured, in a line: the main parts of the protocol, for points all of them."""
    fixed = names.constants(rows)
    if protocol:
        fixed = {name: protocol[name] for name in MAIN if protocol.get(name) is not None}
    return ", ".join(
        f"{name.replace('_', ' ')} {page.number(value) if isinstance(value, float) else value}"
        for name, value in fixed.items()
        if not name.endswith(names.TRUE)
    )


def _remark(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What stands beside the last value of a figure: its floor, or the best value along the way."""
    floor = next((rows[-1][name + ending] for ending in names.TRUE if name + ending in rows[-1]), None)
    if floor is not None:
        return f"true samples: {page.number(floor)}"
    known = [(row[name], row["step"]) for row in rows if row.get(name) is not None]
    best = (min if names.KNOWN.get(name, ("", "lower"))[1] == "lower" else max)(known, key=lambda pair: pair[0])
    return f"best {page.number(best[0])} at {best[1]:,}" if name == "fid" and best[1] != rows[-1]["step"] else ""


def _figure_charts(run: Record) -> list[Chart]:
    rows, protocol = run.measured(), run.protocol
    charts = []
    for name in names.varying(rows):
        known = [row for row in rows if name in row]
        x = {axis: [row[axis] for row in known] for axis in curves.AXES}
        y = [row[name] for row in known]
        low, high = (_shifted(known, name, sign) for sign in (-1, 1))
        note = "The band is one standard error of each measurement." if low else ""
        line = Line("", x, y, low, high)
        charts.append(Chart(names.title(name, protocol), [line], hint=names.better(name), note=note))
    return charts


def _shifted(rows: Sequence[Mapping[str, Any]], name: str, sign: int) -> list[float | None] | None:
    """The values of ``name`` by one error up or down; None unless every row has the error."""
    if any(row.get(f"{name}_error") is None for row in rows):
        return None
    return [None if row[name] is None else row[name] + sign * row[f"{name}_error"] for row in rows]


def _loss_charts(run: Record) -> list[Chart]:
    notes = GAMES[run.game].notes if run.game in GAMES else {}
    clocked, charts = curves.clock(run.rows), []
    players: dict[str, list[Any]] = {}  # the curves of each that are drawn
    for key in dict.fromkeys(key for row in run.rows for key in row if "/" in key):
        player, _, term = key.partition("/")
        if term == "lr" or player in ("metrics", "scores"):
            continue
        steps, values = curves.series(run.rows, key)
        if (steps, values) in players.setdefault(player, []):
            continue  # a term that is the whole loss
        players[player].append((steps, values))
        x = {"step": steps, "seconds": curves.seconds_at(steps, clocked)}
        line = curves.averaged(Line("", x, values, colour=2))
        charts.append(Chart(f"{player}: {term.replace('_', ' ')}", [line], note=notes.get(term, "")))
    return charts


def _pictures(made: Page, run: Record) -> None:
    directory, end = run.directory, run.figures.get("step")

    def over_time(folder: Path, last: Path, alt: str) -> list[Frame]:
        found = pictures.by_step(folder)
        if isinstance(end, int) and last.is_file():
            found = dict(sorted({**found, end: last}.items()))
        return pictures.frames(found, alt)

    parts = []
    samples = over_time(directory / "samples", directory / "samples.png", "samples")
    if samples:
        parts.append(page.heading("Samples") + page.slider(samples, "The same noise at every iteration."))
    along = {folder.name for folder in (directory / PAIRS).glob("*") if folder.is_dir()}
    for name in sorted(along | set(run.figures.get("pairs", []))):
        shown = over_time(directory / PAIRS / name, directory / f"{name}.png", name)
        if shown:
            caption = f"Rows in pairs: images, and below each what the game makes of it ({name})."
            parts.append(page.heading(name.replace("_", " ").capitalize()) + page.slider(shown, caption))
    between = directory / "interpolations.png"
    if isinstance(end, int) and between.is_file():
        caption = "In each row the noise goes from that of the first image to that of the last along a great circle."
        between_them = page.picture(pictures.embedded(between, "interpolations"), caption)
        parts.append(page.heading("Interpolations") + between_them)
    if parts:
        made.section("Pictures", page.columns(*parts))


def _neighbours(made: Page, run: Record) -> None:
    found = run.figures.get("neighbours", {})
    parts = []
    for kind, (heading, unit) in NEIGHBOURS.items():
        file = run.directory / f"neighbours-{kind}.png"
        if kind in found and file.is_file():
            parts.append(_neighbour_part(made, found[kind], file, heading, unit))
    if not parts:
        return
    about = (
        "Does the generator copy its training images? In each pair of rows, samples stand above the training image "
        "nearest to each, those with the smallest distances first. Training images and their own nearest other one "
        "give the measure: samples that are much nearer to training images than these are to each other are copies. "
        "Blurred samples are near to many images, so look at the pairs as well."
    )
    made.section("Nearest training images", page.paragraph(about), *parts)


def _neighbour_part(made: Page, found: Mapping[str, Any], file: Path, heading: str, unit: str) -> str:
    samples, own = found["samples"], found["training"]
    unit = f"{unit} ({found['extractor']})" if "extractor" in found else unit
    nearest = ", ".join(page.number(value) for value in sorted(samples)[: found["shown"]])
    rank = sorted(own)[len(own) // 100]
    below = sum(value < rank for value in samples)
    rows = [
        [name, *(page.number(value) for value in (min(values), statistics.median(values), max(values)))]
        for name, values in (("samples", samples), ("training images", own))
    ]
    lines = [
        curves.distribution(samples, "samples", 0, "distance"),
        curves.distribution(own, "training images", 1, "distance"),
    ]
    chart = Chart("Share of images with a nearest one so near", lines, {"distance": unit}, linear=True)
    text = (
        f"{below} of {len(samples)} samples are nearer to a training image than 99 % of the training images are to "
        f"another one; of new images of the same kind, about {max(1, len(samples) // 100)} would be."
    )
    shown = pictures.embedded(file, f"samples above their nearest training images, {heading.lower()}")
    caption = f"Distances of these, row by row: {nearest} ({unit})."
    figures = [
        page.table(["distance to the nearest", "least", "median", "greatest"], rows),
        page.paragraph(f"{text} Searched: {found['images']:,} training images."),
        page.legend(["samples", "training images"]),
        made.charts([chart], large=True),
    ]
    return page.heading(heading) + page.columns(page.picture(shown, caption), "\n".join(figures))
