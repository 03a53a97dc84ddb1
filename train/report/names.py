"""How scores and figures are called in pages and tables, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# In the order in which they are shown; "lower" or "higher" is better.
KNOWN = {
    "fid": ("FID", "lower"),
    "inception_score": ("IS", "higher"),
    "kid": ("KID", "lower"),
    "precision": ("Precision", "higher"),
    "recall": ("Recall", "higher"),
    "density": ("Density", "higher"),
    "coverage": ("Coverage", "higher"),
    "reverse_kl": ("Reverse KL (nats)", "lower"),
    "modes_covered": ("Modes covered", "higher"),
    "within_3_sigma": ("Within 3 sigma", "higher"),
}
MEASURED = ("n", "bandwidth", "modes")  # how figures of points were measured
TRUE = ("_floor", "_target")  # what names end with of figures that true samples would have
INCEPTIONS = ("fid", "inception_score", "kid")
_ORDER = {name: position for position, name in enumerate(KNOWN)}
_NO_FIGURE = ("step", "seconds")


def title(name: str, protocol: Mapping[str, Any] | None = None) -> str:
    """A score's name for a reader; those that are published for Inception say so if they are of anything else."""
    known = KNOWN[name][0] if name in KNOWN else name.replace("_", " ")
    if not protocol or name not in INCEPTIONS:
        return known
    distance = str(protocol["frechet distance"])
    if name == "fid":
        return distance
    other = distance.removeprefix("FID")  # [an extractor, other weights], or FD-DINOv2
    return known + (other if other[:1] in ("", "[") else f"[{protocol['extractor']}]")


def better(name: str) -> str:
    """ "lower is better", "higher is better", or nothing where neither is."""
    return f"{KNOWN[name][1]} is better" if name in KNOWN else ""


def arrow(name: str) -> str:
    """The same as a sign behind a heading."""
    return {"lower is better": " ↓", "higher is better": " ↑", "": ""}[better(name)]


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of figures in ``rows``, known ones first; errors of others, and what is the same in all, left out.

    Known figures stay even if they are the same in all rows.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in _NO_FIGURE)
    kept = [name for name in names if not is_error(name, names) and (name in KNOWN or not _constant(name, rows))]
    return sorted(kept, key=lambda name: _ORDER.get(name, len(_ORDER)))


def constants(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures that are the same in all ``rows``, but for known ones."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _NO_FIGURE)
    return {name: rows[0].get(name) for name in names if name not in KNOWN and _constant(name, rows)}


def is_error(name: str, names: Iterable[str]) -> bool:
    """Whether ``name`` is the uncertainty NAME_error of another of ``names``."""
    return name.endswith("_error") and name.removesuffix("_error") in names


def _constant(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    alike = len({row.get(name) for row in rows}) == 1
    return name in MEASURED or name.endswith(TRUE) or (alike and len(rows) > 1)
