"""Read JSON and YAML documents strictly: each parser gives a value of its type, or raises ValueError with what it had
expected. No value is ever converted.

JSON that comes from outside is parsed here first: whatever the bytes are, a ValueError is the worst that comes of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMES: Final = {dict: "a mapping", list: "a list", bytes: "binary data", int: "a very large number"}

T = TypeVar("T")
Pairs = list[tuple[str, object]]


def json_object(raw: bytes | str) -> dict[str, object]:
    """The object that a document is. Raises ValueError."""
    return an_object(json_value(raw))


def json_value(raw: bytes | str, pairs: Callable[[Pairs], object] | None = None) -> object:
    """Whatever a document is; `pairs` makes the value of an object. Raises ValueError."""
    try:
        # Decoded here, because json.loads(bytes) guesses: it takes UTF-16, a BOM and lone surrogates, Go does not.
        text = raw.decode() if isinstance(raw, bytes) else raw
        return json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("too deeply nested") from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def of_kind(what: str, *kinds: type[T], fits: Callable[[T], bool] = lambda _: True) -> Callable[[object], T]:
    """A parser for values of these types; `what` names them in messages."""

    def parse(value: object) -> T:
        # True is an int to Python, and to nobody else
        if isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds) and fits(value):
            return value
        raise ValueError(f"expected {what}, got {shown(value)}")

    return parse


a_text: Final = of_kind("a string", str)
a_switch: Final = of_kind("true or false", bool)
a_list: Final[Callable[[object], list[object]]] = of_kind("a list", list)
an_object: Final[Callable[[object], dict[str, object]]] = of_kind("an object", dict)


def an_integer(low: int, high: int) -> Callable[[object], int]:
    return of_kind(f"a whole number from {low} to {high}", int, fits=lambda number: low <= number <= high)


def list_of(parse: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    return lambda value: tuple(map(parse, a_list(value)))


def or_none(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else parse(value)


def field(values: Mapping[str, object], key: str, parse: Callable[[object], T], absent: object = None) -> T:
    """What `parse` makes of the key's value, or of `absent`. The message of the ValueError begins with the key."""
    try:
        return parse(values.get(key, absent))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def shown(value: object) -> str:
    """A value as it stands in a message: bounded, on one line, without control characters."""
    if isinstance(value, str):
        text = value if len(value) <= 60 else f"{value[:60]}..."
        return json.dumps(text, ensure_ascii=not text.isprintable())
    if isinstance(value, bool | None):
        return "nothing" if value is None else json.dumps(value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**20):
        return str(value)
    return _NAMES.get(type(value), f"a {type(value).__name__}")
