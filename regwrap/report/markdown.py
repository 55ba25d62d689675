"""Markdown from names and words that come from others: they are text in it, never Markdown or HTML. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def table_lines(head: Sequence[str], rows: Sequence[tuple[str, ...]], shown: int | None = None) -> Iterator[str]:
    """A table below an empty line; of more rows than `shown` their number."""
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(map(cell, row))} |" for row in rows[:shown])
    if shown is not None and len(rows) > shown:
        yield ""
        yield f"and {len(rows) - shown} more"


def cell(text: str) -> str:
    """Text as it stands in a table."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for character in "|`*_[]":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())
