"""A bundle that comes through a pipe: read once, from the first byte to the last, in constant memory.

Each member is compared with what bundle.json, the first of them, says has to come next, and blobs are hashed as they
pass. Nothing counts before the end is there: a pipe that was cut has none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from regwrap.bundle.contents import (  # fmt: skip
    BLOCK,
    BUNDLE_JSON,
    BundleContents,
    check_first_member,
    padded,
    parse_contents,
)
from regwrap.bundle.files import OneFile
from regwrap.bundle.read import Bundle, parse_header
from regwrap.bundle.write import header_of, link_bytes
from regwrap.core.errors import IntegrityError
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.hashing import PIECE_BYTES, read_into

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    BlobReader = Callable[[Digest, Iterator[memoryview]], None]

PIPE: Final = Path("standard input")  # for messages
_LINKS: Final = 512
_CUT: Final = "check the output of the sender, then send it again: nothing of it was kept"
_ALTERED: Final = "send or build the bundle again: it is damaged or was altered; nothing of it was kept"


@dataclass(slots=True)
class _Pipe:
    """`position` counts the bytes that came."""

    file: IO[bytes]
    buffer: memoryview
    position: int = 0

    def exactly(self, count: int, of: int) -> bytes:
        """Raises IntegrityError where less comes; `of` is the size of all."""
        data = self.file.read(count)
        self.position += len(data)
        if len(data) < count:
            raise self._cut(of)
        return data

    def pieces(self, size: int, of: int) -> Iterator[memoryview]:
        """A piece is good until the next is asked for."""
        while size:
            count = read_into(self.file, self.buffer[:size])
            if not count:
                raise self._cut(of)
            self.position += count
            size -= count
            yield self.buffer[:count]

    def _cut(self, of: int) -> IntegrityError:
        return IntegrityError(f"the bundle was cut off: {self.position:,} of {of:,} bytes came", hint=_CUT)


@dataclass(frozen=True, slots=True)
class IncomingBundle:
    """Its contents are known; the rest is still to come."""

    contents: BundleContents
    pipe: _Pipe
    path: Path

    @property
    def name(self) -> str:
        return f"{self.path}"

    def bundle(self) -> Bundle:
        """With none of its blobs at hand."""
        return Bundle(path=self.path, file=OneFile(-1, 0), contents=self.contents, strange=(), blobs={})

    def each_blob(self, read: BlobReader, on_bytes: Callable[[int], None]) -> tuple[Digest, ...]:
        """`read` is given the bytes of every blob, and has to read them all. Returns those whose bytes are others, when
        the end has come. Raises IntegrityError where the bundle is cut off, or not what bundle.json says."""
        contents, total, wrong = self.contents, self.contents.tar_bytes, list[Digest]()
        for digest, size in contents.blobs:
            self._expect(header_of(layout.blob_path(digest), size), layout.blob_path(digest))
            state = hashlib.sha256()
            read(digest, _hashed(self.pipe.pieces(size, total), state))
            if state.hexdigest() != digest.hex:
                wrong.append(digest)
            self._expect(bytes(padded(size) - size), layout.blob_path(digest))
            on_bytes(size)
        links = (member for member in contents.members if member.link is not None)
        while part := list(islice(links, _LINKS)):
            self._expect(b"".join(map(link_bytes, part)), f"{part[0].path} or a link behind it")
        self._expect(bytes(total - self.pipe.position), "the end")
        if self.pipe.file.read(1):
            raise IntegrityError(f"something follows the end of the bundle, at byte {total}", hint=_ALTERED)
        return tuple(wrong)

    def _expect(self, expected: bytes, what: str) -> None:
        start = self.pipe.position
        if self.pipe.exactly(len(expected), self.contents.tar_bytes) != expected:
            raise IntegrityError(f"{what} is not as regwrap writes it (behind byte {start})", hint=_ALTERED)


def incoming_bundle(file: IO[bytes], path: Path = PIPE) -> IncomingBundle:
    """Read as far as bundle.json; messages call it `path`. Raises IntegrityError."""
    try:
        return _begun(file, path)
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error.message}", detail=error.detail, hint=error.hint or _ALTERED) from error


def _begun(file: IO[bytes], path: Path) -> IncomingBundle:
    pipe = _Pipe(file, memoryview(bytearray(PIECE_BYTES)))
    if not (first := file.read(BLOCK)):
        raise IntegrityError("no bundle came: it is empty", hint=_CUT)
    if len(first) < BLOCK:
        raise IntegrityError("what came is not a regwrap bundle: it is shorter than one header", hint=_CUT)
    _kind, name, length = parse_header(first, 0)
    check_first_member(name, length)
    pipe.position = BLOCK
    raw = pipe.exactly(padded(length), BLOCK + padded(length))
    contents = parse_contents(raw[:length])
    if first != header_of(BUNDLE_JSON, length) or raw[length:].strip(b"\0"):
        raise IntegrityError("the header or the padding of bundle.json differs from what regwrap writes")
    return IncomingBundle(contents, pipe, path)


def _hashed(pieces: Iterator[memoryview], state: hashlib._Hash) -> Iterator[memoryview]:
    for piece in pieces:
        state.update(piece)
        yield piece
