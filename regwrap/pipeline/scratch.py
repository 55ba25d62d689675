"""Private directories of one run, and what killed runs left of theirs.

Each holds a file that its run has locked for as long as it lives; where the lock is free the run is gone, and
whoever comes by removes the directory. Large ones lie where there is room for them, and the run's small one names
them, so that the next run finds them wherever they are.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from regwrap.errors import UsageError
from regwrap.tools.overlay import remove_overlay

_PREFIX: Final = "regwrap-"
_LOCK: Final = ".regwrap-run"
_BESIDE: Final = "beside"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A private directory for this run's small files."""
    parent = Path(tempfile.gettempdir())
    for path in _abandoned(parent):
        for line in _beside(path):
            _remove_if_abandoned(Path(line), remove_overlay)
        _remove_if_abandoned(path, lambda path: shutil.rmtree(path, ignore_errors=True))
    with _claimed(parent) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def overlay_directory(place: Path, scratch: Path) -> Iterator[Path]:
    """A private directory for an overlay's sides in `place`, which is made if absent. Its path has no symbolic links.

    Raises UsageError where it can't be made.
    """
    made = _make(place)
    try:
        for path in _abandoned(place):
            _remove_if_abandoned(path, remove_overlay)
        with _claimed(place.resolve()) as path:
            with (scratch / _BESIDE).open("ab") as beside:
                beside.write(os.fsencode(path) + b"\n")
            try:
                yield path
            finally:
                remove_overlay(path)
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
        raise UsageError(f"{place} is not a directory", hint="--upper names a directory, made if absent") from None
    except OSError as error:
        raise UsageError(f"{place} can't be made: {error.strerror}") from error
    return True


@contextmanager
def _claimed(parent: Path) -> Iterator[Path]:
    """A new directory in `parent` with a lock that is held from the moment at which it can be seen."""
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise UsageError(f"{parent}: {error.strerror}", hint="choose another directory (--upper, TMPDIR)") from error
    with (path / "new").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (path / "new").rename(path / _LOCK)
        yield path


def _abandoned(parent: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in parent.glob(f"{_PREFIX}*") if (path / _LOCK).is_file())
    return []


def _beside(path: Path) -> list[str]:
    with suppress(OSError):
        return [os.fsdecode(line) for line in (path / _BESIDE).read_bytes().splitlines()]
    return []


def _remove_if_abandoned(path: Path, remove: Callable[[Path], None]) -> None:
    with suppress(OSError):
        if path.is_symlink() or path.stat().st_uid != os.getuid() or not path.name.startswith(_PREFIX):
            return
        with (path / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
