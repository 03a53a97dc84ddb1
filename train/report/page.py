"""One self-contained page about a run: settings, numbers and pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.errors import printable
from train.run.files import write_atomically

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .25rem .8rem; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
summary { cursor: pointer; }
"""


def write_report(
    path: Path,
    title: str,
    config: Mapping[str, Any],
    table: Mapping[str, Mapping[str, float]],
    pictures: Mapping[str, Path],
) -> None:
    """Write an HTML page that needs no other file.

    config: nested settings. table: row name -> column name -> number. pictures: heading -> PNG file, embedded.
    """
    body = [f"<h1>{_text(title)}</h1>", _table(table)]
    for heading, picture in pictures.items():
        data = base64.b64encode(picture.read_bytes()).decode()
        alt = _text(heading)
        body.append(f'<h2>{alt}</h2>\n<img alt="{alt}" src="data:image/png;base64,{data}">')
    rows = "".join(f"<tr><td>{_text(k)}</td><td>{_text(str(v))}</td></tr>\n" for k, v in flatten(config))
    body.append(f"<details><summary>Settings</summary>\n<table>\n{rows}</table></details>")
    head = f'<meta charset="utf-8"><title>{_text(title)}</title><style>{_STYLE}</style>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (dotted name, value) pairs in their order."""
    pairs: list[tuple[str, Any]] = []
    for name, value in config.items():
        pairs += flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs


def number(value: float) -> str:
    """Four digits of a float, all digits of an integer."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _text(text: str) -> str:
    """As HTML; names of files and settings may hold anything."""
    return html.escape(printable(text))


def _table(table: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    head = "".join(f"<th>{_text(column)}</th>" for column in ["", *columns])
    rows = []
    for name, row in table.items():
        cells = "".join(f"<td>{number(row[column])}</td>" if column in row else "<td></td>" for column in columns)
        rows.append(f"<tr><th>{_text(name)}</th>{cells}</tr>")
    return f"<table>\n<tr>{head}</tr>\n" + "\n".join(rows) + "\n</table>"
