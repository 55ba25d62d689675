"""Reading a bundle without unpacking it, strictly.

GNU tar and Python's tarfile call a cut or zeroed archive fine, so this reader trusts neither: each header is checked
(checksum, type, name), each member has to be the one that bundle.json says comes next, two zero blocks have to end the
file and nothing may follow. Nothing is ever extracted under a name that the archive chose.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from regwrap.bundle.contents import (  # fmt: skip
    BLOCK,
    BUNDLE_JSON,
    RECORD,
    SHORT_NAME,
    BundleContents,
    BundleImage,
    Member,
    check_first_member,
    padded,
    parse_contents,
)
from regwrap.bundle.files import BundleFile, Located, OneFile, read_small
from regwrap.bundle.volume_places import named_directories
from regwrap.bundle.write import MAGIC, header_of, link_bytes
from regwrap.core.errors import IntegrityError, LostBlobError, UsageError
from regwrap.core.listener import SILENT
from regwrap.core.model import Digest
from regwrap.core.pool import map_in_order
from regwrap.core.writing import is_there, status_of
from regwrap.storage.hashing import hashed, pieces_at, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from regwrap.bundle.base import Base
    from regwrap.bundle.files import Range
    from regwrap.bundle.signature import Trust
    from regwrap.core.closure import Closure
    from regwrap.core.listener import Listener

_LONG_NAME: Final = b"././@LongLink"
_MAX_NAME: Final = 4096
_WINDOW: Final = 4 * 1024
_LINKS: Final = 512  # a megabyte of them
HASH_THREADS: Final = max(2, min(8, os.cpu_count() or 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An open bundle whose structure has been checked. `strange` are links that say something else than they should;
    of blobs only the size is known. `base` has what a delta requires, where it was looked for."""

    path: Path
    file: BundleFile
    contents: BundleContents
    strange: tuple[Member, ...]
    blobs: dict[Digest, Located]
    base: Mapping[Digest, Base] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.path}"

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob that is in the tar; None for all others."""
        located = self.blobs.get(digest)
        return None if located is None else located.size

    def has(self, digest: Digest) -> bool:
        """Whether its bytes are at hand."""
        return digest in self.blobs or digest in self.base

    @property
    def held(self) -> tuple[tuple[Digest, int], ...]:
        """Every blob whose bytes are at hand, sorted by digest."""
        return tuple(blob for blob in self.contents.whole.blobs if self.has(blob[0]))

    def opened(self, digest: Digest) -> AbstractContextManager[tuple[int, Located]]:
        """Where the bytes of a blob lie that is at hand."""
        located = self.blobs.get(digest)
        return self.base[digest].opened(digest) if located is None else self.file.opened(located)

    def read(self, digest: Digest) -> bytes | None:
        """A manifest's or config's bytes, not verified; None where they are not at hand."""
        if not self.has(digest):
            return None
        with reading(digest), self.opened(digest) as (descriptor, located):
            return read_small(descriptor, located, digest)

    def copy(self, digest: Digest, write: Callable[[memoryview], object] | None = None) -> bool:
        """Whether the blob's bytes hash to what bundle.json says; `write` is given them. Safe from several threads."""
        with reading(digest), self._ranges(digest) as ranges:
            return hashed(chain.from_iterable(pieces_at(*piece) for piece in ranges), write) == digest

    @contextmanager
    def _ranges(self, digest: Digest) -> Iterator[list[Range]]:
        """Where its bytes lie, in order: of volumes nothing is copied together for who reads them once."""
        located = self.blobs.get(digest)
        if located is not None:
            yield self.file.ranges(located)
            return
        with self.base[digest].opened(digest) as (descriptor, located):
            yield [(descriptor, located.offset, located.size)]

    def closure(self, image: BundleImage) -> Closure | None:
        """What belongs to a listed image. Raises IntegrityError where its manifests are damaged."""
        return image.closure(self.read)


@contextmanager
def opened_bundle(path: Path, trust: Trust | None = None, listener: Listener = SILENT) -> Iterator[Bundle]:
    """Open a bundle and check its structure; `trust` is asked as soon as it is known which release it is. Raises
    UsageError (no such file) and IntegrityError."""
    if not is_there(path):
        with _opened_volumes(path, trust, listener) as bundle:
            yield bundle
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if not path.is_file():
            raise UsageError(f"{path} is not a file")
        yield _named(path, OneFile(descriptor, status_of(descriptor).st_size), trust, listener)
    finally:
        os.close(descriptor)


@contextmanager
def _opened_volumes(path: Path, trust: Trust | None, listener: Listener) -> Iterator[Bundle]:
    """Whatever damage is found in the block: the volumes that are to blame are named, if that can be told."""
    from regwrap.bundle.volumes import found_volumes, no_volume, opened_volumes  # most bundles are files

    volumes = found_volumes(path)
    if volumes is None and named_directories():
        raise no_volume(path)
    if volumes is None and f"{path}" == "-":
        raise UsageError(
            "a bundle that is read at any place can't come from standard input",
            hint="write it to a file first; deploy and verify take it from a pipe",
        )
    if volumes is None:
        raise UsageError(f"{path} cannot be read: {os.strerror(errno.ENOENT)}")
    with opened_volumes(volumes) as file:
        try:
            yield _named(path, file, trust, listener)
        except IntegrityError as error:
            raise volumes.blame(error) from error


def _named(path: Path, file: BundleFile, trust: Trust | None, listener: Listener) -> Bundle:
    try:
        return _checked(path, file, trust, listener)
    except IntegrityError as error:
        hint = error.hint or "copy or build the bundle again: it is damaged or was altered"
        raise IntegrityError(f"{path}: {error.message}", detail=error.detail, hint=hint) from error


def _checked(path: Path, file: BundleFile, trust: Trust | None, listener: Listener) -> Bundle:
    if file.size == 0:
        raise IntegrityError("the file is empty")
    name, offset, length = _next_header(_headers(file), BUNDLE_JSON)
    check_first_member(name, length)
    contents = parse_contents(file.pread(length, offset))
    if trust is not None:
        trust(contents.id)
    _check_form(file, name, offset, length)
    walk = _Walk(file, offset + padded(length))
    members, count = contents.members, len(contents.blobs)
    listener.count("read", "files in the tar", len(members))
    blobs = {member.digest: walk.locate(member) for part in _parts(members[:count], listener) for member in part}
    strange: list[Member] = []
    for part in _parts(members[count:], listener):
        strange += walk.check_links(part)
    _check_end(file, walk.position)
    return Bundle(path=path, file=file, contents=contents, strange=tuple(strange), blobs=blobs)


def _parts(members: Sequence[Member], listener: Listener) -> Iterator[Sequence[Member]]:
    for start in range(0, len(members), _LINKS):
        part = members[start : start + _LINKS]
        yield part
        listener.on_things(len(part))


class _Walk:
    """From member to member: each has to be where bundle.json puts it, with the header that it would get."""

    def __init__(self, file: BundleFile, position: int) -> None:
        self.position = position
        self._file = file
        self._window = _Window(file)

    def locate(self, member: Member) -> Located:
        """Raises IntegrityError where the member is not there, or its header or padding is another."""
        header, start = header_of(member.path, member.size), self.position
        offset = start + len(header)
        end = offset + padded(member.size)
        padding = self._window.bytes_at(offset + member.size, end - offset - member.size)
        if self._window.bytes_at(start, len(header)) != header or padding.strip(b"\0") or end > self._file.size:
            raise _unlike(self._file, start, member)
        self.position = end
        return Located(offset, member.size)

    def check_links(self, links: Sequence[Member]) -> list[Member]:
        """Links lie side by side, and all of their bytes are known: they are compared at once. Those that say something
        else are returned; raises IntegrityError as `locate` does."""
        expected = b"".join(map(link_bytes, links))
        if self._file.pread(len(expected), self.position) == expected:
            self.position += len(expected)
            return []
        located = [(link, self.locate(link)) for link in links]
        return [link for link, at in located if Digest.of(self._file.pread(at.size, at.offset)) != link.digest]


class _Window:
    """Reads on behind what is asked for: of a small member the header, the padding and the next header lie together."""

    def __init__(self, file: BundleFile) -> None:
        self._file = file
        self._start = 0
        self._data = b""

    def bytes_at(self, position: int, count: int) -> bytes:
        inside = position - self._start
        if inside < 0 or inside + count > len(self._data):
            self._data = self._file.pread(max(count, _WINDOW), position)
            self._start, inside = position, 0
        return self._data[inside : inside + count]


def _unlike(file: BundleFile, start: int, expected: Member) -> IntegrityError:
    """What is wrong with a member that is not byte for byte as expected. Raises, too, where no member can be read."""
    name, _offset, length = _next_header(_headers(file, start), expected.path)
    if (name, length) != (expected.path, expected.size):
        return IntegrityError(
            f"expected {expected.path} with {expected.size} bytes at byte {start}, found {name!r} with {length}"
        )
    return _wrong_form(name, start)


def _check_form(file: BundleFile, name: str, offset: int, length: int) -> None:
    """Of the first member. Mode, owner, time and padding have one form too: plain tar would obey a setuid bit."""
    padding = file.pread(padded(length) - length, offset + length)
    if file.pread(offset, 0) != header_of(name, length) or padding.strip(b"\0"):
        raise _wrong_form(name, 0)


def _wrong_form(name: str, start: int) -> IntegrityError:
    return IntegrityError(f"the header or the padding of {name} differs from what regwrap writes (byte {start})")


def _next_header(headers: Iterator[tuple[str, int, int]], expected: str) -> tuple[str, int, int]:
    try:
        return next(headers)
    except StopIteration:
        raise IntegrityError(f"the tar is cut off before {expected}") from None


def _headers(file: BundleFile, position: int = 0) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, bytes) of each member from there on; ends at the first zero block."""
    long_name = ""
    while True:
        header = file.pread(BLOCK, position)
        if len(header) < BLOCK:
            raise IntegrityError(f"the tar is cut off at byte {position + len(header)}")
        if not header.strip(b"\0"):
            return
        kind, name, length = parse_header(header, position)
        data, position = position + BLOCK, position + BLOCK + padded(length)
        if position > file.size:
            raise IntegrityError(f"the tar is cut off inside {long_name or name}: it has {file.size} bytes")
        if kind == b"L" and long_name:
            raise IntegrityError(f"two long names follow each other at byte {position}")
        if kind == b"L":
            long_name = _long_name(file.pread(min(length, _MAX_NAME), data), name, length)
            continue
        yield long_name or name, data, length
        long_name = ""


def parse_header(header: bytes, position: int) -> tuple[bytes, str, int]:
    # POSIX ustar header block as GNU tar writes it; the sum is taken with the sum's own field as blanks
    actual = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if header[148:156] != b"%06o\0 " % actual or header[257:265] != MAGIC:
        raise IntegrityError(f"the header at byte {position} is damaged or not in GNU tar's format")
    kind, length = header[156:157], _octal(header[124:136])
    if kind not in {b"0", b"L"} or length is None:
        raise IntegrityError(f"the member at byte {position} is not a regular file (type {kind!r})")
    return kind, header[:100].rstrip(b"\0").decode(errors="backslashreplace"), length


def _octal(field: bytes) -> int | None:
    text = field.rstrip(b"\0 ").lstrip(b" ")
    if field[:1] == b"\x80":  # base 256, for 8 GiB and more (GNU tar)
        return int.from_bytes(field[1:], "big")
    return int(text, 8) if text and all(byte in b"01234567" for byte in text) else None


def _long_name(data: bytes, header_name: str, length: int) -> str:
    if header_name.encode() != _LONG_NAME or not SHORT_NAME + 1 < length <= _MAX_NAME or not data.endswith(b"\0"):
        raise IntegrityError("a long name in the tar is not in GNU tar's format")
    return data[:-1].decode(errors="backslashreplace")


def _check_end(file: BundleFile, end: int) -> None:
    expected = -(-(end + 2 * BLOCK) // RECORD) * RECORD
    tail = file.pread(RECORD + 2 * BLOCK, end)
    if tail.strip(b"\0"):
        raise IntegrityError(f"there is data after the last member, at byte {end}")
    if file.size != expected:
        what = "is cut off" if file.size < expected else "has something behind its end"
        raise IntegrityError(f"the file {what}: {file.size} bytes instead of {expected}")


def hash_all(
    work: Callable[[Digest], bool], blobs: Sequence[tuple[Digest, int]], on_bytes: Callable[[int], None]
) -> dict[Digest, str]:
    """`work` on each blob, in threads; those for which it said no, in order, or which the disk does not give, with why.
    A thread takes the next blob by itself: to hand out thousands of small ones costs more than their hashes. After an
    error, or Ctrl-C, none is taken any more."""
    wrong: dict[int, str] = {}
    stopping = threading.Event()
    numbers = iter(range(len(blobs)))  # whose next() no other thread interrupts

    def hash_some(_thread: int) -> None:
        try:
            for number in numbers:
                if stopping.is_set():
                    return
                digest, size = blobs[number]
                try:
                    if not work(digest):
                        wrong[number] = ""
                except LostBlobError as error:
                    wrong[number] = error.detail
                on_bytes(size)
        except BaseException:
            stopping.set()
            raise

    map_in_order(hash_some, range(HASH_THREADS), workers=HASH_THREADS, name="hash", stopping=stopping)
    return {blobs[number][0]: wrong[number] for number in sorted(wrong)}
