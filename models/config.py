"""What a configuration may hold: one schema for Python callers, the command line and JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")
NAMED = 5  # unknown fields that a message names
SHOWN = 80  # characters of a wrong value


def check_fields(config: Any, where: str | None = None) -> None:
    """ValueError if a field of the (frozen) dataclass does not hold what its type hint says; lists become tuples.

    Numbers are finite, whole where the hint is int, and no booleans. where: what the message begins with (default: the
    class and a colon).
    """
    where = f"{type(config).__name__}: " if where is None else where
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = checked(f"{where}{field.name}", hints[field.name], getattr(config, field.name))
        object.__setattr__(config, field.name, value)


def from_dict(kind: type[C], values: Any, prefix: str = "") -> C:
    """A (nested) config dataclass from its ``dataclasses.asdict``, or from JSON of it.

    ValueError in one line with the dotted name, after ``prefix``, of a field that is unknown or of another type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__}: {prefix.rstrip('.') or 'it'} must hold named fields, got {_short(values)}")
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(f"{prefix}{name}" for name in values if name not in names)
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise ValueError(f"{kind.__name__}: has no field {', '.join(unknown[:NAMED])}{more}")
    given = {}
    for name, value in values.items():
        hint, dotted = hints[name], f"{prefix}{name}"
        nested = dataclasses.is_dataclass(hint)
        given[name] = (
            from_dict(hint, value, f"{dotted}.") if nested else checked(f"{kind.__name__}: {dotted}", hint, value)
        )
    return kind(**given)


def checked(name: str, hint: Any, value: Any) -> Any:
    """``value`` if it is what ``hint`` says, a list as a tuple; ValueError that begins with ``name`` otherwise."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not NoneType)
        return checked(name, hint, value)
    if origin is Literal:
        return _require(
            any(type(value) is type(known) and value == known for known in arguments),
            name,
            f"one of {', '.join(map(str, arguments))}",
            value,
        )
    if origin is tuple:
        many = len(arguments) == 2 and arguments[1] is Ellipsis
        _require(
            isinstance(value, list | tuple) and (many or len(value) == len(arguments)),
            name,
            "a list" if many else f"a list of {len(arguments)}",
            value,
        )
        return tuple(checked(name, arguments[0] if many else arguments[i], item) for i, item in enumerate(value))
    if hint is int:
        return _require(isinstance(value, int) and not isinstance(value, bool), name, "a whole number", value)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
        return _require(number, name, "a finite number", value)
    if hint in (bool, str) or dataclasses.is_dataclass(hint):
        words = {bool: "true or false", str: "a text"}
        return _require(isinstance(value, hint), name, words.get(hint, f"a {getattr(hint, '__name__', hint)}"), value)
    return value


def fixed_fields(config: Any) -> set[str]:
    """Dotted names of the settings that act only when a game is built or at its first step.

    A class names its own in ``at_start``: changed in a run that goes on, they would do nothing or fit no checkpoint.
    """
    fixed = set(getattr(config, "at_start", ()))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            fixed |= {f"{field.name}.{name}" for name in fixed_fields(value)}
    return fixed


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number past the largest float
        return False


def _require(condition: bool, name: str, rule: str, value: Any) -> Any:
    if not condition:
        raise ValueError(f"{name} must be {rule}, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
