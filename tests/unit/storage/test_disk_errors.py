"""What the disk refuses is told and never taken for absent; and who we are where a directory is somebody else's."""

import ctypes
import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError, UsageError
from regwrap.core.model import Digest
from regwrap.storage import actor as actor_module
from regwrap.storage import layout
from regwrap.storage import tree as tree_module
from regwrap.storage.actor import Actor, actor_for
from regwrap.storage.gc import Keep, find_garbage
from regwrap.storage.hashing import hash_file
from regwrap.storage.own import OWN_DIR, own_tree
from regwrap.storage.store import Storage, read_link
from regwrap.storage.sweep import RealDisk, remove_garbage
from regwrap.storage.tree import Tree
from tests.builders import (
    add_untagged,
    make_image,
    make_multi_image,
    make_storage,
    open_below,
    put,
    replace_by_directory,
    replace_by_fifo,
)

ONE, TWO, THREE = make_image("one"), make_image("two"), make_image("three")
MULTI = make_multi_image("multi")
ALL = Keep(names=None, last=None)
ROOT = os.geteuid() == 0


def test_what_the_disk_does_not_read_is_told_with_the_file() -> None:
    with pytest.raises(OSError, match="Input/output error") as raised:
        hash_file(Path("/proc/self/mem"))
    assert f"{raised.value.filename}".endswith("/mem")


def test_a_directory_that_cannot_be_looked_into_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for look in (tree.entries, tree.stat):
        with pytest.raises(OSError, match="File name too long"):
            look("x" * 300)


def test_a_link_that_cannot_be_read_is_not_taken_for_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tag needs would be garbage."""
    link, tree = put(tmp_path / "a/link", f"{ONE.top}".encode()), Tree(tmp_path)
    assert read_link(tree, "a/link") == ONE.top
    before = open_below(tmp_path)

    def failing(_descriptor: int, _count: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", failing)
    with pytest.raises(OSError, match="Input/output error") as raised:
        read_link(tree, "a/link")
    assert raised.value.filename == f"{link}"
    assert open_below(tmp_path) == before


def test_a_directory_that_cannot_be_removed_is_not_said_to_be_full(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        RealDisk().remove_directory(Tree(tmp_path), ".")


def test_a_write_back_of_a_storage_that_failed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_descriptor: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    tree = Tree(tmp_path)
    tree.sync()
    monkeypatch.setattr(tree_module._LIBC, "syncfs", failing)
    before = open_below(tmp_path)
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path}'"):
        tree.sync()
    assert open_below(tmp_path) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_knows_no_such_walk_each_part_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Old kernels, and containers whose filter forbids the call."""
    calls: list[int] = []

    def unknown(*_args: object) -> int:
        calls.append(1)
        assert len(calls) < 5
        ctypes.set_errno(number)
        return -1

    put(tmp_path / "a/b/file", b"ours")
    monkeypatch.setattr(tree_module, "_OPENAT2", unknown)
    descriptor = Tree(tmp_path).open("a/b/file")
    assert os.read(descriptor, 10) == b"ours"
    os.close(descriptor)
    assert calls == [1]


def test_a_walk_that_was_interrupted_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = tree_module._OPENAT2, list[int]()

    def interrupted(*args: object) -> int:
        calls.append(1)
        if len(calls) < 3:
            ctypes.set_errno(errno.EINTR if len(calls) == 1 else errno.EAGAIN)
            return -1
        return int(real(*args))

    put(tmp_path / "a/b", b"ours")
    monkeypatch.setattr(tree_module, "_OPENAT2", interrupted)
    assert Tree(tmp_path).size("a/b") == 4
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["docker", layout.BLOBS, layout.REPOSITORIES])
def test_a_storage_on_two_file_systems_is_not_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A sync reaches one of them: after a power cut a tag could lead to what is gone."""
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    mounted, fstat, stat = (root / name).stat().st_ino, os.fstat, os.stat

    def other(status: os.stat_result) -> os.stat_result:
        return os.stat_result((*status[:2], status.st_dev + (status.st_ino == mounted), *status[3:10]))

    monkeypatch.setattr(os, "fstat", lambda descriptor: other(fstat(descriptor)))
    monkeypatch.setattr(os, "stat", lambda path, **options: other(stat(path, **options)))
    with pytest.raises(UsageError, match=f"{root}/{name} is on another file system than {root}"):
        find_garbage(Storage(root), ALL)


# --- who we are


def test_who_may_not_be_the_owner_says_so_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container without CAP_SETUID root would write into another's directory with root's rights."""
    if ROOT:
        os.chown(tmp_path, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "setgroups", lambda _groups: None)
    monkeypatch.setattr(actor_module._LIBC, "setfsuid", lambda _uid: 0)
    owner = tmp_path.stat().st_uid
    before = open_below(tmp_path)
    with pytest.raises(ToolError, match=f"cannot work as uid {owner}, who owns the storage") as raised:
        Tree(tmp_path).stat("x")
    assert "CAP_SETUID" in raised.value.hint
    assert open_below(tmp_path) == before


def test_who_becomes_another_is_he_in_all_and_never_again_root() -> None:
    """A program that the owner may signal and trace must have no way back."""
    own = Actor(os.geteuid(), os.getegid())
    own.become()  # changes nothing
    assert (os.getresuid(), os.getresgid()) == ((own.uid,) * 3, (own.gid,) * 3)
    other, (reading, writing) = Actor(65534, 65533) if ROOT else own, os.pipe()
    child = os.fork()
    if child == 0:
        try:
            other.become()
            os.write(writing, f"{os.getresuid()} {os.getresgid()} ".encode())
            Actor(0, 0).become()
        except ToolError as error:
            os.write(writing, error.message.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        ids = f"{(other.uid,) * 3} {(other.gid,) * 3}"
        assert said.read().startswith(f"{ids} cannot work as uid 0, who owns the storage: Operation not permitted")


@pytest.mark.parametrize("refused", [False, True])
def test_what_root_s_groups_may_do_is_not_done_in_another_s_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    """Some namespaces let nobody leave a group; there root's have no rights either."""
    if ROOT:
        os.chown(tmp_path, 65534, 65533)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    left: list[list[int]] = []

    def leave(groups: list[int]) -> None:
        left.append(groups)
        if refused:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "setgroups", leave)
    descriptor, status = os.open(tmp_path, os.O_RDONLY), tmp_path.stat()
    try:
        assert actor_for(descriptor) == Actor(status.st_uid, status.st_gid)
    finally:
        os.close(descriptor)
    assert left == [[]]


@dataclass
class Kernel:
    """Knows for whom files are opened; the call `at` is interrupted."""

    at: int
    uid: int = 0
    gid: int = 0
    calls: int = 0

    def setfsuid(self, uid: int) -> None:
        self._called()
        self.uid = uid

    def setfsgid(self, gid: int) -> None:
        self._called()
        self.gid = gid

    def _called(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "Input/output error")])
def test_root_is_root_again_whatever_ends_a_step_that_is_done_as_the_owner(
    monkeypatch: pytest.MonkeyPatch, at: int, error: OSError | None
) -> None:
    """The rest of the run would write into other storages as he."""
    kernel, seen = Kernel(at), list[tuple[int, int]]()
    monkeypatch.setattr(actor_module, "_LIBC", kernel)

    def step() -> None:
        seen.append((kernel.uid, kernel.gid))
        if error is not None:
            raise error

    with suppress(KeyboardInterrupt, OSError):
        Actor(65534, 65533).calls(step)
    assert (kernel.uid, kernel.gid) == (0, 0)
    assert seen == ([(65534, 65533)] if at not in {1, 2} else [])


@pytest.mark.parametrize("uid", [0, 12345])
def test_an_own_directory_is_worked_in_as_oneself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """So is another's by who is not root: what he may not do there fails."""
    if ROOT:
        os.chown(tmp_path, 65534 if uid else 0, -1)
        monkeypatch.setattr(os, "geteuid", lambda: uid)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert actor_for(descriptor) is None
    finally:
        os.close(descriptor)


def test_a_directory_of_regwraps_that_somebody_else_owns_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there is renamed into the storage, and removed, without a question."""
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    (root / OWN_DIR).mkdir(mode=0o700)
    if ROOT:
        os.chown(root / OWN_DIR, 65534, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    owner = (root / OWN_DIR).stat().st_uid
    with pytest.raises(UsageError, match=f"{OWN_DIR} belongs to uid {owner}"):
        own_tree(Tree(root))


# --- what is removed


def test_a_blob_s_place_that_holds_no_file_is_left_alone_and_told(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    stray = Digest.of(b"stray")
    put(root / layout.blob_path(stray) / "precious", b"precious")
    garbage = find_garbage(Storage(root), ALL)
    remove_garbage(Tree(root), garbage, RealDisk(), lambda _bytes: None)
    assert f"{layout.blob_path(stray)} is no regular file; left alone" in garbage.notes
    assert (root / layout.blob_path(stray) / "precious").read_bytes() == b"precious"


def test_the_first_damage_of_a_repository_is_the_reason_that_is_told(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE, "a:2": TWO, "b:1": THREE})
    for tag in ("1", "2"):
        (root / layout.tag_link("a", tag)).write_bytes(b"")
    (note,) = find_garbage(Storage(root), ALL).notes
    assert "because the link of tag 1 is damaged" in note


@pytest.mark.parametrize("as_file", [False, True], ids=["absent", "a file"])
def test_what_is_gone_meanwhile_keeps_nothing_else_from_going(tmp_path: Path, *, as_file: bool) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE, "a:2": ONE, "a:3": ONE})
    make_storage(root, {f"a:{tag}": TWO for tag in ("1", "2", "3")})
    garbage = find_garbage(Storage(root), ALL)
    directory = (root / layout.tag_index_link("a", "1", ONE.top)).parents[1]
    shutil.rmtree(directory)
    if as_file:
        put(directory, b"")
    remove_garbage(Tree(root), garbage, RealDisk(), lambda _bytes: None)
    for tag in ("2", "3"):
        assert not (root / layout.tag_index_link("a", tag, ONE.top)).exists()
        assert (root / layout.tag_index_link("a", tag, TWO.top)).exists()


def test_a_child_whose_link_is_there_was_not_left_out(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"m:1": MULTI})
    child = Digest.of(MULTI.manifests[0])
    Storage(root).blob_path(child).unlink()
    assert Storage(root).has_lost("m", child)
    add_untagged(root, "n", ONE)
    assert not Storage(root).has_lost("n", Digest.of(b"never seen"))


def test_a_child_that_cannot_be_read_counts_as_lost(tmp_path: Path) -> None:
    """Nobody can tell whether it was left out: nothing of its repository goes."""
    root = make_storage(tmp_path / "root", {"m:1": MULTI})
    child = Digest.of(MULTI.manifests[0])
    (root / layout.revision_link("m", child)).unlink()
    assert Storage(root).has_lost("m", child)
    path = put(Storage(root).blob_path(child), b"{}")
    assert Storage(root).has_lost("m", child)
    for damage in (replace_by_fifo, replace_by_directory):
        damage(path)
        assert Storage(root).has_lost("m", child)
