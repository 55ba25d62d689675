"""The three streams of the program: whatever they are when it starts, it can work, and its exit code is true.

A closed one is opened on /dev/null, before another file gets its number. What cannot be shown is escaped.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

STDOUT: Final = "standard output"
_ESCAPED: Final = "backslashreplace"


class _Out(io.FileIO):
    """stdout, whose errors say whose they are: a full one is not the disk that regwrap works on."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, STDOUT) from None


class _Err(io.FileIO):
    """stderr: whether anybody reads the log changes nothing of the work."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def open_streams() -> None:
    """Make the streams usable. Called once, before anything else is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", errors=_ESCAPED)
    sys.stdout = _text(_Out(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Err(2, "w", closefd=False), sys.stderr)


def _text(raw: io.FileIO, old: TextIO | None) -> TextIO:
    encoding = old.encoding if old else "utf-8"
    at_once = raw.fileno() == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=_ESCAPED, line_buffering=at_once)


def flush_streams() -> None:
    """Write what is left; what cannot be written is nobody's any more."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):
            discard(number)


def discard(number: int) -> None:
    """Python would complain once more when it flushes at the end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
