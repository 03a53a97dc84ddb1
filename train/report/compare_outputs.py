"""A comparison's files: compare.html, compare.md and compare.png."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.report import names, page, pictures, plots
from train.report.compare import Group, charts, figures, last_step, settings
from train.report.markdown import markdown_table, plain
from train.report.page import Page
from train.report.run_page import said
from train.run.files import write_atomically
from train.run.log import duration

CAPTION = (
    "± is the standard error over runs that differ by their seed alone, as are the curves' bands; one run has none. "
    "Time is that of training alone."
)


def write_comparison(groups: Sequence[Group], out: Path) -> list[Path]:
    """Write the three files to ``out``, which is made if it is missing; their paths."""
    out.mkdir(parents=True, exist_ok=True)
    title = f"{', '.join(dict.fromkeys(group.runs[0].game for group in groups))} on {groups[0].runs[0].data}"
    protocol = groups[0].runs[0].protocol
    head, rows = table(groups, protocol)
    measured = said(protocol, [row for group in groups for found in group.rows for row in found.values()])
    drawn = charts(groups, protocol)
    html, markdown, png = (out / f"compare.{suffix}" for suffix in ("html", "md", "png"))
    plots.overlay(drawn, png)
    text = _markdown(title, head, rows, measured, _differing(groups), protocol)
    write_atomically(markdown, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    _page(title, groups, head, rows, measured, drawn).write(html)
    return [html, markdown, png]


def table(groups: Sequence[Group], protocol: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns, and a row for each group: the figures at its last iteration."""
    shown = figures(groups)
    head = ["", "runs", "iteration", "training", *(names.title(n, protocol) + names.arrow(n) for n in shown)]
    rows = []
    for group in groups:
        step = last_step(group, shown)
        n = len(group.runs)
        seconds = statistics.fmean(rows[step]["seconds"] for rows in group.rows)
        iterations = group.runs[0].iterations
        at = f"{step:,}" if step == iterations else f"{step:,} of {iterations:,}"
        cells = [_cell(group, step, name) for name in shown]
        rows.append([group.label, "one run" if n == 1 else f"{n} runs", at, duration(seconds), *cells])
    return head, rows


def _cell(group: Group, step: int, name: str) -> str:
    if step not in group.steps(name):
        return ""
    return page.measured(*group.at(step, name))


def _differing(groups: Sequence[Group]) -> list[list[str]]:
    """Rows of the settings that are not the same in all groups that have them, each with its value in every group."""
    known = [settings(group.runs[0]) for group in groups]
    every = dict.fromkeys(name for one in known for name in one)
    differ = [name for name in every if len({one[name] for one in known if name in one}) > 1]
    return [[name, *(one.get(name, "") for one in known)] for name in differ]


def _markdown(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    measured: str,
    differing: Sequence[Sequence[str]],
    protocol: Mapping[str, Any],
) -> str:
    lines = [f"# {plain(title)}", "", *markdown_table(head, rows), "", CAPTION, "", f"Measured with {plain(measured)}."]
    if differing:
        lines += ["", "Settings that differ:", "", *markdown_table(["setting", *(row[0] for row in rows)], differing)]
    if protocol:
        parts = [[name, str(value)] for name, value in page.flatten(protocol)]
        lines += ["", "The protocol of the scores:", "", *markdown_table(["part", "value"], parts)]
    return "\n".join([*lines, "", "![curves](compare.png)", ""])


def _page(
    title: str, groups: Sequence[Group], head: Sequence[str], rows: Sequence[Sequence[str]], measured: str, drawn: Any
) -> Page:
    made = Page(title, f"A comparison of {sum(len(group.runs) for group in groups)} runs")
    protocol = groups[0].runs[0].protocol
    folded = [page.folded("The whole protocol of the scores", protocol)] if protocol else []
    made.section(
        "Table", page.table(head, rows), page.paragraph(f"{CAPTION} Measured with {measured}.", "note"), *folded
    )
    labels = [group.label for group in groups]
    made.section("Curves", page.legend(labels), page.axis_switch(), made.charts(drawn, large=True))
    parts = []
    for group in groups:
        file = group.runs[0].directory / "samples.png"
        if file.is_file():
            shown = pictures.embedded(file, f"samples of {group.label}", exact=False)
            parts.append(page.heading(group.label) + page.picture(shown, f"seed {group.runs[0].config.get('seed')}"))
    if parts:
        made.section("Samples at the end", page.columns(*parts))
    differing = _differing(groups)
    if differing:
        made.section("Settings that differ", page.table(["", *labels], differing))
    runs = [[group.label, str(run.config.get("seed")), str(run.directory)] for group in groups for run in group.runs]
    made.section("Runs", page.table(["", "seed", "directory"], runs))
    return made
