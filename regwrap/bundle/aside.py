"""A file that appears whole or not at all: written beside its place, named by rename.

Its name is one that nobody can foresee, and it is a new file: who may write to that directory can neither lead us
away by a link nor keep a hand on what we write. Each is locked as long as its run lives; others are of killed runs.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITE_BACK_BYTES: Final = 32 * 1024 * 1024
"""How much is begun to be written back at once."""
_SYNC_FILE_RANGE_WRITE: Final = 2
_LIBC: Final = ctypes.CDLL(None)
_MODE: Final = 0o644  # of a bundle and all that stands beside it, whatever the umask
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_THERE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Part:
    """`path` is where it lies; `opened` is the file itself, whatever gets that name meanwhile, for us and for programs
    that inherit the `descriptor`."""

    path: Path
    descriptor: int

    @property
    def opened(self) -> Path:
        return Path(f"/proc/self/fd/{self.descriptor}")


@contextmanager
def part_file(output: Path) -> Iterator[Part]:
    """A new file beside the output, removed unless it was renamed. Those of killed runs are removed.

    Raises UsageError where another regwrap is writing the same output.
    """
    _remove_dead(output)
    part, descriptor = _claimed(output)
    try:
        try:
            _remove_dead(output, but=part)  # who began at the same moment is seen now
            yield Part(part, descriptor)
        finally:
            part.unlink(missing_ok=True)  # unless it was renamed
    finally:
        os.close(descriptor)


def start_write_back(descriptor: int, start: int, end: int) -> None:
    """sync_file_range(2) of these bytes, which only starts it: the fsync at the end then has little to wait for."""
    _LIBC.sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(end - start), _SYNC_FILE_RANGE_WRITE)


def write_whole(path: Path, text: str) -> None:
    """Write a small text file."""
    with part_file(path) as part:
        part.opened.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.path.replace(path)


def _claimed(output: Path) -> tuple[Path, int]:
    while True:
        part = output.with_name(f"{output.name}.regwrap-{secrets.token_hex(4)}.part")
        descriptor = os.open(part, _NEW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.fchmod(descriptor, _MODE)
            if _is_at(descriptor, part):
                return part, descriptor
        except BaseException:
            os.close(descriptor)
            part.unlink(missing_ok=True)
            raise
        os.close(descriptor)  # who looked between the two calls has taken it for a dead run's


def _remove_dead(output: Path, *, but: Path | None = None) -> None:
    name = re.compile(rf"{re.escape(output.name)}\.regwrap-[0-9a-f]{{8}}\.part")
    with suppress(OSError):  # what can't be listed can still be written to
        for path in sorted(output.parent.iterdir()):
            if path != but and name.fullmatch(path.name):
                _remove_if_dead(output, path)


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
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
