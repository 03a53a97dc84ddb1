"""Tables in Markdown, of names and settings that may hold anything."""

from __future__ import annotations

from collections.abc import Sequence

from train.errors import printable


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [[*map(plain, head)], ["---"] * len(head), *([*map(plain, row)] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def plain(text: str) -> str:
    """Text that shows as it is, in a cell too."""
    escaped = printable(text).replace("\\", "\\\\").replace("|", "\\|")
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace("[", "\\[").replace("`", "\\`")
