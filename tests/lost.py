"""A medium that no longer gives the bytes of a file, as one with a bad sector: each way to read it fails."""

import errno
import io
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

CALLS = ("pread", "preadv", "copy_file_range", "splice", "fdopen", "open")


def lose(monkeypatch: pytest.MonkeyPatch, path: Path, number: int = errno.EIO, calls: Collection[str] = CALLS) -> None:
    """The very file that is there now: what gets its name later can be read. Only these `calls` fail."""
    lost = path.stat()

    class Lost(io.FileIO):
        def readinto(self, _buffer: object, /) -> int:
            raise OSError(number, os.strerror(number))

        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(number, os.strerror(number))

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *args: Any, **named: Any) -> Any:
            if os.path.samestat(os.fstat(descriptor), lost):
                raise OSError(number, os.strerror(number))
            return real(descriptor, *args, **named)

        return call

    def opening(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: int | str | Path, mode: str = "r", *args: Any, **named: Any) -> Any:
            if mode == "rb" and os.path.samestat(os.stat(file), lost):
                return Lost(file)
            return real(file, mode, *args, **named)

        return call

    for name in calls:
        module = io if name == "open" else os
        changed = opening if name in {"fdopen", "open"} else failing
        monkeypatch.setattr(module, name, changed(getattr(module, name)))
