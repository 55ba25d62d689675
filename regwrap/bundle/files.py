"""The file a bundle lies in, or the volumes that it was cut into: read at any place, as if they were one."""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from regwrap.core.errors import IntegrityError
from regwrap.core.manifest import MAX_MANIFEST_BYTES
from regwrap.core.writing import read_at, temporary_file
from regwrap.storage.hashing import pieces_at, reading, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.core.model import Digest

Range = tuple[int, int, int]  # a descriptor, from where, how many bytes


@dataclass(frozen=True, slots=True)
class Located:
    """Where bytes lie in a file."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def read_small(descriptor: int, located: Located, digest: Digest) -> bytes:
    """A manifest's or config's bytes, not verified. Raises IntegrityError for what is larger than any manifest."""
    if located.size > MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{digest.short} has {located.size} bytes, too many for a manifest")
    with reading(digest):
        return read_at(descriptor, located.size, located.offset)


class BundleFile(Protocol):
    """`size` of all of it, in bytes."""

    @property
    def size(self) -> int: ...

    def pread(self, count: int, offset: int) -> bytes:
        """Less than `count` bytes at the end only."""

    def ranges(self, located: Located) -> list[Range]:
        """The same bytes in real files, in order."""

    def opened(self, located: Located) -> AbstractContextManager[tuple[int, Located]]:
        """The same bytes in one real file, for the block."""


@dataclass(frozen=True, slots=True)
class OneFile:
    """A bundle in one file that is open."""

    descriptor: int
    size: int

    def pread(self, count: int, offset: int) -> bytes:
        return read_at(self.descriptor, count, offset)

    def ranges(self, located: Located) -> list[Range]:
        return [(self.descriptor, located.offset, located.size)]

    def opened(self, located: Located) -> AbstractContextManager[tuple[int, Located]]:
        return nullcontext((self.descriptor, located))


@dataclass(frozen=True, slots=True)
class ManyFiles:
    """Volumes: `starts` has where each begins, and last where all of them end."""

    descriptors: tuple[int, ...]
    starts: tuple[int, ...]
    _copies: dict[Located, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def size(self) -> int:
        return self.starts[-1]

    def pread(self, count: int, offset: int) -> bytes:
        count = min(count, max(0, self.size - offset))
        return b"".join(read_at(fd, size, start) for fd, start, size in self.ranges(Located(offset, count)))

    def ranges(self, located: Located) -> list[Range]:
        found, offset = list[Range](), located.offset
        while offset < located.end:
            number = bisect_right(self.starts, offset) - 1
            end = min(located.end, self.starts[number + 1])
            found.append((self.descriptors[number], offset - self.starts[number], end - offset))
            offset = end
        return found

    @contextmanager
    def opened(self, located: Located) -> Iterator[tuple[int, Located]]:
        """What two volumes share is copied together once, into a file without a name."""
        parts = self.ranges(located)
        if len(parts) <= 1:
            fd, start, *_ = parts[0] if parts else (self.descriptors[0], 0)
            yield fd, Located(start, located.size)
            return
        with self._lock:
            if located not in self._copies:
                self._copies[located] = _together(parts)
        yield self._copies[located], Located(0, located.size)

    def close(self) -> None:
        for descriptor in self._copies.values():
            os.close(descriptor)


def _together(parts: list[Range]) -> int:
    with temporary_file() as file:
        for descriptor, start, size in parts:
            for piece in pieces_at(descriptor, start, size):
                write_all(file, piece)
        return os.dup(file.fileno())
