"""The lock of a storage: who excludes whom, what a waiter is told, and when it is free again."""

import errno
import fcntl
import os
import resource
import shutil
import stat
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from regwrap.core.errors import UsageError
from regwrap.storage.lock import locked_storage
from regwrap.storage.own import OWN_DIR
from regwrap.storage.tree import Tree
from tests.builders import open_below, put

SHORT = 0.25


def ignore(_text: str) -> None:
    pass


def lock(
    root: Path, *, exclusive: bool, timeout: float = 0, on_wait: Callable[[str], None] = ignore
) -> AbstractContextManager[int | None]:
    return locked_storage(Tree(root), exclusive=exclusive, timeout=timeout, on_wait=on_wait)


@pytest.mark.parametrize("second", [True, False])
def test_a_writer_excludes_all_others_and_is_named(tmp_path: Path, *, second: bool) -> None:
    with (
        lock(tmp_path, exclusive=True),
        pytest.raises(UsageError, match=rf"{tmp_path} is in use .* process {os.getpid()} on ") as raised,
        lock(tmp_path, exclusive=second),
    ):
        pass
    assert raised.value.hint


def test_readers_share_and_exclude_a_writer(tmp_path: Path) -> None:
    with (
        lock(tmp_path, exclusive=False),
        lock(tmp_path, exclusive=False),
        pytest.raises(UsageError, match="a reader of it"),
        lock(tmp_path, exclusive=True),
    ):
        pass
    with lock(tmp_path, exclusive=True):
        pass


def test_a_reader_is_not_taken_for_the_writer_before_it(tmp_path: Path) -> None:
    with lock(tmp_path, exclusive=True):
        pass
    with (
        lock(tmp_path, exclusive=False),
        pytest.raises(UsageError, match="a reader of it"),
        lock(tmp_path, exclusive=True),
    ):
        pass


def test_the_same_storage_by_another_name_is_the_same_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    with lock(tmp_path / "real", exclusive=True), pytest.raises(UsageError), lock(tmp_path / "alias", exclusive=True):
        pass


def test_a_copy_with_hard_links_is_not_waited_for(tmp_path: Path) -> None:
    """`cp -al` gives the copy the original's lock file: a run that reads one and writes the other waits for itself."""
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        root.mkdir()
    with lock(one, exclusive=True):
        pass
    (two / OWN_DIR).mkdir(mode=0o700)
    (two / OWN_DIR / "lock").hardlink_to(one / OWN_DIR / "lock")
    with (
        lock(one, exclusive=False),
        pytest.raises(UsageError, match=rf"^{two} and {one} have one lock file: .* \(cp -al\)") as raised,
        lock(two, exclusive=True, timeout=600),
    ):
        pass
    assert f"cd {two}/{OWN_DIR} && cp lock new && mv new lock" in raised.value.hint
    shutil.copy(two / OWN_DIR / "lock", two / OWN_DIR / "new")
    (two / OWN_DIR / "new").rename(two / OWN_DIR / "lock")
    with lock(one, exclusive=False), lock(two, exclusive=True):
        pass


def test_a_storage_by_another_name_is_not_waited_for(tmp_path: Path) -> None:
    """A bind mount is the same directory, which no path tells; neither does one through a link."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.symlink_to(one)
    with (
        lock(one, exclusive=True),
        pytest.raises(UsageError, match=rf"^{two} and {one} are the same directory"),
        lock(two, exclusive=False, timeout=600),
    ):
        pass
    with lock(one, exclusive=False), lock(two, exclusive=False):
        pass


def copied_with_hard_links(one: Path, two: Path) -> None:
    for root in (one, two):
        (root / OWN_DIR).mkdir(mode=0o700, parents=True)
    put(one / OWN_DIR / "lock", b"")
    (two / OWN_DIR / "lock").hardlink_to(one / OWN_DIR / "lock")


def test_a_reader_that_has_gone_hides_no_other_one_of_the_same_run(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    copied_with_hard_links(one, two)
    with lock(one, exclusive=False):
        with lock(one, exclusive=False):
            pass
        with pytest.raises(UsageError, match="have one lock file"), lock(two, exclusive=True):
            pass


@pytest.mark.parametrize("error", [None, ValueError("inside")])
def test_what_this_run_holds_no_longer_is_another_one_s(tmp_path: Path, error: ValueError | None) -> None:
    """Who is told to mend the lock file instead of to wait would mend it while the other works."""
    one, two = tmp_path / "one", tmp_path / "two"
    copied_with_hard_links(one, two)
    with suppress(ValueError), lock(one, exclusive=False):
        if error is not None:
            raise error
    with (one / OWN_DIR / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(UsageError, match=f"^{two} is in use by another regwrap"), lock(two, exclusive=True):
            pass


@pytest.mark.slow
def test_a_waiter_is_told_once_and_gives_up_after_its_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, asked, real = list[str](), list[int](), fcntl.flock

    def noted(descriptor: int, kind: int) -> None:
        asked.append(kind)
        real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", noted)
    started = time.monotonic()
    with (
        lock(tmp_path, exclusive=True),
        pytest.raises(UsageError),
        lock(tmp_path, exclusive=True, timeout=SHORT, on_wait=told.append),
    ):
        pass
    assert SHORT <= time.monotonic() - started < 30
    assert len(told) == 1
    assert f"process {os.getpid()}" in told[0]
    assert len(asked) < 10, "who waits keeps no core busy"


@pytest.mark.slow
def test_a_waiter_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    told, has = threading.Event(), threading.Event()

    def wait_for_it() -> None:
        with lock(tmp_path, exclusive=True, timeout=20, on_wait=lambda _text: told.set()):
            has.set()

    waiter = threading.Thread(target=wait_for_it)
    with lock(tmp_path, exclusive=True):
        waiter.start()
        assert told.wait(10)
        assert not has.is_set()
    waiter.join(10)
    assert has.is_set()


def test_nobody_is_told_of_a_free_lock(tmp_path: Path) -> None:
    told: list[str] = []
    with lock(tmp_path, exclusive=True, on_wait=told.append):
        pass
    assert told == []


def test_the_lock_is_held_until_the_last_descriptor_is_closed(tmp_path: Path) -> None:
    with lock(tmp_path, exclusive=True) as descriptor:
        assert descriptor is not None
        held = os.dup(descriptor)  # what a child has that inherited it
    with pytest.raises(UsageError), lock(tmp_path, exclusive=True):
        pass
    os.close(held)
    with lock(tmp_path, exclusive=True):
        pass


def test_the_lock_is_freed_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), lock(tmp_path, exclusive=True):
        raise ValueError("inside")
    with lock(tmp_path, exclusive=True):
        pass


def test_a_file_system_that_knows_no_locks_is_told_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_descriptor: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(OSError, match="No locks available") as raised, lock(tmp_path, exclusive=True):
        pass
    assert raised.value.filename == f"{tmp_path / OWN_DIR / 'lock'}"
    assert open_below(tmp_path / OWN_DIR / "lock") == []


def test_the_file_is_private_and_stays(tmp_path: Path) -> None:
    for exclusive in (True, False):
        with lock(tmp_path, exclusive=exclusive):
            pass
        path = tmp_path / OWN_DIR / "lock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_children_do_not_inherit_it_by_accident(tmp_path: Path) -> None:
    with lock(tmp_path, exclusive=True) as descriptor:
        assert descriptor is not None
        assert not os.get_inheritable(descriptor)


def test_a_full_disk_does_not_prevent_the_lock(tmp_path: Path) -> None:
    with lock(tmp_path, exclusive=False):
        pass
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with lock(tmp_path, exclusive=True) as descriptor:
            assert descriptor is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_symbolic_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / OWN_DIR).mkdir()
    (tmp_path / OWN_DIR / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), lock(tmp_path, exclusive=True):
        pass
    assert not (tmp_path / "elsewhere").exists()
