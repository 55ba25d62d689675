"""Files that people name and that somebody else may have written: read within a bound, or refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regwrap.core.errors import UsageError
from regwrap.core.writing import named_on_error

if TYPE_CHECKING:
    from pathlib import Path


def read_bounded(path: Path, limit: int) -> bytes:
    """All of a file of at most `limit` bytes; it may have no end. Raises UsageError and OSError."""
    with named_on_error(path.open("rb")) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{path} has more than {limit:,} bytes", hint="check whether it is the file that you mean")
    return data
