"""Bytes at a place of an open file, however many calls the kernel wants for them; and its name, where they fail."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEMPORARY = re.compile(r"#\d+ \(deleted\)")  # O_TMPFILE, see open(2): of use is where it would be
LOST: Final = frozenset({errno.EIO, errno.ESTALE, errno.EBADMSG, errno.EUCLEAN})
"""Of a read: the medium does not give the bytes, the server has lost the file, the file system's sums are wrong."""
_FileT = TypeVar("_FileT", bound=IO[Any])


class UnreadableError(OSError):
    """The disk does not give bytes of a file that is there. A blob is damaged then; of another file the disk fails."""


def write_all_at(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """A disk that is nearly full takes a part (pwrite(2)), and says so only when asked again. Raises OSError."""
    view = memoryview(data)
    try:
        while view:
            done = os.pwrite(descriptor, view, position)
            view, position = view[done:], position + done
    except OSError as error:
        name_file(error, descriptor)
        raise


def read_at(descriptor: int, count: int, position: int) -> bytes:
    """At most `count` bytes. Raises OSError with the file's name."""
    try:
        return os.pread(descriptor, count, position)
    except OSError as error:
        raise failed_read(error, descriptor) from None


def is_there(path: Path | str) -> bool:
    """Whether anything has that name, a link without an end too. Raises OSError where the disk, or who may look, does
    not let it be told: os.path.lexists would say no."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
            return False
        raise
    return True


def read_file(path: Path) -> bytes:
    """All of a file that is known to be small. Raises OSError with its name."""
    with named_on_error(path.open("rb")) as file:
        return file.read()


def write_file(path: Path, data: bytes | str) -> None:
    """A small file, whole; text as UTF-8. Raises OSError with its name."""
    with named_on_error(path.open("wb")) as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def temporary_file(directory: Path | None = None) -> IO[bytes]:
    """One without a name and without a buffer, which goes when it is closed. Raises OSError with the directory."""
    place = f"{directory or tempfile.gettempdir()}"
    try:
        return tempfile.TemporaryFile(buffering=0, dir=place)
    except OSError as error:
        error.filename = error.filename or place
        raise


def check_directory(path: Path) -> None:
    """Said before anything long begins. Raises UsageError where the directory that `path` shall be in is not there."""
    directory = path.absolute().parent
    if not directory.is_dir():
        raise UsageError(
            f"{path} cannot be written: {directory} is not a directory", hint="create it, or name another one"
        )


@contextmanager
def named_on_error(file: _FileT) -> Iterator[_FileT]:
    """The file, closed behind the block. What fails in the block, and in what is left to write when it closes, is told
    with the file's name."""
    name = _name_of(file.fileno())
    try:
        with file:
            yield file
    except OSError as error:
        error.filename = error.filename or name
        raise


@contextmanager
def on_file(descriptor: int) -> Iterator[None]:
    """What fails in the block is told with the name of this open file."""
    try:
        yield
    except OSError as error:
        name_file(error, descriptor)
        raise


def status_of(descriptor: int) -> os.stat_result:
    """Of an open file (fstat(2)), which a file system that has failed does not give (xfs). Raises OSError with the
    file's name."""
    with on_file(descriptor):
        return os.fstat(descriptor)


def name_file(error: OSError, file: int | IO[bytes]) -> None:
    """Of a call on an open file the kernel tells what failed, and not where; Python may say its number. One that stands
    for several files names them itself."""
    if error.filename is None or isinstance(error.filename, int):
        with suppress(UnsupportedOperation):
            error.filename = _name_of(file if isinstance(file, int) else file.fileno())


def failed_read(error: OSError, file: int | IO[bytes]) -> OSError:
    """What a call that could not read an open file raises: the error with the file's name, or UnreadableError."""
    name_file(error, file)
    if error.errno not in LOST:
        return error
    return UnreadableError(error.errno, error.strerror, error.filename)


def _name_of(descriptor: int) -> str | None:
    with suppress(OSError):
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not name.is_absolute():  # a pipe has a number only
            return None
        return f"{name.parent if _TEMPORARY.fullmatch(name.name) else name}"
    return None
