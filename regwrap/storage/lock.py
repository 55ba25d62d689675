"""The lock of a storage: shared while reading it, exclusive while writing. The kernel frees it, whatever happens.

The file lies in the storage's root beside `docker`, where no registry looks, and is never deleted: a deleted and
remade lock file has two holders. Its descriptor is handed to children that write, so that it is held until the
last writer is gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError
from regwrap.core.writing import on_file, read_at, status_of
from regwrap.storage.own import LOCK, OWN_DIR, own_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from regwrap.storage.tree import Tree

_POLL_SECONDS: Final = 0.1
_Identity = tuple[int, int]  # device and inode
# the locks of this process, and whose they are
_held: dict[_Identity, tuple[Path, _Identity]] = {}


@contextmanager
def locked_storage(
    tree: Tree, *, exclusive: bool, timeout: float, on_wait: Callable[[str], None], untouched: bool = False
) -> Iterator[int | None]:
    """Hold the lock of the storage at `tree` for the block; yields its descriptor.

    Waits up to `timeout` seconds while another run holds it and says so through `on_wait` once; then UsageError, which
    is at once where this run would wait for itself.
    A storage that only lies on read-only media, or belongs to somebody else, can be read without a lock: yields None.
    `untouched`: nothing is made or written there, so a storage that no regwrap has ever written to has no lock.
    """
    descriptor = _open_only(tree) if untouched else _open(tree, exclusive=exclusive)
    if descriptor is None:
        yield None
        return
    try:
        _acquire(descriptor, tree, exclusive=exclusive, deadline=time.monotonic() + timeout, on_wait=on_wait)
        if not untouched:
            _sign(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n" if exclusive else "")
        with _remembered(descriptor, tree):
            yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _remembered(descriptor: int, tree: Tree) -> Iterator[None]:
    key, mine = _identity(descriptor), (tree.root, _identity(tree.descriptor))
    is_first = _held.setdefault(key, mine) is mine
    try:
        yield
    finally:
        if is_first:
            _held.pop(key, None)


def _identity(descriptor: int) -> _Identity:
    status = status_of(descriptor)
    return status.st_dev, status.st_ino


def _open_only(tree: Tree) -> int | None:
    with suppress(OSError):
        return own_tree(tree, make=False).open(LOCK)
    return None


def _open(tree: Tree, *, exclusive: bool) -> int | None:
    try:
        return own_tree(tree).open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if exclusive or (not isinstance(error, PermissionError) and error.errno != errno.EROFS):
            raise
        return None


def _acquire(descriptor: int, tree: Tree, *, exclusive: bool, deadline: float, on_wait: Callable[[str], None]) -> None:
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    is_logged = False
    while True:
        try:
            with on_file(descriptor):
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            _refuse_shared(descriptor, tree)
            holder = _holder(descriptor)
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"{tree.root} is in use by another regwrap: {holder}",
                    hint="wait for it or stop it; the lock is released when its last process exits",
                ) from None
            if not is_logged:
                on_wait(f"waiting for another regwrap that holds {tree.root}: {holder}")
                is_logged = True
            time.sleep(_POLL_SECONDS)


def _refuse_shared(descriptor: int, tree: Tree) -> None:
    """Raises UsageError where this run holds the lock under another name, and would wait for itself: a bind mount is
    the same storage, and a copy with hard links has the same file."""
    root, (other, place) = tree.root, _held.get(_identity(descriptor), (tree.root, _identity(tree.descriptor)))
    if other != root and place == _identity(tree.descriptor):
        raise UsageError(f"{root} and {other} are the same directory", hint="name another storage for one of them")
    if place != _identity(tree.descriptor):
        raise UsageError(
            f"{root} and {other} have one lock file: one is a copy of the other with hard links (cp -al)",
            hint=f"while no regwrap works there, give the copy its own: cd {root}/{OWN_DIR} && cp {LOCK} new &&"
            f" mv new {LOCK}",
        )


def _holder(descriptor: int) -> str:
    text = read_at(descriptor, 200, 0).decode(errors="replace").strip()
    return text or "a reader of it"


def _sign(descriptor: int, text: str) -> None:
    # For the message only; the lock itself is the kernel's, and a full disk must not prevent it. A reader signs with
    # nothing: the writer before it is gone.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
