"""A storage on a medium that can't be written: it is read without a lock, and any other error is told."""

import errno
import os
from pathlib import Path

import pytest

from regwrap.storage.lock import locked_storage
from regwrap.storage.tree import Tree


def ignore(_text: str) -> None:
    pass


def let_open_fail(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The kernel's answer for the lock's file, which root gets on a read-only medium alone."""
    real = Tree.open

    def failing(tree: Tree, name: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
        if name == "lock":
            raise OSError(number, os.strerror(number), tree.shown(name))
        return real(tree, name, flags, mode)

    monkeypatch.setattr(Tree, "open", failing)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_can_not_be_written_is_read_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    let_open_fail(monkeypatch, number)
    with locked_storage(Tree(tmp_path), exclusive=False, timeout=0, on_wait=ignore) as descriptor:
        assert descriptor is None


@pytest.mark.parametrize(
    ("number", "exclusive"),
    [(errno.ENOSPC, False), (errno.ELOOP, False), (errno.EIO, False), (errno.EROFS, True), (errno.EACCES, True)],
)
def test_no_other_error_and_no_writer_goes_on_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, exclusive: bool
) -> None:
    let_open_fail(monkeypatch, number)
    with (
        pytest.raises(OSError, match=os.strerror(number)),
        locked_storage(Tree(tmp_path), exclusive=exclusive, timeout=0, on_wait=ignore),
    ):
        pytest.fail("it went on")
