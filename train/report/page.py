"""One self-contained HTML page: it opens without a network, and nothing in its texts or data can act on it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.errors import printable
from train.report.curves import Chart
from train.run.files import write_atomically

_ASSETS = Path(__file__).with_name("assets")
_AXES = {"step": "iterations", "seconds": "time of training"}


@dataclass(frozen=True)
class Frame:
    """A picture as a data: URI, its size in pixels, what it shows, and when (a slider's label)."""

    uri: str
    width: int
    height: int
    alt: str
    when: str = ""


class Page:
    """A page that grows section by section; every text that it is given is escaped, ``html()`` is the whole."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title, self._subtitle = title, subtitle
        self._charts: list[Chart] = []
        self._sections: list[tuple[str, str]] = []

    def section(self, heading: str, *parts: str) -> None:
        """Add a section; parts: HTML that this module made."""
        self._sections.append((heading, "\n".join(parts)))

    def charts(self, charts: Iterable[Chart], *, large: bool = False) -> str:
        """Charts side by side, which are drawn in the browser."""
        made = []
        for chart in charts:
            hint = f"<span>{text(chart.hint)}</span>" if chart.hint else ""
            note = f'<p class="note">{text(chart.note)}</p>' if chart.note else ""
            made.append(
                f'<figure class="chart" data-chart="{len(self._charts)}"><figcaption>{text(chart.title)}{hint}'
                f'</figcaption><output></output><div class="plot"></div>{note}</figure>'
            )
            self._charts.append(chart)
        return f'<div class="charts{" large" if large else ""}">{"".join(made)}</div>'

    def html(self) -> str:
        """The page's text."""
        style, script = (_ASSETS.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        ids = [f"part{i}" for i in range(len(self._sections))]
        links = "".join(f'<a href="#{i}">{text(h)}</a>' for i, (h, _) in zip(ids, self._sections, strict=True) if h)
        body = [f"<header><h1>{text(self._title)}</h1>"]
        body += [f'<p class="quiet">{text(self._subtitle)}</p>'] if self._subtitle else []
        body += ["</header>", f'<nav aria-label="Sections">{links}</nav>', "<main>"]
        for name, (heading, content) in zip(ids, self._sections, strict=True):
            shown = f"<h2>{text(heading)}</h2>\n" if heading else ""
            body.append(f'<section id="{name}">{shown}{content}</section>')
        data = _as_script({"charts": [chart.as_json() for chart in self._charts]})
        body += ["</main>", f'<script type="application/json" id="data">{data}</script>', f"<script>{script}</script>"]
        # Only this script and this style act, and nothing is fetched, whatever else the page holds.
        policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}"
        head = [
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{text(self._title)}</title>",
            f"<style>{style}</style>",
        ]
        return "\n".join(
            ['<!doctype html>\n<html lang="en">\n<head>', *head, "</head>\n<body>", *body, "</body>\n</html>\n"]
        )

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        page = self.html()
        write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def write_report(
    path: Path,
    title: str,
    config: Mapping[str, Any],
    table: Mapping[str, Mapping[str, float]],
    pictures: Mapping[str, Path],
) -> None:
    """Write a page of a table, pictures and settings.

    config: nested settings. table: row name -> column name -> number. pictures: heading -> PNG file, embedded.
    """
    from train.report.pictures import embedded

    page = Page(title)
    page.section("", numbers(table))
    for heading, file in pictures.items():
        page.section(heading, picture(embedded(file, heading)))
    page.section("Settings", settings(config))
    page.write(path)


def text(value: str) -> str:
    """As HTML; names of files and settings may hold anything."""
    return html.escape(printable(value))


def paragraph(value: str, kind: str = "") -> str:
    """A paragraph of plain text; kind: "note" or "quiet"."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def heading(value: str) -> str:
    """A heading within a section."""
    return f"<h3>{text(value)}</h3>"


def facts(values: Mapping[str, tuple[str, str]]) -> str:
    """Cards: name -> (value, a remark or nothing)."""
    cards = [
        f"<div><dt>{text(name)}</dt><dd>{text(value)}{f' <small>{text(remark)}</small>' if remark else ''}</dd></div>"
        for name, (value, remark) in values.items()
    ]
    return f'<dl class="facts">{"".join(cards)}</dl>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts whose rows begin with their name."""
    first = "".join(f'<th scope="col">{text(column)}</th>' for column in head)
    lines = [
        f'<tr><th scope="row">{text(name)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    ]
    body = "\n".join(lines)
    return f'<div class="wide"><table>\n<thead><tr>{first}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def numbers(values: Mapping[str, Mapping[str, float]]) -> str:
    """A table of numbers: row name -> column name -> number; an absent one leaves its cell empty."""
    columns = list(dict.fromkeys(column for row in values.values() for column in row))
    rows = [[name, *(number(row[c]) if c in row else "" for c in columns)] for name, row in values.items()]
    return table(["", *columns], rows)


def settings(config: Mapping[str, Any]) -> str:
    """Nested settings, folded away."""
    return folded("All settings", config)


def folded(summary: str, config: Mapping[str, Any]) -> str:
    """Nested names and values, folded away under ``summary``."""
    rows = "".join(f"<tr><td>{text(k)}</td><td>{text(str(v))}</td></tr>\n" for k, v in flatten(config))
    return f'<details><summary>{text(summary)}</summary>\n<table class="settings">\n{rows}</table></details>'


def picture(frame: Frame, caption: str = "") -> str:
    """One picture."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure class="picture">{_image(frame)}{below}</figure>'


def slider(frames: Sequence[Frame], caption: str = "") -> str:
    """Pictures of which a slider shows one, at first the last; without scripts the last alone is shown."""
    if len(frames) == 1:
        return picture(frames[0], caption)
    last = len(frames) - 1
    shown = "".join(_image(frame, hidden=i < last) for i, frame in enumerate(frames))
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="picture slider">{shown}<label><span>Iteration</span>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="Iteration">'
        f"<output>{text(frames[last].when)}</output></label>{below}</figure>"
    )


def axis_switch() -> str:
    """Lets the reader choose what all curves are drawn against: iterations, at first, or time."""
    choices = "".join(
        f'<label><input type="radio" name="axis" value="{value}"{" checked" if value == "step" else ""}> {name}</label>'
        for value, name in _AXES.items()
    )
    return (
        f"<fieldset><legend>Against</legend>{choices}</fieldset>"
        "<noscript><p>The curves are drawn by a script, which this browser does not run.</p></noscript>"
    )


def columns(*parts: str) -> str:
    """Parts side by side where there is room."""
    return f'<div class="pair">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def link(label: str, href: str) -> str:
    """A paragraph that is a link to a file beside the page."""
    return f'<p><a href="{text(href)}">{text(label)}</a></p>'


def legend(names: Sequence[str]) -> str:
    """The names of a chart's lines, each with its colour."""
    items = "".join(f'<li><span class="swatch k{i % 8}"></span>{text(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (dotted name, value) pairs in their order."""
    pairs: list[tuple[str, Any]] = []
    for name, value in config.items():
        pairs += flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs


def number(value: float) -> str:
    """Four digits of a float, all digits of an integer."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def measured(value: float, error: float | None) -> str:
    """A value with its error, two digits of the error and as many places of the value; four digits without one."""
    if error is None or not math.isfinite(error) or error <= 0:
        return number(value)
    places = 1 - math.floor(math.log10(error))
    if 0 <= places <= 6:
        return f"{value:.{places}f} ± {error:.{places}f}"
    return f"{value:.4g} ± {error:.2g}"


def _image(frame: Frame, *, hidden: bool = False) -> str:
    return (
        f'<img src="{frame.uri}" width="{frame.width}" height="{frame.height}" alt="{text(frame.alt)}" '
        f'data-when="{text(frame.when)}"{" hidden" if hidden else ""}>'
    )


def _as_script(value: Any) -> str:
    r"""JSON for a script element: no text in it can end the element, for every < is \u003c."""
    dumped = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
