"""What a score depends on, kept beside it; scores of unlike protocols are not compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    names: what the scores are of, such as the runs' folders (default: #1, #2, ...). Versions of libraries that
    change scores by rounding alone may differ (``RECORDED``); all else may not.
    """
    shown = [*names, *(f"#{i + 1}" for i in range(len(names), len(protocols)))]
    for name, other in zip(shown[1:], protocols[1:], strict=True):
        first, second = _comparable(protocols[0]), _comparable(other)
        differences = [
            f"{key} {_short(first.get(key))} and {_short(second.get(key))}"
            for key in dict.fromkeys([*first, *second])
            if first.get(key) != second.get(key)
        ]
        if differences:
            raise ValueError(f"scores: {shown[0]} and {name} cannot be compared: {'; '.join(differences)}")


def _comparable(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that must agree, flat."""
    flat: dict[str, Any] = {}
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            flat.update({f"{key} {inner}": entry for inner, entry in value.items() if inner not in RECORDED})
        else:
            flat[key] = value
    return flat


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
