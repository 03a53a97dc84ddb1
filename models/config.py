"""What a config may hold: one schema for the command line, JSON and Python callers.

A config is a frozen dataclass that calls ``check_fields`` in its ``__post_init__``, then ``check_range`` for the rules
that a type cannot say. Class variables that a config may declare:

    at_start: names of its own fields that act only when a game is built or at its first step (``fixed_fields``).
    code: names of its own fields that may name code to import, as MODULE:FUNCTION.
    known_as: the field of another config that it fills, such as "forest", for messages to say forest.lr.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")


def check_fields(config: Any, where: str = "") -> None:
    """ValueError unless every field of the dataclass ``config`` holds what its type hint says.

    where: what the message begins with (default: the class's name).

    int: an integer, and no bool. float: a finite number. bool, str, Literal, Optional and tuples: as they say. A nested
    config's own fields are checked too.
    """
    _check(config, where or type(config).__name__, getattr(config, "known_as", ""))


def check_range(
    config: Any, name: str, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """ValueError unless the number in field ``name`` is at least ``least``, above ``above`` and at most ``most``."""
    value = getattr(config, name)
    if least is not None and not value >= least:
        rule = f"be at least {least}" if least else "not be negative"
    elif above is not None and not value > above:
        rule = f"be above {above}" if above else "be positive"
    elif most is not None and not value <= most:
        rule = f"be at most {most}"
    else:
        return
    raise ValueError(
        f"{type(config).__name__}: {_dotted(getattr(config, 'known_as', ''), name)} must {rule}, got {_short(value)}"
    )


def from_dict(kind: type[C], values: Any) -> C:
    """A (nested) config dataclass of ``kind`` from its ``dataclasses.asdict``, which may have been through JSON.

    Lists become tuples where a tuple is meant; fields that are not given keep their defaults. ValueError in one line
    that names the field, dotted, for anything that does not fit: no mapping, an unknown field, a wrong type or value.
    """
    return _built(kind, values, kind.__name__, "")


def fixed_fields(config: Any) -> frozenset[str]:
    """Dotted names of fields that act only when a game is built or at its first step.

    config: a config or its class. With another value, a resumed run would go on as before, or its state would not fit.
    They are what ``at_start`` of the class, its bases and its nested configs declares.
    """
    kind = config if isinstance(config, type) else type(config)
    names = {name for base in kind.__mro__ for name in vars(base).get("at_start", ())}
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            names |= {f"{field.name}.{name}" for name in fixed_fields(hints[field.name])}
    return frozenset(names)


def _check(config: Any, top: str, path: str) -> None:
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), _dotted(path, field.name)
        if rule := _rule(hints[field.name], value):
            raise ValueError(f"{top}: {name} must be {rule}, got {_short(value)}")
        if dataclasses.is_dataclass(value):
            _check(value, top, name)


def _built(kind: type[C], values: Any, top: str, path: str) -> C:
    """``from_dict`` for the field ``path`` of a config named ``top``."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{top}: {path or 'a config'} must be a mapping of names to values, got {_short(values)}")
    hints: dict[str, Any] = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in fields]:
        named = ", ".join(_dotted(path, _short(name, str)) for name in unknown[:3])
        raise ValueError(f"{top}: has no field {named}" + (f" and {len(unknown) - 3} more" if unknown[3:] else ""))
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{top}: {_dotted(path, name)} is missing")
    made: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and not isinstance(value, hint):  # type: ignore[arg-type]
            value = _built(hint, value, top, _dotted(path, name))  # type: ignore[arg-type]
        made[name] = _tuples(hint, value)
        if rule := _rule(hint, made[name]):
            raise ValueError(f"{top}: {_dotted(path, name)} must be {rule}, got {_short(value)}")
    try:
        return kind(**made)
    except ValueError as error:  # "Inner: field must ..." of a nested config
        head, _, rest = str(error).partition(": ")
        if not path:
            raise
        rest = rest.removeprefix(f"{path.rpartition('.')[2]}.")  # Inner may say itself which field it fills
        raise ValueError(f"{top}: {path}.{rest}" if rest else f"{top}: {path}: {head}") from None


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _rule(hint: Any, value: Any) -> str:
    """What ``value`` must be for the type hint ``hint``; empty if it is, or if the hint is of a kind not known here."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return ""
    if origin in (Union, UnionType):
        rules = [_rule(argument, value) for argument in arguments]
        return "" if "" in rules else " or ".join(rules)
    if origin is Literal:
        fits = any(type(value) is type(choice) and value == choice for choice in arguments)
        return "" if fits else f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return _tuple_rule(arguments, value)
    if dataclasses.is_dataclass(hint):
        return "" if isinstance(value, hint) else f"a {hint.__name__}"  # type: ignore[arg-type, union-attr]
    if hint is float:
        return "" if _is_finite(value) else "a finite number"
    if hint is int:
        return "" if isinstance(value, int) and not isinstance(value, bool) else "an integer"
    kinds = {bool: "True or False", str: "text", NoneType: "None"}
    if hint in kinds:
        return "" if isinstance(value, hint) else kinds[hint]
    plain = origin or hint
    return "" if not isinstance(plain, type) or isinstance(value, plain) else f"a {plain.__name__}"


def _tuple_rule(arguments: tuple[Any, ...], value: Any) -> str:
    """The same for tuple[X, Y] and tuple[X, ...]."""
    endless = arguments[-1:] == (Ellipsis,)
    if not isinstance(value, tuple) or not (endless or len(value) == len(arguments)):
        return "a tuple" if endless else f"a tuple of {len(arguments)}"
    items = zip(arguments[:1] * len(value) if endless else arguments, value, strict=True)
    rules = [rule for hint, item in items if (rule := _rule(hint, item))]
    return f"a tuple in which each is {rules[0]}" if rules else ""


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer past the largest float
        return False


def _tuples(hint: Any, value: Any) -> Any:
    """``value`` with lists as tuples where ``hint`` is one."""
    if not isinstance(value, list):
        return value
    for kind in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        if get_origin(kind) is tuple:
            arguments = get_args(kind)
            inner = arguments[:1] * len(value) if arguments[-1:] == (Ellipsis,) else arguments
            return tuple(_tuples(h, v) for h, v in zip(inner, value, strict=False)) + tuple(value[len(inner) :])
    return value


def _short(value: Any, form: Any = repr) -> str:
    """``value`` on one line of at most 60 characters."""
    try:
        text = form(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a list nested as deeply
        text = f"a {type(value).__name__}"
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= 60 else text[:57] + "..."
