"""What a score depends on, kept beside it; scores of unlike protocols are not compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from train.provenance import version

DEFINITION = 1  # raised when a score is computed in another way, so that its figures differ by more than rounding
RECORDED = ("torch", "torchvision", "onnxruntime", "otkernels")  # change scores by rounding alone
COMPARED = ("torch-fidelity",)  # defines scores and Inception's resize


def versions() -> dict[str, str]:
    """Of the libraries that a score passes through."""
    return {package: version(package) for package in (*COMPARED, *RECORDED)}


def check_same(protocols: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> None:
    """ValueError in one line, naming what differs, unless the scores of all ``protocols`` may be compared.

    names: what the scores are of, such as the runs' folders (default: #1, #2, ...). Three things may differ: versions
    of libraries that change scores by rounding alone (``RECORDED``), the name and split of a set whose fingerprint is
    the same, and whether weights are averaged where one of the protocols does not know. All else may not.
    """
    shown = [*names, *(f"#{i + 1}" for i in range(len(names), len(protocols)))]
    for (name, one), (other_name, other) in combinations(zip(shown, map(_flat, protocols), strict=True), 2):
        differences = _differences(one, other)
        if differences:
            raise ValueError(f"scores: {name} and {other_name} cannot be compared: {'; '.join(differences)}")


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    ignored = {f"versions {package}" for package in RECORDED}
    if one.get("fingerprint") == other.get("fingerprint") is not None:
        ignored |= {"data", "split"}
    if None in (one.get("ema"), other.get("ema")):
        ignored.add("ema")
    return [
        f"{key} {_short(one.get(key))} and {_short(other.get(key))}"
        for key in dict.fromkeys([*one, *other])
        if key not in ignored and one.get(key) != other.get(key)
    ]


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """With the entries of its mappings beside the others, as "versions torch"."""
    flat: dict[str, Any] = {}
    for key, value in protocol.items():
        entries = value if isinstance(value, Mapping) else {"": value}
        flat.update({f"{key} {name}".strip(): entry for name, entry in entries.items()})
    return flat


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
