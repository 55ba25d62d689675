"""How much a pipe takes at once."""

from __future__ import annotations

import fcntl
from contextlib import suppress
from typing import IO, Final

PIPE_BYTES: Final = 1024 * 1024  # what anybody may ask for: pipe(7)


def widen(file: int | IO[bytes]) -> None:
    """A pipe takes more at once, at whichever end: both sides of a small one wait for each other most of the time."""
    with suppress(OSError):  # what is no pipe, or may not be larger
        if fcntl.fcntl(file, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
            fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
