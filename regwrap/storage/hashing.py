"""Bytes in pieces, through one buffer a thread, hashed on their way: how all files are hashed and copied."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, Protocol, cast

from regwrap.core.errors import IntegrityError, LostBlobError
from regwrap.core.interruption import end_if_interrupted
from regwrap.core.model import Digest
from regwrap.core.writing import LOST, UnreadableError, failed_read, name_file, on_file, write_all_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

PIECE_BYTES: Final = 256 * 1024
"""What is read at once: small enough to be still in the processor's cache when it is hashed."""
_AT_ONCE: Final = 32 * 1024 * 1024  # an interruption is heard between two of them
# other file systems, old kernels, files of which the kernel copies none (copy_file_range(2))
_NO_RANGES: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})

_NO_SPLICE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})  # files that cannot be spliced


class _Own(threading.local):
    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(PIECE_BYTES))


_OWN: Final = _Own()


def hash_problem(digest: Digest, where: Path | str = "", unread: str = "") -> str:
    """What is told of a blob that was hashed, and whose bytes are others; `unread` says why they cannot be read."""
    problem = f"cannot be read: {unread}" if unread else "does not match its digest"
    return f"blob {digest} {problem}" + (f" ({where})" if where else "")


@contextmanager
def reading(digest: Digest) -> Iterator[None]:
    """A blob: what the disk does not give in the block is damage. Raises LostBlobError."""
    try:
        yield
    except UnreadableError as error:
        where, why = error.filename, f"{error.strerror}"
        raise LostBlobError(f"blob {digest} cannot be read from {where}", detail=why) from error


class _ReadsInto(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def read_into(file: IO[bytes], buffer: memoryview) -> int:
    """How many bytes came; every binary file can do it, though IO[bytes] does not declare it."""
    try:
        return cast("_ReadsInto", file).readinto(buffer) or 0
    except OSError as error:
        raise failed_read(error, file) from None


def pieces_of(file: IO[bytes]) -> Iterator[memoryview]:
    """From where the file stands to its end. A piece is good until the thread asks for another one: a new buffer for
    each blob would cost a page fault for each of its pages."""
    buffer = _OWN.buffer
    while count := read_into(file, buffer):
        yield buffer[:count]


def pieces_at(descriptor: int, offset: int, size: int) -> Iterator[memoryview]:
    """`size` bytes from `offset` on, whatever else is read there meanwhile. Raises IntegrityError if they are cut."""
    buffer = _OWN.buffer
    position, end = offset, offset + size
    while position < end:
        count = read_piece(descriptor, buffer[: end - position], position)
        position += count
        yield buffer[:count]


def read_piece(descriptor: int, buffer: memoryview, position: int) -> int:
    """How many bytes came from there. Raises IntegrityError where the file has no more."""
    try:
        count = os.preadv(descriptor, [buffer], position)
    except OSError as error:
        raise failed_read(error, descriptor) from None
    if count == 0:
        raise _truncated()
    return count


def _truncated() -> IntegrityError:
    return IntegrityError("the file was truncated while it was read")


def hashed(pieces: Iterable[memoryview], write: Callable[[memoryview], object] | None = None) -> Digest:
    """The digest of all pieces, each of which `write` is given as well. A run that is interrupted waits for no thread
    that does this."""
    state = hashlib.sha256()
    for piece in pieces:
        end_if_interrupted()
        state.update(piece)
        if write is not None:
            write(piece)
    return Digest(state.hexdigest())


def hash_file(path: Path) -> Digest:
    with path.open("rb", buffering=0) as file:
        return hashed(pieces_of(file))


def hash_descriptor(descriptor: int) -> Digest:
    """From where it stands to its end; then it is closed."""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return hashed(pieces_of(file))


def hash_at(descriptor: int, offset: int, size: int) -> Digest:
    return hashed(pieces_at(descriptor, offset, size))


def write_all(out: IO[bytes], data: bytes | memoryview) -> None:
    """Into a file without a buffer: a disk that is nearly full takes a part, and says so only when asked again."""
    try:
        _write_all(out.write, data)
    except OSError as error:
        name_file(error, out)
        raise


def write_all_to(descriptor: int, data: bytes | memoryview) -> None:
    """The same into an open file by its descriptor."""
    with on_file(descriptor):
        _write_all(lambda rest: os.write(descriptor, rest), data)


def copy_range(source: int, offset: int, size: int, out: int, to: int) -> None:
    """`size` bytes of one open file to a place of another: in the kernel where it can, shared on btrfs and xfs. Raises
    IntegrityError where the source ends before."""
    done = 0
    try:
        while done < size:
            end_if_interrupted()
            count = os.copy_file_range(source, out, min(size - done, _AT_ONCE), offset + done, to + done)
            if count == 0:
                raise _truncated()
            done += count
    except OSError as error:
        if error.errno not in _NO_RANGES | LOST:
            name_file(error, out)  # full is what is written
            raise
        for piece in pieces_at(source, offset + done, size - done):
            write_all_at(out, piece, to + done)
            done += len(piece)


def append_range(source: int, offset: int, size: int, out: int) -> None:
    """The same to where `out` stands, which then stands behind it."""
    with on_file(out):
        position = os.lseek(out, 0, os.SEEK_CUR)
        copy_range(source, offset, size, out, position)
        os.lseek(out, position + size, os.SEEK_SET)


def send_range(source: int, offset: int, size: int, pipe: int) -> Iterator[int]:
    """`size` bytes of a file into a pipe, as pages where the kernel can (splice(2)); yields how many went at each step.
    Raises IntegrityError where the file ends before."""
    done = 0
    try:
        while done < size:
            try:
                count = os.splice(source, pipe, min(size - done, _AT_ONCE), offset_src=offset + done)
            except BlockingIOError:  # somebody has told the pipe not to wait
                select.select([], [pipe], [])
                continue
            if count == 0:
                raise _truncated()
            done += count
            yield count
    except OSError as error:
        if error.errno not in _NO_SPLICE | LOST:
            name_file(error, pipe)
            raise
        for piece in pieces_at(source, offset + done, size - done):
            write_all_to(pipe, piece)
            yield len(piece)


def _write_all(write: Callable[[memoryview], int], data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[write(view) :]
