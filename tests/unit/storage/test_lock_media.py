"""A storage on a medium that can't be written: it is read without a lock, and any other error is told."""

import errno
import os
from pathlib import Path

import pytest

from regwrap.storage.lock import locked_storage


def ignore(_text: str) -> None:
    pass


def let_open_fail(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The kernel's answer for the lock's file, which root gets on a read-only medium alone."""
    real = os.open

    def failing(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if Path(path).name == "lock":
            raise OSError(number, os.strerror(number), os.fspath(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", failing)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_can_not_be_written_is_read_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    let_open_fail(monkeypatch, number)
    with locked_storage(tmp_path, exclusive=False, timeout=0, on_wait=ignore) as descriptor:
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
        locked_storage(tmp_path, exclusive=exclusive, timeout=0, on_wait=ignore),
    ):
        pytest.fail("it went on")
