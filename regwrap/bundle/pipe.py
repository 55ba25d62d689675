"""A bundle that goes into a pipe: nothing of it can be taken back, so only its last bytes make it one."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from regwrap.bundle.contents import tar_bytes
from regwrap.core.errors import ToolError, UsageError
from regwrap.storage.hashing import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regwrap.bundle.contents import BundleContents

_PIPE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PipeTarget:
    """`out` has no buffer."""

    out: IO[bytes]

    @property
    def can_repeat(self) -> bool:
        return False

    @contextmanager
    def written(self, contents: BundleContents) -> Iterator[Callable[[memoryview], object]]:
        """Raises UsageError for a terminal, ToolError where the reader goes away."""
        if self.out.isatty():
            raise UsageError("standard output is a terminal, not a pipe", hint="give a file with -o, or pipe it on")
        with suppress(OSError):  # what is no pipe, or may not be larger
            fcntl.fcntl(self.out.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        sent = 0

        def write(data: memoryview) -> None:
            nonlocal sent
            write_all(self.out, data)
            sent += len(data)

        try:
            yield write
        except BrokenPipeError as error:
            raise ToolError(
                f"who reads the bundle went away after {sent:,} of {tar_bytes(contents):,} bytes",
                hint="see what it said, then run both again",
            ) from error
