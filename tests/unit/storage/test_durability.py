"""What is said to be on the disk is there: syncs that fail, syncs that a killed run left out, additions in a crowd."""

import ctypes
import errno
import os
import re
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from regwrap.storage import commit as commit_module
from regwrap.storage import layout
from regwrap.storage.commit import Additions, GroupCommit, Owner, RealFiles, commit, sync_file_system
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from tests.builders import make_image, make_storage, open_below, put
from tests.crashing import DyingFiles

ONE = make_image("one")


def test_nothing_to_add_is_synced_because_a_killed_run_may_not_have(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    files = DyingFiles(RealFiles(Owner.of(Tree(root))), left=10)
    there = Additions(revisions=(("a", ONE.top),), tags=(("a", "1", ONE.top),))
    for additions in (Additions(), there):
        files.done.clear()
        commit(Tree(root), additions, stage=Tree(tmp_path / "stage"), files=files)
        assert files.done == ["sync"]


def test_a_write_back_that_failed_is_an_error_and_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_descriptor: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(commit_module._LIBC, "syncfs", failing)
    with pytest.raises(OSError, match="Input/output error") as raised:
        sync_file_system(tmp_path)
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, f"{tmp_path}")


def test_a_sync_that_the_kernel_refuses_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags: real(path, flags | os.O_PATH))
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        sync_file_system(tmp_path)
    assert raised.value.errno == errno.EBADF


def test_a_sync_leaves_no_descriptor_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync_file_system(tmp_path)
    monkeypatch.setattr(commit_module._LIBC, "syncfs", lambda _descriptor: -1)
    for _ in range(3):
        with pytest.raises(OSError, match=re.escape(f"{tmp_path}")):
            sync_file_system(tmp_path)
    assert open_below(tmp_path) == []


def test_a_directory_with_something_in_it_keeps_its_mode_and_an_empty_one_gets_the_roots(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    root.chmod(0o755)
    files = RealFiles(Owner.of(Tree(root)))
    used, empty = root / layout.repository_path("a") / "_manifests/tags", root / "empty"
    used.chmod(0o751)
    empty.mkdir(mode=0o700)
    for directory in (used, empty):
        files.make_directory(Tree(root), f"{directory.relative_to(root)}")
    assert stat.S_IMODE(used.stat().st_mode) == 0o751
    assert stat.S_IMODE(empty.stat().st_mode) == 0o755


def test_an_empty_directory_of_somebody_else_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root changes no mode of it, and may be allowed to write there all the same."""
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    root.chmod(0o755)
    (root / "empty").mkdir(mode=0o700)

    def refused(_descriptor: int, _mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    files = RealFiles(Owner.of(Tree(root)))
    monkeypatch.setattr(os, "fchmod", refused)
    files.make_directory(Tree(root), "empty")
    assert stat.S_IMODE((root / "empty").stat().st_mode) == 0o700


def test_a_directory_that_a_registry_makes_at_the_same_moment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, real = make_storage(tmp_path / "root", {}), os.mkdir

    def twice(name: str, mode: int, *, dir_fd: int) -> None:
        real(name, mode, dir_fd=dir_fd)
        real(name, mode, dir_fd=dir_fd)

    put(tmp_path / "stage/blob", ONE.raw)
    monkeypatch.setattr(os, "mkdir", twice)
    additions = Additions(blobs=((ONE.top, "blob"),), revisions=(("a", ONE.top),))
    files = DyingFiles(RealFiles(Owner.of(Tree(root))), left=10**9)
    commit(Tree(root), additions, stage=Tree(tmp_path / "stage"), files=files)
    assert Storage(root).read_blob(ONE.top) == ONE.raw
    assert Storage(root).has_revision("a", ONE.top)


def test_what_a_killed_run_has_staged_and_cannot_be_removed_keeps_no_blob_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_storage(tmp_path / "root", {})
    put(tmp_path / "stage/links/0", b"")
    put(tmp_path / "stage/blob", ONE.raw)

    def failing(name: str, **_options: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    monkeypatch.setattr(shutil, "rmtree", failing)
    files = DyingFiles(RealFiles(Owner.of(Tree(root))), left=10**9)
    commit(Tree(root), Additions(blobs=((ONE.top, "blob"),)), stage=Tree(tmp_path / "stage"), files=files)
    assert Storage(root).read_blob(ONE.top) == ONE.raw


class _Slow(list[Any]):
    """The second who waits here takes until `begun`, or a moment when nobody begins."""

    def __init__(self, begun: threading.Event) -> None:
        super().__init__()
        self.begun, self.inside = begun, threading.Event()

    def append(self, ticket: object) -> None:
        if self:
            self.inside.set()
            self.begun.wait(0.1)
        super().append(ticket)


def test_who_comes_while_a_batch_is_taken_is_in_it_or_in_the_next() -> None:
    """An addition that is in neither would be reported as durable and not be written."""
    written: set[str] = set()
    begun = threading.Event()

    def write(additions: Additions) -> None:
        begun.set()
        written.update(tag for _repository, tag, _digest in additions.tags)

    waiting, writing = _Slow(begun), threading.Lock()
    group = GroupCommit(write, _waiting=waiting, _writing=writing)
    threads = [threading.Thread(target=group.add, args=(Additions(tags=(("a", tag, ONE.top),)),)) for tag in ("1", "2")]
    with writing:
        threads[0].start()
        while not waiting:
            assert threads[0].is_alive()
        threads[1].start()
        assert waiting.inside.wait(10)
    for thread in threads:
        thread.join(10)
    assert written == {"1", "2"}
