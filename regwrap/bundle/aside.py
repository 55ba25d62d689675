"""A file that appears whole or not at all: written beside its place, named by rename.

Its name is one that nobody can foresee, and it is a new file: who may write to that directory can neither lead us
away by a link nor keep a hand on what we write. Each is locked as long as its run lives; others are of killed runs.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError
from regwrap.core.interruption import held
from regwrap.core.writing import on_file, status_of, write_all_at

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM_HINT: Final = "free space there, or write the bundle to another disk with -o"
WRITE_BACK_BYTES: Final = 32 * 1024 * 1024
"""How much is begun to be written back at once."""
_SYNC_FILE_RANGE_WRITE: Final = 2
_PUNCH_HOLE: Final = 0x01 | 0x02  # and keep the size: fallocate(2)
_LIBC: Final = ctypes.CDLL(None)
_MODE: Final = 0o644  # of a bundle and all that stands beside it, whatever the umask
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_THERE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Part:
    """`path` is where it lies; `opened` is the file itself, whatever gets that name meanwhile, for us and for programs
    that inherit the `descriptor`."""

    path: Path
    descriptor: int

    @property
    def opened(self) -> Path:
        return Path(f"/proc/self/fd/{self.descriptor}")


@dataclass(slots=True)
class KeptPart:
    """`was_there`: an earlier run has left it, with whatever it has written. `can_stay`: the next run would take it.
    `is_wanted`: it is to be left as it is."""

    part: Part
    was_there: bool
    can_stay: bool = False
    is_wanted: bool = False


@contextmanager
def part_file(output: Path) -> Iterator[Part]:
    """A new file beside the output, removed unless it was renamed. Those of killed runs are removed.

    Raises UsageError where another regwrap is writing the same output.
    """
    remove_dead(output)
    with held(lambda: KeptPart(_claimed(output), was_there=False), _let_go) as kept:
        remove_dead(output, but=kept.part.path)  # who began at the same moment is seen now
        yield kept.part


@contextmanager
def kept_part_file(output: Path) -> Iterator[KeptPart]:
    """The same, but what an interrupted run has left is gone on with, and stays until this one has renamed it or wants
    it no more. This one leaves its own where it is wanted.

    What another user could have put there, or may still write to, is not taken. Raises UsageError as `part_file`.
    """
    with held(lambda: _reopened(output), _let_go) as kept:
        remove_dead(output, but=kept.part.path)
        yield kept


def _reopened(output: Path) -> KeptPart:
    can_stay = _is_ours_alone(output.parent)
    left = _left_parts(output) if can_stay else []
    for other in left[1:]:
        other.path.unlink(missing_ok=True)
        os.close(other.descriptor)
    if left:
        return KeptPart(left[0], was_there=True, can_stay=True, is_wanted=True)
    return KeptPart(_claimed(output), was_there=False, can_stay=can_stay)


def _let_go(kept: KeptPart) -> None:
    try:
        if not kept.is_wanted:
            kept.part.path.unlink(missing_ok=True)  # unless it was renamed
    finally:
        os.close(kept.part.descriptor)


def _left_parts(output: Path) -> list[Part]:
    """Those of dead runs, claimed; the last written first."""
    found = [Part(path, descriptor) for path in _parts_of(output) if (descriptor := _claimed_left(path)) >= 0]
    return sorted(found, key=lambda part: -status_of(part.descriptor).st_mtime)


def _claimed_left(path: Path) -> int:
    """A descriptor; -1 where its run lives, or it is no part of ours."""
    with suppress(OSError):
        descriptor = os.open(path, _THERE)
        with suppress(OSError):
            status = status_of(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
            if is_ours and _is_at(descriptor, path):
                os.fchmod(descriptor, _MODE)  # its run may have died before it did that
                return descriptor
        os.close(descriptor)
    return -1


def _is_ours_alone(directory: Path) -> bool:
    status = directory.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def start_write_back(descriptor: int, start: int, end: int) -> None:
    """sync_file_range(2) of these bytes, which only starts it: the fsync at the end then has little to wait for."""
    _LIBC.sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(end - start), _SYNC_FILE_RANGE_WRITE)


def give_back(descriptor: int, start: int, end: int) -> None:
    """Make these bytes a hole: their space is free again, where the file system has holes (fallocate(2))."""
    _LIBC.fallocate(descriptor, _PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(end - start))


def write_atomically(path: Path, content: str | bytes, mode: int = _MODE) -> None:
    """Write a small file; it is on the disk, and its name too, when this returns. Raises OSError with the file's name,
    and UsageError where another regwrap writes it."""
    data = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    with part_file(path) as part:
        write_all_at(part.descriptor, data, 0)
        with on_file(part.descriptor):
            os.fchmod(part.descriptor, mode)
        sync_file(part.descriptor, path)
        part.path.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """The names in it are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_file(descriptor, path)
    finally:
        os.close(descriptor)


def sync_file(descriptor: int, path: Path) -> None:
    """The bytes of an open file are on the disk. Raises OSError with `path`, which the kernel does not know here."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), f"{path}") from error


def _claimed(output: Path) -> Part:
    while True:
        path = output.with_name(f"{output.name}.regwrap-{os.urandom(4).hex()}.part")
        descriptor = os.open(path, _NEW, 0o600)
        try:
            with on_file(descriptor):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.fchmod(descriptor, _MODE)
            if _is_at(descriptor, path):
                return Part(path, descriptor)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        os.close(descriptor)  # who looked between the two calls has taken it for a dead run's


def remove_dead(output: Path, *, but: Path | None = None) -> None:
    """What killed runs have left of `output`. Raises UsageError where another regwrap is writing it."""
    for path in _parts_of(output):
        if path != but:
            _remove_if_dead(output, path)


def _parts_of(output: Path) -> list[Path]:
    """By their names; none where the directory can't be listed: it can still be written to."""
    start, rest = f"{output.name}.regwrap-", re.compile(r"[0-9a-f]{8}\.part")
    with suppress(OSError):
        # it may have a thousand volumes, for each of which it is listed
        names = [name for name in os.listdir(output.parent) if name.startswith(start)]
        return [output.with_name(name) for name in sorted(names) if rest.fullmatch(name[len(start) :])]
    return []


def _remove_if_dead(output: Path, path: Path) -> None:
    with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return
        descriptor = os.open(path, _THERE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another regwrap is writing {output} now") from None
        else:
            path.unlink()
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(status_of(descriptor), path.lstat())
    except FileNotFoundError:
        return False
