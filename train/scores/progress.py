"""How far a pass through an extractor is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def shown(batches: Iterable[T], total: int, label: str) -> Iterator[T]:
    """The same ``total`` batches behind a progress bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    yield from track(batches, label, total, console=console, transient=True, disable=not console.is_terminal)
