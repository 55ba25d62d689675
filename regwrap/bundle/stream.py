"""A bundle as one stream of bytes, for what can't be read back: a pipe, volumes. Each blob is hashed as it passes.

One thread reads and hashes, another one writes; between them lie a few buffers, so a bundle of any size takes the same
memory.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.contents import BUNDLE_JSON, links_end, padded, tar_bytes
from regwrap.bundle.image_set import file_image_set
from regwrap.bundle.pack import broken
from regwrap.bundle.write import header_of, link_bytes
from regwrap.core.errors import BrokenBlobError, IntegrityError
from regwrap.storage import layout
from regwrap.storage.hashing import pieces_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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
            with read_ahead(_pieces(selection, listener, hashed=hashed)) as pieces:
                for piece in pieces:
                    write(piece)
        except BrokenBlobError as error:
            if target.can_repeat:
                raise
            raise IntegrityError(error.message, problems=error.problems, hint=error.hint) from error
        yield
        write(memoryview(bytes(tar_bytes(contents) - links_end(contents))))


def _pieces(selection: Selection, listener: Listener, *, hashed: bool) -> Iterator[bytes | memoryview]:
    """All members, in order; a piece is good until the next is asked for."""
    contents, json = selection.contents, selection.contents.to_json()
    image_set = file_image_set(f"{selection.storage.root}", contents, lambda _digest: selection.storage)
    yield header_of(BUNDLE_JSON, len(json)) + json + bytes(padded(len(json)) - len(json))
    for digest, size in contents.blobs:
        state = hashlib.sha256()
        yield header_of(layout.blob_path(digest), size)
        with image_set.opened(digest) as (descriptor, located):
            for piece in pieces_at(descriptor, located.offset, size):
                if hashed:
                    state.update(piece)
                yield piece
        if hashed and state.hexdigest() != digest.hex:
            raise broken({digest}, selection, hashed=True)
        listener.on_bytes(size)
        yield bytes(padded(size) - size)
    yield from (link_bytes(member) for member in contents.members if member.link is not None)


@contextmanager
def read_ahead(pieces: Iterable[bytes | memoryview]) -> Iterator[Iterator[memoryview]]:
    """The same bytes in pieces of a megabyte, read by a thread while the last one is written. What ended the thread is
    raised when all that it read was taken."""
    ahead = _Ahead(pieces)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        reading = pool.submit(ahead.run)
        try:
            yield ahead.taken(reading)
        finally:
            ahead.free.put(None)


@dataclass(slots=True)
class _Ahead:
    """`free` buffers, and those that are `filled`, with how far; then None."""

    pieces: Iterable[bytes | memoryview]
    free: SimpleQueue[bytearray | None] = field(default_factory=SimpleQueue)
    filled: SimpleQueue[tuple[bytearray, int] | None] = field(default_factory=SimpleQueue)

    def run(self) -> None:
        for _ in range(_BUFFERS):
            self.free.put(bytearray(_BUFFER_BYTES))
        try:
            self._fill()
        finally:
            self.filled.put(None)

    def _fill(self) -> None:
        buffer, end = self.free.get(), 0
        for piece in self.pieces:
            rest = memoryview(piece)
            while rest and buffer is not None:
                count = min(len(rest), _BUFFER_BYTES - end)
                buffer[end : end + count] = rest[:count]
                rest, end = rest[count:], end + count
                if end == _BUFFER_BYTES:
                    self.filled.put((buffer, end))
                    buffer, end = self.free.get(), 0
            if buffer is None:  # nobody takes any more
                return
        if buffer is not None:
            self.filled.put((buffer, end))

    def taken(self, reading: Future[None]) -> Iterator[memoryview]:
        while (item := self.filled.get()) is not None:
            buffer, end = item
            yield memoryview(buffer)[:end]
            self.free.put(buffer)
        reading.result()
