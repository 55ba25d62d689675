"""A bundle as one stream of bytes, for what can't be read back: a pipe, volumes. Each blob is hashed as it passes.

One thread reads and hashes, another one writes; between them lie a few buffers, so a bundle of any size takes the same
memory. Into a pipe large blobs go from their files, page by page, while they are hashed there: the end that makes it a
bundle follows when all were right, and who reads it hashes what came.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.contents import BUNDLE_JSON, links_end, padded, tar_bytes
from regwrap.bundle.image_set import file_image_set
from regwrap.bundle.pack import broken, broken_by
from regwrap.bundle.write import header_of, link_bytes
from regwrap.core.errors import BrokenBlobError, IntegrityError
from regwrap.core.writing import UnreadableError
from regwrap.storage import layout
from regwrap.storage.hashing import PIECE_BYTES, pieces_at, read_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.files import Range
    from regwrap.bundle.select import Selection
    from regwrap.core.listener import Listener

_BUFFER_BYTES: Final = 1024 * 1024
_BUFFERS: Final = 6


class Target(Protocol):
    """Where a stream goes."""

    @property
    def can_repeat(self) -> bool:
        """Whether what was written counts for nothing before the end, and can be written anew."""

    @property
    def send(self) -> Callable[[int, int, int], None] | None:
        """What takes bytes of a file instead: a descriptor, from where, how many. None where all have to be read."""

    def written(self, contents: BundleContents) -> AbstractContextManager[Callable[[memoryview], object]]:
        """What takes the bundle's bytes, in order; it has them for good when the block ends without an error."""


@contextmanager
def streamed_bundle(selection: Selection, target: Target, listener: Listener, *, hashed: bool) -> Iterator[None]:
    """The bundle, as far as it can't be taken for one; its end follows when the block ends. Raises BrokenBlobError, or
    IntegrityError where nothing can be repeated."""
    contents = selection.contents
    with target.written(contents) as write:
        try:
            _write_ahead(write, target.send, lambda ahead: _fill(ahead, selection, listener, hashed=hashed))
        except (IntegrityError, UnreadableError) as error:
            failure: IntegrityError = _damage(error, selection)
            if not target.can_repeat:
                failure = IntegrityError(failure.message, problems=failure.problems, hint=failure.hint)
            raise failure from (None if failure is error else error)
        yield
        write(memoryview(bytes(tar_bytes(contents) - links_end(contents))))


def _damage(error: IntegrityError | UnreadableError, selection: Selection) -> BrokenBlobError:
    if isinstance(error, BrokenBlobError):
        return error
    if isinstance(error, UnreadableError):
        return broken_by(selection, (f"{error.filename} cannot be read: {error.strerror}",))
    # one that was cut meanwhile is found by its size, whoever of both came upon it
    return broken(set(), selection, hashed=False)


def _fill(ahead: _Ahead, selection: Selection, listener: Listener, *, hashed: bool) -> None:
    """All members, in order."""
    contents, json = selection.contents, selection.contents.to_json()
    image_set = file_image_set(f"{selection.storage.root}", contents, lambda _digest: selection.storage)
    ahead.add(header_of(BUNDLE_JSON, len(json)) + json + bytes(padded(len(json)) - len(json)))
    for digest, size in contents.blobs:
        state = hashlib.sha256()
        ahead.add(header_of(layout.blob_path(digest), size))
        with image_set.opened(digest) as (descriptor, located):
            for piece in ahead.blob((descriptor, located.offset, size), hashed=hashed):
                if hashed:
                    state.update(piece)
        if hashed and state.hexdigest() != digest.hex:
            raise broken({digest}, selection, hashed=True)
        listener.on_bytes(size)
        ahead.add(bytes(padded(size) - size))
    for member in contents.members:
        if member.link is not None:
            ahead.add(link_bytes(member))


def _write_ahead(
    write: Callable[[memoryview], object],
    send: Callable[[int, int, int], None] | None,
    fill: Callable[[_Ahead], None],
) -> None:
    """What `fill` adds, while more of it is read. What ended its thread is raised when all that it read was written."""
    ahead = _Ahead(shares=send is not None)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
            reading = pool.submit(ahead.run, fill)
            try:
                for data, shared in ahead.buffers():
                    write(data)
                    if send is not None and shared is not None:
                        send(*shared)
                reading.result()
            finally:
                ahead.end()
    finally:
        ahead.close()


class _WriterGoneError(Exception):
    """Whoever wrote has ended."""


@dataclass(slots=True)
class _Ahead:
    """`free` buffers, and those that are `filled`, with how far, and which bytes of a file follow; then None. Blobs are
    read right into them: to move two gigabytes once more took as long as to hash them. `shares`: large ones are not
    read for who writes, who takes them from their files."""

    shares: bool
    free: SimpleQueue[memoryview | None] = field(default_factory=SimpleQueue)
    filled: SimpleQueue[tuple[memoryview, int, Range | None] | None] = field(default_factory=SimpleQueue)
    _buffer: memoryview = field(default_factory=lambda: memoryview(b""))
    _end: int = 0
    _is_over: bool = False

    def run(self, fill: Callable[[_Ahead], None]) -> None:
        for _ in range(_BUFFERS):
            self.free.put(memoryview(bytearray(_BUFFER_BYTES)))
        try:
            with suppress(_WriterGoneError):
                fill(self)
                self._flush()
        finally:
            self.filled.put(None)

    def add(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            room = self._room(len(rest))
            room[:] = rest[: len(room)]
            rest = rest[len(room) :]
            self._end += len(room)

    def blob(self, place: Range, *, hashed: bool) -> Iterator[memoryview]:
        """Adds these bytes of a file, behind a header, and yields each piece of them: for who has them `hashed`, or
        where they are read anyway. Raises IntegrityError where they are cut."""
        if not self.shares or place[2] < PIECE_BYTES:
            yield from self._read(*place)
            return
        descriptor, offset, size = place
        self._flush((os.dup(descriptor), offset, size))
        for piece in pieces_at(*place) if hashed else ():
            if self._is_over:
                raise _WriterGoneError
            yield piece

    def _read(self, descriptor: int, offset: int, size: int) -> Iterator[memoryview]:
        position, end = offset, offset + size
        while position < end:
            room = self._room(min(PIECE_BYTES, end - position))
            count = read_piece(descriptor, room, position)
            yield room[:count]
            position += count
            self._end += count

    def _room(self, most: int) -> memoryview:
        """Where the next bytes go: at most so many. Raises _WriterGoneError."""
        if self._end == len(self._buffer):
            if self._end:
                self._flush()
            buffer = self.free.get()
            if buffer is None:
                raise _WriterGoneError
            self._buffer, self._end = buffer, 0
        return self._buffer[self._end : self._end + most]

    def _flush(self, following: Range | None = None) -> None:
        self.filled.put((self._buffer, self._end, following))
        self._buffer, self._end = memoryview(b""), 0

    def buffers(self) -> Iterator[tuple[memoryview, Range | None]]:
        """Each is good until the next is asked for."""
        while (item := self.filled.get()) is not None:
            buffer, end, following = item
            try:
                yield buffer[:end], following
            finally:
                _close(following)
            self.free.put(buffer)

    def end(self) -> None:
        """Nobody takes more: who fills ends."""
        self._is_over = True
        self.free.put(None)

    def close(self) -> None:
        """What was not taken."""
        while not self.filled.empty():
            _close((self.filled.get() or (None, 0, None))[2])


def _close(following: Range | None) -> None:
    if following is not None:
        os.close(following[0])
