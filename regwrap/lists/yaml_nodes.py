"""A YAML document as nodes that know their lines.

`yaml_read` reads them; it is imported where there is something to read, since most runs have no YAML at all.
"""

from __future__ import annotations

from dataclasses import dataclass

# Not frozen: a frozen dataclass takes four times as long to make, and a file of manifests has 100,000 nodes. Two nodes
# are the same where they are one object: an alias and its anchor.


@dataclass(slots=True, eq=False)
class Scalar:
    """A text as it was written: `1.10` stays that. None is YAML's null, or nothing at all. `is_block`: its own lines
    begin in the line below."""

    text: str | None
    line: int
    column: int
    is_block: bool = False


@dataclass(slots=True, eq=False)
class Sequence:
    """A list, with the place where it begins; both count from 1."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(slots=True, eq=False)
class Mapping:
    """Its pairs in the order of the file; keys are texts, and none stands twice."""

    pairs: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int


Node = Scalar | Sequence | Mapping
