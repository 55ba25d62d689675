"""A YAML document as nodes that know their lines.

`yamldoc` reads them; it is imported where there is something to read, since most runs have no YAML at all.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A text as it was written: `1.10` stays that. None is YAML's null, or nothing at all."""

    text: str | None
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Its pairs in the order of the file; keys are texts, and none stands twice."""

    pairs: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int


Node = Scalar | Sequence | Mapping
