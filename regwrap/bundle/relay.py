"""A bundle's bytes from hand to hand: two threads each read a piece, hash and write it, and pass on whose turn it is.

A piece stays with one thread, in the cache of one processor, while all that has to happen in the bundle's order does:
who is at one step lets go of it when the next one is his. Handed from one thread that reads to others that hash and
write, each would fetch them from another processor's cache.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from regwrap.core.errors import IntegrityError
from regwrap.core.interruption import uninterrupted
from regwrap.core.writing import UnreadableError
from regwrap.storage.hashing import read_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from regwrap.bundle.files import Range
    from regwrap.core.model import Digest

_THREADS: Final = 2
_PIECE_BYTES: Final = 1024 * 1024
"""Large enough that turns are passed on seldom, and still in the processor's second cache when it is written."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of a file, which is open until somebody asks for what follows them."""

    place: Range
    digest: Digest


Members: TypeAlias = "Generator[bytes | Blob, None, None]"
"""All that a stream consists of, in order."""
Take: TypeAlias = "Callable[[memoryview], Callable[[], None]]"
"""Does with the next bytes what has to be done in order; what it returns writes them, at any time and by any thread."""


@dataclass(slots=True, kw_only=True)
class Relay:
    """`on_bytes` hears how many bytes of blobs were written. Where not `hashed`, these are not compared with their
    digests. `wrong` gets those that do not match them; then no more are read."""

    members: Members
    take: Take
    on_bytes: Callable[[int], None]
    hashed: bool
    wrong: set[Digest]
    _source: _Source = field(init=False)
    _is_over: bool = False
    _reads: Lock = field(default_factory=Lock)
    _hashes: Lock = field(default_factory=Lock)
    _takes: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._source = _Source(self.members)

    def run(self) -> None:
        """What goes wrong is raised when all that was read before has been hashed."""
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="relay")
        try:
            with uninterrupted():  # a thread that nobody knows yet would be left
                works = [pool.submit(self._work) for _ in range(_THREADS)]
            for work in works:
                work.result()
        finally:
            self._is_over = True
            with uninterrupted():  # what they have open is closed next
                pool.shutdown()

    def _work(self) -> None:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        try:
            while (write := self._in_turn(buffer)) is not None:
                write()
        finally:
            self._is_over = True

    def _in_turn(self, buffer: memoryview) -> Callable[[], None] | None:
        """What writes the next piece; None where there is none."""
        step = self._reads
        step.acquire()
        try:
            piece = self._source.fill(buffer) if not self._is_over else None
            if piece is None:
                return None
            step = _next_step(step, self._hashes)
            self._hash(piece)
            step = _next_step(step, self._takes)
            write = self.take(piece.data)
        finally:
            step.release()
        return lambda: self._write(write, piece)

    def _write(self, write: Callable[[], None], piece: _Piece) -> None:
        write()
        self.on_bytes(sum(len(part.data) for part in piece.parts))

    def _hash(self, piece: _Piece) -> None:
        for part in piece.parts if self.hashed else ():
            digest = part.of.blob.digest
            part.of.state.update(part.data)
            if part.is_last and part.of.state.hexdigest() != digest.hex:
                self.wrong.add(digest)
                self._is_over = True


def _next_step(step: Lock, following: Lock) -> Lock:
    """Whoever comes behind can be at the step that was left, and not before us at the following one."""
    following.acquire()
    step.release()
    return following


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes of a blob; the last complete it."""

    data: memoryview
    of: _Reading
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    """`parts` of it are of blobs."""

    data: memoryview
    parts: tuple[_Part, ...]


@dataclass(slots=True)
class _Plain:
    """Bytes of no blob."""

    rest: memoryview

    @property
    def is_read(self) -> bool:
        return not self.rest

    def read_into(self, room: memoryview) -> int:
        count = min(len(room), len(self.rest))
        room[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


@dataclass(slots=True)
class _Reading:
    """A blob, as far as it was read."""

    blob: Blob
    done: int = 0
    state: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def is_read(self) -> bool:
        return self.done == self.blob.place[2]

    def read_into(self, room: memoryview) -> int:
        """Raises IntegrityError, UnreadableError."""
        descriptor, offset, size = self.blob.place
        count = read_piece(descriptor, room[: size - self.done], offset + self.done) if not self.is_read else 0
        self.done += count
        return count


@dataclass(slots=True)
class _Source:
    """What is read next: the rest of a member, or the next one."""

    members: Members
    member: _Plain | _Reading | None = None
    failure: IntegrityError | UnreadableError | None = None

    def fill(self, buffer: memoryview) -> _Piece | None:
        """None at the end. What cannot be read is raised by the call after the one that came upon it."""
        end, parts = 0, list[_Part]()
        try:
            while self.failure is None and end < len(buffer) and (member := self._current()) is not None:
                count = member.read_into(buffer[end:])
                if isinstance(member, _Reading):
                    parts.append(_Part(buffer[end : end + count], member, member.is_read))
                end += count
        except (IntegrityError, UnreadableError) as error:
            self.failure = error
        if end or parts:
            return _Piece(buffer[:end], tuple(parts))
        if self.failure is not None:
            raise self.failure
        return None

    def _current(self) -> _Plain | _Reading | None:
        if self.member is None or self.member.is_read:
            member = next(self.members, None)
            if member is None:
                return None
            self.member = _Reading(member) if isinstance(member, Blob) else _Plain(memoryview(member))
        return self.member
