"""What there is to say of a set of images: what was passed over, and what the files were."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from train.data.archives import IMAGE_SUFFIXES, LeftOut
from train.errors import printable

SHOWN = 20  # names in one line, and images that are named one by one
SPLITS = ("train", "val", "valid", "test")  # the folders that are counted apart


@dataclass
class Notes:
    """Filled while the images are read; ``close`` ends that. Then it is what the cache remembers of them."""

    unreadable: int = 0
    skipped: list[str] = field(default_factory=list)
    """A line for each of the first images that could not be read."""
    left_out: list[str] = field(default_factory=list)
    """A line for each kind of file that is no image."""
    transparent: int = 0
    """Images that were laid on the background."""
    frames: int = 0
    """Images of several frames, whose first was taken."""
    widths: tuple[int, int, int] = (0, 0, 0)
    """The least, the median and the largest, in pixels, before scaling."""
    heights: tuple[int, int, int] = (0, 0, 0)
    splits: dict[str, int] = field(default_factory=dict)
    """Images below folders called train, val and so on."""

    def __post_init__(self) -> None:
        self._sizes = Counter[tuple[int, int]]()
        self._folders = set[str]()
        self._wanted: str | None = None

    def skip(self, name: str, reason: str) -> None:
        """An image that cannot be read."""
        self.unreadable += 1
        if len(self.skipped) < SHOWN:
            self.skipped.append(printable(f"{name}: {reason}"))

    def saw(self, width: int, height: int, count: int = 1) -> None:
        """Images of that size, in pixels."""
        self._sizes[width, height] += count

    def passed(self, left_out: LeftOut, folders: Iterable[str], wanted: str | None) -> None:
        """What else was met: other files, and the names of all folders; wanted: the folder that was asked for."""
        self.left_out, self._folders, self._wanted = left_out.lines(SHOWN), set(folders), wanted

    def close(self, names: Sequence[str]) -> None:
        """names: of all images that are kept."""
        self.skipped.sort()
        self.widths = _spread(Counter(width for width, _ in self._sizes.elements()))
        self.heights = _spread(Counter(height for _, height in self._sizes.elements()))
        parts = Counter(part for name in names for part in set(name.split("/")[:-1]).intersection(SPLITS))
        self.splits = {split: parts[split] for split in SPLITS if parts[split]}

    def why_empty(self, path: Path) -> str:
        """Why there is no image in ``path``, in one line."""
        shown = printable(str(path))
        if self.skipped:
            return f"data: none of the {self.unreadable} images in {shown} is readable, the first: {min(self.skipped)}"
        if self._wanted is not None and self._folders:
            names = ", ".join(map(printable, sorted(self._folders)[:SHOWN]))
            return f"data: no images below a folder {self._wanted!r} in {shown}; its folders: {names}"
        suffixes = f"images end in {' '.join(sorted(IMAGE_SUFFIXES))}"
        return "; ".join([f"data: no images in {shown}", *self.left_out, suffixes])

    def say(self, background: str) -> None:
        """On stderr, what a user should know each time the images are used."""
        lines = [f"skipped {line}" for line in self.skipped]
        if self.unreadable > len(self.skipped):
            lines.append(f"skipped {self.unreadable - len(self.skipped):,} more")
        lines += self.left_out
        if self.transparent:
            lines.append(f"{self.transparent:,} images with transparency, laid on {background}")
        if self.frames:
            lines.append(f"{self.frames:,} images of several frames, of which the first is taken")
        for line in lines:
            print(f"data: {line}", file=sys.stderr)

    def to_json(self) -> str:
        """For ``from_json``."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def from_json(cls, text: str) -> Notes:
        """ValueError, TypeError or LookupError for anything that ``to_json`` does not write."""
        stored = json.loads(text)
        notes = cls(**stored)
        notes.skipped, notes.left_out = list(map(str, notes.skipped)), list(map(str, notes.left_out))
        for name in ("unreadable", "transparent", "frames"):
            setattr(notes, name, int(getattr(notes, name)))
        notes.widths, notes.heights = _three(notes.widths), _three(notes.heights)
        notes.splits = {str(name): int(count) for name, count in dict(notes.splits).items()}
        return notes


def _spread(sizes: Counter[int]) -> tuple[int, int, int]:
    """The least, the median (the lower one of two) and the largest."""
    if not sizes:
        return 0, 0, 0
    ordered = sorted(sizes.elements())
    return ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]


def _three(values: Iterable[object]) -> tuple[int, int, int]:
    least, median, largest = (int(str(value)) for value in values)
    return least, median, largest
