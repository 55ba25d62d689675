"""Bytes at a place of an open file, however many calls the kernel wants for them; and its name, where they fail."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_all_at(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """A disk that is nearly full takes a part (pwrite(2)), and says so only when asked again. Raises OSError."""
    view = memoryview(data)
    try:
        while view:
            done = os.pwrite(descriptor, view, position)
            view, position = view[done:], position + done
    except OSError as error:
        name_file(error, descriptor)
        raise


def read_at(descriptor: int, count: int, position: int) -> bytes:
    """At most `count` bytes. Raises OSError with the file's name."""
    try:
        return os.pread(descriptor, count, position)
    except OSError as error:
        name_file(error, descriptor)
        raise


def write_file(path: Path, data: bytes | str) -> None:
    """A small file, whole; text as UTF-8. Raises OSError with its name."""
    try:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    except OSError as error:
        error.filename = error.filename or f"{path}"
        raise


@contextmanager
def on_file(descriptor: int) -> Iterator[None]:
    """What fails in the block is told with the name of this open file."""
    try:
        yield
    except OSError as error:
        name_file(error, descriptor)
        raise


def name_file(error: OSError, descriptor: int) -> None:
    """Of a call on an open file the kernel tells what failed, and not where."""
    if error.filename is None:
        with suppress(OSError):
            name = Path(f"/proc/self/fd/{descriptor}").readlink()
            error.filename = f"{name}" if name.is_absolute() else None  # a pipe has a number only
