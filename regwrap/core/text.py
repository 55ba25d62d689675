"""Sizes and tables as people read them, and foreign text as it may be shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from regwrap.core.fields import shown
from regwrap.core.model import ParseError

if TYPE_CHECKING:
    from collections.abc import Sequence

# what moves a terminal's cursor, ends a line, or turns the text around it (C0, C1, separators, bidi), and what no
# stream can write
_DIGEST: Final = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_UNITS: Final = {
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))},
    **{unit: 1024**power for power, unit in enumerate(("b", "kib", "mib", "gib", "tib"))},
    "": 1,
}


def parse_bytes(text: str) -> int:
    """4.7GB, 500 MB, 4GiB, or a number of bytes. Raises ParseError."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ParseError(f"expected a size such as 4.7GB or 500MB, got {shown(text)}")
    return int(float(match[1]) * unit)


def human_bytes(count: float) -> str:
    """Decimal units, as disks and registries count: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def printable(text: str, *, keep: str = "") -> str:
    """Foreign text for a terminal, a log or a message: what would act on them, instead of being seen, is escaped."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], text)


def short_digests(text: str) -> str:
    """As much of each digest as tells it from others, as docker shows them."""
    return _DIGEST.sub(r"\1", text)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest text, two blanks between, nothing behind the last."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
