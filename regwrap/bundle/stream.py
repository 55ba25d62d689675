"""A bundle as one stream of bytes, for what can't be read back: a pipe, volumes. Each blob is hashed as it passes.

One thread reads and hashes, another one writes; between them lie a few buffers, so a bundle of any size takes the same
memory.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.contents import BUNDLE_JSON, links_end, padded, tar_bytes
from regwrap.bundle.image_set import file_image_set
from regwrap.bundle.pack import broken
from regwrap.bundle.write import header_of, link_bytes
from regwrap.core.errors import BrokenBlobError, IntegrityError
from regwrap.storage import layout
from regwrap.storage.hashing import PIECE_BYTES, read_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.select import Selection
    from regwrap.core.listener import Listener

_BUFFER_BYTES: Final = 1024 * 1024
_BUFFERS: Final = 6


class Target(Protocol):
    """Where a stream goes."""

    @property
    def can_repeat(self) -> bool:
        """Whether what was written counts for nothing before the end, and can be written anew."""

    def written(self, contents: BundleContents) -> AbstractContextManager[Callable[[memoryview], object]]:
        """What takes the bundle's bytes, in order; it has them for good when the block ends without an error."""


@contextmanager
def streamed_bundle(selection: Selection, target: Target, listener: Listener, *, hashed: bool) -> Iterator[None]:
    """The bundle, as far as it can't be taken for one; its end follows when the block ends. Raises BrokenBlobError, or
    IntegrityError where nothing can be repeated."""
    contents = selection.contents
    with target.written(contents) as write:
        try:
            with _read_ahead(lambda ahead: _fill(ahead, selection, listener, hashed=hashed)) as pieces:
                for piece in pieces:
                    write(piece)
        except BrokenBlobError as error:
            if target.can_repeat:
                raise
            raise IntegrityError(error.message, problems=error.problems, hint=error.hint) from error
        yield
        write(memoryview(bytes(tar_bytes(contents) - links_end(contents))))


def _fill(ahead: _Ahead, selection: Selection, listener: Listener, *, hashed: bool) -> None:
    """All members, in order."""
    contents, json = selection.contents, selection.contents.to_json()
    image_set = file_image_set(f"{selection.storage.root}", contents, lambda _digest: selection.storage)
    ahead.add(header_of(BUNDLE_JSON, len(json)) + json + bytes(padded(len(json)) - len(json)))
    for digest, size in contents.blobs:
        state = hashlib.sha256()
        ahead.add(header_of(layout.blob_path(digest), size))
        with image_set.opened(digest) as (descriptor, located):
            for piece in ahead.read(descriptor, located.offset, size):
                if hashed:
                    state.update(piece)
        if hashed and state.hexdigest() != digest.hex:
            raise broken({digest}, selection, hashed=True)
        listener.on_bytes(size)
        ahead.add(bytes(padded(size) - size))
    for member in contents.members:
        if member.link is not None:
            ahead.add(link_bytes(member))


@contextmanager
def _read_ahead(fill: Callable[[_Ahead], None]) -> Iterator[Iterator[memoryview]]:
    """What `fill` adds, in buffers of a megabyte, while the last one is written. What ended its thread is raised when
    all that it read was taken."""
    ahead = _Ahead()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        reading = pool.submit(ahead.run, fill)
        try:
            yield ahead.taken(reading)
        finally:
            ahead.free.put(None)


class _NobodyTakesError(Exception):
    """Whoever wrote has ended."""


@dataclass(slots=True)
class _Ahead:
    """`free` buffers, and those that are `filled`, with how far; then None. Blobs are read right into them: to move two
    gigabytes once more took as long as to hash them."""

    free: SimpleQueue[memoryview | None] = field(default_factory=SimpleQueue)
    filled: SimpleQueue[tuple[memoryview, int] | None] = field(default_factory=SimpleQueue)
    _buffer: memoryview = field(default_factory=lambda: memoryview(b""))
    _end: int = 0

    def run(self, fill: Callable[[_Ahead], None]) -> None:
        for _ in range(_BUFFERS):
            self.free.put(memoryview(bytearray(_BUFFER_BYTES)))
        try:
            with suppress(_NobodyTakesError):
                fill(self)
                self.filled.put((self._buffer, self._end))
        finally:
            self.filled.put(None)

    def add(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            room = self._room(len(rest))
            room[:] = rest[: len(room)]
            rest = rest[len(room) :]
            self._end += len(room)

    def read(self, descriptor: int, offset: int, size: int) -> Iterator[memoryview]:
        """Adds these bytes of a file, and yields each piece of them before the next one is read. Raises IntegrityError
        where they are cut."""
        position, end = offset, offset + size
        while position < end:
            room = self._room(min(PIECE_BYTES, end - position))
            count = read_piece(descriptor, room, position)
            yield room[:count]
            position += count
            self._end += count

    def _room(self, most: int) -> memoryview:
        """Where the next bytes go: at most so many. Raises _NobodyTakesError."""
        if self._end == len(self._buffer):
            if self._end:
                self.filled.put((self._buffer, self._end))
            buffer = self.free.get()
            if buffer is None:
                raise _NobodyTakesError
            self._buffer, self._end = buffer, 0
        return self._buffer[self._end : self._end + most]

    def taken(self, reading: Future[None]) -> Iterator[memoryview]:
        """Each is good until the next is asked for."""
        while (item := self.filled.get()) is not None:
            buffer, end = item
            yield buffer[:end]
            self.free.put(buffer)
        reading.result()
