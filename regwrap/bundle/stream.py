"""A bundle as one stream of bytes, for what can't be read back: a pipe, volumes. Each blob is hashed as it passes.

For a pipe one thread reads and hashes, another one writes; between them lie a few buffers, so a bundle of any size
takes the same memory. Large blobs go into it from their files, page by page, while they are hashed there: the end that
makes it a bundle follows when all were right, and who reads it hashes what came. Volumes take their bytes as a relay.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.contents import BUNDLE_JSON, links_end, padded
from regwrap.bundle.image_set import file_image_set
from regwrap.bundle.pack import broken, broken_by
from regwrap.bundle.relay import Blob, Members, Relay, Take
from regwrap.bundle.write import header_of, link_bytes
from regwrap.core.errors import BrokenBlobError, IntegrityError
from regwrap.core.model import Digest
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """`write` takes a bundle's bytes in order. Where there is a `send`, it takes bytes of a file instead: a descriptor,
    from where, how many; it yields how many went. With `take` several threads can write."""

    write: Callable[[memoryview], None]
    send: Callable[[int, int, int], Iterator[int]] | None = None
    take: Take | None = None


class Target(Protocol):
    """Where a stream goes."""

    @property
    def can_repeat(self) -> bool:
        """Whether what was written counts for nothing before the end, and can be written anew."""

    def written(self, contents: BundleContents) -> AbstractContextManager[Sink]:
        """It has the bundle's bytes for good when the block ends without an error."""


@contextmanager
def streamed_bundle(selection: Selection, target: Target, listener: Listener, *, hashed: bool) -> Iterator[None]:
    """The bundle, as far as it can't be taken for one; its end follows when the block ends. Raises BrokenBlobError, or
    IntegrityError where nothing can be repeated."""
    contents = selection.contents
    with target.written(contents) as sink:
        try:
            _write(selection, sink, listener, hashed=hashed)
        except BrokenBlobError as error:
            if not target.can_repeat:
                raise IntegrityError(error.message, problems=error.problems, hint=error.hint) from None
            raise
        yield
        sink.write(memoryview(bytes(contents.tar_bytes - links_end(contents))))


def _write(selection: Selection, sink: Sink, listener: Listener, *, hashed: bool) -> None:
    """Raises BrokenBlobError."""
    wrong = set[Digest]()
    with closing(_members(selection)) as members:
        try:
            if sink.take is None:
                _write_ahead(sink, members, listener, wrong, hashed=hashed)
            else:
                Relay(members=members, take=sink.take, on_bytes=listener.on_bytes, hashed=hashed, wrong=wrong).run()
        except (IntegrityError, UnreadableError) as error:
            raise _damage(error, selection, wrong) from error
    if wrong:
        raise broken(wrong, selection, hashed=True)


def _damage(error: IntegrityError | UnreadableError, selection: Selection, wrong: set[Digest]) -> BrokenBlobError:
    """All that was found until then. A blob that was cut meanwhile is known by its size."""
    damage = broken(wrong, selection, hashed=True)
    if isinstance(error, UnreadableError):
        return broken_by(selection, (*damage.problems, f"{error.filename} cannot be read: {error.strerror}"))
    return damage if damage.problems else broken_by(selection, (error.message,))


def _members(selection: Selection) -> Members:
    contents, json = selection.contents, selection.contents.to_json()
    image_set = file_image_set(f"{selection.storage.root}", contents, lambda _digest: selection.storage)
    yield header_of(BUNDLE_JSON, len(json)) + json + bytes(padded(len(json)) - len(json))
    for digest, size in contents.blobs:
        yield header_of(layout.blob_path(digest), size)
        with image_set.opened(digest) as (descriptor, located):
            yield Blob((descriptor, located.offset, size), digest)
        yield bytes(padded(size) - size)
    for member in contents.members:
        if member.link is not None:
            yield link_bytes(member)


def _write_ahead(sink: Sink, members: Members, listener: Listener, wrong: set[Digest], *, hashed: bool) -> None:
    """While more of them is read. What ended its thread is raised when all that it read was written."""
    ahead = _Ahead(shares=sink.send is not None)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
            reading = pool.submit(ahead.run, members, wrong, hashed=hashed)
            try:
                for filled in ahead.buffers():
                    sink.write(filled.data)
                    listener.on_bytes(filled.of_blobs)
                    if sink.send is not None and filled.following is not None:
                        for count in sink.send(*filled.following):
                            listener.on_bytes(count)
                reading.result()
            finally:
                ahead.end()
    finally:
        ahead.close()


class _WriterGoneError(Exception):
    """Whoever wrote has ended."""


@dataclass(frozen=True, slots=True)
class _Filled:
    """`data` is what was filled of a buffer, with so many bytes of blobs; those of a file may follow."""

    buffer: memoryview
    data: memoryview
    of_blobs: int
    following: Range | None


@dataclass(slots=True)
class _Ahead:
    """`free` buffers, and those that are `filled`; then None. Blobs are read right into them: to move two gigabytes
    once more took as long as to hash them. `shares`: large ones are not read for who writes, who takes them from their
    files."""

    shares: bool
    free: SimpleQueue[memoryview | None] = field(default_factory=SimpleQueue)
    filled: SimpleQueue[_Filled | None] = field(default_factory=SimpleQueue)
    _buffer: memoryview = field(default_factory=lambda: memoryview(b""))
    _end: int = 0
    _of_blobs: int = 0
    _is_over: bool = False

    def run(self, members: Members, wrong: set[Digest], *, hashed: bool) -> None:
        """Up to a blob that is `wrong`."""
        for _ in range(_BUFFERS):
            self.free.put(memoryview(bytearray(_BUFFER_BYTES)))
        try:
            with suppress(_WriterGoneError):
                for member in members:
                    if not isinstance(member, Blob):
                        self._add(member)
                    elif not self._add_blob(member, hashed=hashed):
                        wrong.add(member.digest)
                        return
                self._flush()
        finally:
            self.filled.put(None)

    def _add(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            room = self._room(len(rest))
            room[:] = rest[: len(room)]
            rest = rest[len(room) :]
            self._end += len(room)

    def _add_blob(self, blob: Blob, *, hashed: bool) -> bool:
        """Whether it is what its digest says. Raises IntegrityError where it was cut."""
        state = hashlib.sha256()
        for piece in self._pieces(blob.place, hashed=hashed):
            if hashed:
                state.update(piece)
        return not hashed or state.hexdigest() == blob.digest.hex

    def _pieces(self, place: Range, *, hashed: bool) -> Iterator[memoryview]:
        """Adds these bytes of a file, behind a header, and yields each piece of them: for who has them `hashed`, or
        where they are read anyway."""
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
            self._of_blobs += count

    def _room(self, most: int) -> memoryview:
        """Where the next bytes go: at most so many. Raises _WriterGoneError."""
        if self._end == len(self._buffer):
            if self._end:
                self._flush()
            buffer = self.free.get()
            if buffer is None:
                raise _WriterGoneError
            self._buffer = buffer
        return self._buffer[self._end : self._end + most]

    def _flush(self, following: Range | None = None) -> None:
        self.filled.put(_Filled(self._buffer, self._buffer[: self._end], self._of_blobs, following))
        self._buffer, self._end, self._of_blobs = memoryview(b""), 0, 0

    def buffers(self) -> Iterator[_Filled]:
        """Each is good until the next is asked for."""
        while (filled := self.filled.get()) is not None:
            try:
                yield filled
            finally:
                _close(filled)
            self.free.put(filled.buffer)

    def end(self) -> None:
        """Nobody takes more: who fills ends."""
        self._is_over = True
        self.free.put(None)

    def close(self) -> None:
        """What was not taken."""
        while not self.filled.empty():
            _close(self.filled.get())


def _close(filled: _Filled | None) -> None:
    if filled is not None and filled.following is not None:
        os.close(filled.following[0])
