"""What regwrap keeps for itself in a storage's root: `.regwrap`, with the lock, a mark, and what is under way.

It counts only where it is a directory of ours, or of root's, that nobody else may write into: what lies there is
trusted, and removed without a question.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError
from regwrap.core.writing import status_of
from regwrap.storage.tree import LinkedDirectoryError

if TYPE_CHECKING:
    from regwrap.storage.tree import Tree

OWN_DIR: Final = ".regwrap"
LOCK: Final = "lock"
STAGES: Final = ("adopt", "deploy", "gc", "import", "rollback", "sync")
_MARK: Final = "archive"
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def own_tree(tree: Tree, *, make: bool = True) -> Tree:
    """regwrap's own directory in the storage, made if absent. Raises UsageError where it is not to be trusted, and
    OSError where it can't be had."""
    if make:
        with suppress(FileExistsError):
            tree.make_directory(OWN_DIR, 0o700)
    try:
        own = tree.inner(OWN_DIR)
    except (LinkedDirectoryError, NotADirectoryError):
        raise _refusal(tree, "is no directory") from None
    status = status_of(own.descriptor)
    if status.st_mode & _OTHERS_WRITE:
        raise _refusal(tree, "can be written to by others")
    if status.st_uid not in {tree.uid, 0}:
        raise _refusal(tree, f"belongs to uid {status.st_uid}")
    if status.st_uid != tree.uid and os.geteuid() == 0:
        _hand_over(own, tree.uid)
    return own


def mark_own(tree: Tree) -> None:
    """Say that only regwrap writes into the storage: its lock then keeps all writers apart."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    os.close(own_tree(tree).open(_MARK, flags, 0o600))


def is_own(tree: Tree) -> bool:
    try:
        return own_tree(tree, make=False).size(_MARK) is not None
    except OSError:
        return False


def _hand_over(own: Tree, uid: int) -> None:
    """Root made it, in a storage that is another user's, and worked in it as root. The lock and the mark become the
    owner's; what was under way is of a run that was killed, and nobody needs it."""
    at = own.descriptor
    for name in (LOCK, _MARK):
        with suppress(FileNotFoundError):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
            try:
                status = status_of(descriptor)
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    os.fchown(descriptor, uid, -1)
            finally:
                os.close(descriptor)
    for name in STAGES:
        shutil.rmtree(name, ignore_errors=True, dir_fd=at)  # relative to a descriptor it follows no link
    os.chown(".", uid, -1, dir_fd=at)


def _refusal(tree: Tree, what: str) -> UsageError:
    path = tree.shown(OWN_DIR)
    return UsageError(
        f"{path} {what}; regwrap trusts only a directory of its own there",
        hint=f"see what it is, then remove it (rm -r {path}); regwrap makes a new one",
    )
