"""A bundle that goes into a pipe: nothing of it can be taken back, so only its last bytes make it one."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from regwrap.bundle.stream import Sink
from regwrap.core.errors import ToolError, UsageError
from regwrap.core.pipes import widen
from regwrap.storage.hashing import send_range, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from regwrap.bundle.contents import BundleContents
    from regwrap.core.model import Digest


@dataclass(slots=True)
class PipeTarget:
    """`out` has no buffer. `beside` makes what goes with a release, by its id, before the first byte goes: who reads
    the pipe may need it then."""

    out: IO[bytes]
    beside: Callable[[Digest], AbstractContextManager[object]] = nullcontext
    _sent: int = field(default=0, init=False)

    @property
    def can_repeat(self) -> bool:
        return False

    @contextmanager
    def written(self, contents: BundleContents) -> Iterator[Sink]:
        """Raises UsageError for a terminal, ToolError where the reader goes away."""
        if self.out.isatty():
            raise UsageError("standard output is a terminal, not a pipe", hint="give a file with -o, or pipe it on")
        widen(self.out)
        try:
            with self.beside(contents.id):
                yield Sink(write=self._write, send=self._send if self._is_pipe() else None)
        except BrokenPipeError as error:
            raise ToolError(
                f"the reader of the bundle exited after {self._sent:,} of {contents.tar_bytes:,} bytes",
                hint="check its output, then run both again",
            ) from error

    def _is_pipe(self) -> bool:
        """The kernel hands pages of files on to one, and copies nothing."""
        with suppress(OSError):  # what is no file of the system's
            return stat.S_ISFIFO(os.fstat(self.out.fileno()).st_mode)
        return False

    def _write(self, data: memoryview) -> None:
        write_all(self.out, data)
        self._sent += len(data)

    def _send(self, source: int, offset: int, size: int) -> Iterator[int]:
        for count in send_range(source, offset, size, self.out.fileno()):
            self._sent += count
            yield count
