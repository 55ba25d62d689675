"""Private directories of one run, and what killed runs left of theirs.

Each holds a file that its run has locked for as long as it lives; where the lock is free the run is gone, and
whoever comes by removes the directory. Large ones lie where there is room for them, and the run's small one names
them, so that the next run finds them wherever they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from regwrap.core.errors import UsageError
from regwrap.core.interruption import uninterrupted
from regwrap.core.writing import is_there, named_on_error, on_file
from regwrap.tools.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX: Final = "regwrap-"
_LOCK: Final = ".regwrap-run"
_BESIDE: Final = "beside"
SKOPEO_HOME: Final = ".regwrap-skopeo"  # a name that no user has
_ATTEMPTS: Final = 8
_PAUSE_SECONDS: Final = 0.02
_UNCLAIMED: Final = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")  # mkdtemp(3)


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A private directory for this run's small files."""
    parent = temporary_place()
    for path in _abandoned(parent):
        _remove_if_abandoned(path)
    with _claimed(parent) as path:
        yield path
        with uninterrupted(), suppress(OSError):  # the next run removes it
            _remove(path)


def temporary_place() -> Path:
    """Where temporary files go that have no better place. Not tempfile's way, which tries with a file that a kill
    leaves behind."""
    places = (os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp")
    usable = (Path(place) for place in places if place and os.access(place, os.W_OK | os.X_OK))
    return next((place for place in usable if place.is_dir()), Path(places[1])).absolute()


@contextmanager
def overlay_directory(place: Path, scratch: Path) -> Iterator[Path]:
    """A private directory for an overlay's sides in `place`, which is made if absent. Its path has no symbolic links.

    Raises UsageError where it cannot be created.
    """
    made = _make(place)
    try:
        for path in _abandoned(place):
            _remove_if_abandoned(path)
        with _claimed(place.resolve()) as path:
            with named_on_error((scratch / _BESIDE).open("ab")) as beside:
                beside.write(os.fsencode(path) + b"\n")
            yield path
            with uninterrupted():
                _remove(path)
    finally:
        if made:
            with suppress(OSError):
                place.rmdir()


def _make(place: Path) -> bool:
    if place.is_dir():
        return False
    try:
        place.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(
            f"{place} is not a directory", hint="give a directory with --upper; it is created if missing"
        ) from None
    except OSError as error:
        raise UsageError(f"{place} cannot be created: {error.strerror}") from error
    return True


@contextmanager
def _claimed(parent: Path) -> Iterator[Path]:
    """A new directory in `parent`, locked. Until it is, whoever tidies up takes it for a dead run's: then another."""
    claim: tuple[Path, BinaryIO] | None = None
    try:
        with uninterrupted():
            while claim is None:
                claim = _claim(parent)
        with claim[1]:
            yield claim[0]
    except BaseException:  # also for an interruption before the caller has it in hand
        if claim is not None:
            with suppress(OSError):
                _remove(claim[0])
        raise


def _claim(parent: Path) -> tuple[Path, BinaryIO] | None:
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise UsageError(f"{parent}: {error.strerror}", hint="choose another directory (--upper, TMPDIR)") from error
    try:
        lock = (path / _LOCK).open("wb")
    except FileNotFoundError:  # tidied away meanwhile
        return None
    except BaseException:
        path.rmdir()
        raise
    try:
        with on_file(lock.fileno()):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_there(path / _LOCK):
            return path, lock
    except BaseException:
        lock.close()
        _remove(path)
        raise
    lock.close()
    return None


def _abandoned(parent: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in parent.glob(f"{_PREFIX}*") if _is_ours(path))
    return []


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _beside(path: Path) -> list[str]:
    with suppress(OSError):
        return [os.fsdecode(line) for line in (path / _BESIDE).read_bytes().splitlines()]
    return []


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):
        if not path.name.startswith(_PREFIX) or not _is_ours(path):
            return
        if not is_there(path / _LOCK):
            if _UNCLAIMED.fullmatch(path.name):
                _remove_unmarked(path)
            return
        with (path / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for line in _beside(path):
                _remove_if_abandoned(Path(line))
            _remove(path)


def _remove_unmarked(path: Path) -> None:
    """A run was killed, or is, between making and locking it: there is nothing in it. After a power cut there may be
    skopeo's cache without the mark: skopeo syncs it, and btrfs then writes down that file and the directories above it,
    but not what else is in them (btrfs(5), log tree). Raises OSError where there is anything else."""
    if [child.name for child in path.iterdir()] == [SKOPEO_HOME]:
        remove_tree(path / SKOPEO_HOME)
    path.rmdir()


def _remove(path: Path) -> None:
    """Remove a run's directory, its lock at last: what cannot be removed now stays known as a run's. Raises OSError.

    A thread that is told to stop may be making something in it for a moment yet.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _empty(path)
            (path / _LOCK).unlink(missing_ok=True)
            path.rmdir()
        except FileNotFoundError:
            if not is_there(path):
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS:
                raise
        else:
            return
        with suppress(FileNotFoundError):
            (path / _LOCK).touch()
        time.sleep(attempt * _PAUSE_SECONDS)


def _empty(path: Path) -> None:
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            remove_tree(child)
        elif child.name != _LOCK:
            child.unlink(missing_ok=True)
