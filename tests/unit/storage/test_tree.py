"""Names below a directory that somebody else may write to: whatever he puts there, nothing outside is reached."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from regwrap.storage.sweep import RealDisk
from regwrap.storage.tree import LinkedDirectoryError, Tree
from tests.builders import open_below, put, snapshot

FLAGS = os.O_RDONLY | os.O_NOFOLLOW


@pytest.fixture(params=[True, False], ids=["openat2", "by parts"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """As the kernel walks, and as it is done where it can't."""
    put(tmp_path / "outside/secret", b"root's")
    put(tmp_path / "outside/deep/secret", b"root's")
    put(tmp_path / "root/a/b/file", b"ours")
    (tmp_path / "root/a/linked").symlink_to(tmp_path / "outside")
    (tmp_path / "root/a/name").symlink_to(tmp_path / "outside/secret")
    return Tree(tmp_path / "root", beneath=request.param)


OPERATIONS: dict[str, Callable[[Tree], object]] = {
    "open": lambda tree: tree.open("a/linked/secret", FLAGS),
    "stat": lambda tree: tree.stat("a/linked/secret"),
    "entries": lambda tree: tree.entries("a/linked"),
    "inner": lambda tree: tree.inner("a/linked"),
    "create": lambda tree: tree.create("a/linked/new"),
    "mkdir": lambda tree: tree.make_directory("a/linked/new"),
    "mkdirs": lambda tree: tree.make_directories("a/linked/new/deeper"),
    "rename to": lambda tree: tree.rename("a/b/file", tree, "a/linked/file"),
    "rename from": lambda tree: tree.rename("a/linked/secret", tree, "a/b/secret"),
    "unlink": lambda tree: tree.remove_file("a/linked/secret"),
    "rmdir": lambda tree: tree.remove_directory("a/linked/secret"),
    "rm -r": lambda tree: tree.remove_all("a/linked/secret"),
    "mkdir below": lambda tree: tree.make_directory("a/linked/deep/new"),
    "rename to below": lambda tree: tree.rename("a/b/file", tree, "a/linked/deep/file"),
    "rename from below": lambda tree: tree.rename("a/linked/deep/secret", tree, "a/b/secret"),
    "unlink below": lambda tree: tree.remove_file("a/linked/deep/secret"),
    "rmdir below": lambda tree: tree.remove_directory("a/linked/deep/secret"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_linked_directory_is_refused_by_name(tree: Tree, tmp_path: Path, operation: str) -> None:
    before = snapshot(tmp_path / "outside")
    with pytest.raises(LinkedDirectoryError, match="root/a/linked is a symbolic link") as raised:
        OPERATIONS[operation](tree)
    assert "replace the link" in raised.value.hint
    assert snapshot(tmp_path / "outside") == before


def test_nothing_behind_a_linked_directory_is_emptied(tree: Tree, tmp_path: Path) -> None:
    before = snapshot(tmp_path / "outside")
    assert not tree.inner("a").empty_directory("linked", "secret")
    assert snapshot(tmp_path / "outside") == before
    assert tree.inner("a").empty_directory("b", "file")
    assert not tree.is_directory("a/b")


def test_a_directory_in_another_s_is_worked_in_as_he_also_where_it_is_the_first_that_is_asked_for(
    tmp_path: Path,
) -> None:
    """Root would write there with root's rights."""
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    (tmp_path / "above").mkdir()
    for path in (tmp_path, tmp_path / "above"):
        os.chown(path, owner, -1)
    inner = Tree(tmp_path).inner("above")
    assert inner.uid == owner
    os.close(inner.create("new"))
    assert (tmp_path / "above/new").stat().st_uid == owner


def test_what_is_emptied_in_another_s_directory_is_gone_as_well(tmp_path: Path) -> None:
    """Garbage that is said to be removed and stays would fill his disk."""
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    file = put(tmp_path / "above/inner/link", b"x")
    for path in (tmp_path, tmp_path / "above", file.parent, file):
        os.chown(path, owner, -1)
    assert RealDisk().empty_directory(Tree(tmp_path).inner("above"), "inner", "link")
    assert list((tmp_path / "above").iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../outside/secret", "a/../../outside/secret"])
def test_no_name_leads_above(tree: Tree, name: str) -> None:
    with pytest.raises(OSError, match="link"):
        tree.open(name, FLAGS)


@pytest.mark.parametrize("name", ["../outside/secret", "a/../../outside/secret"])
def test_nothing_above_is_moved_or_removed(tree: Tree, tmp_path: Path, name: str) -> None:
    assert tree.descriptor
    before = snapshot(tmp_path)
    for does in (tree.remove_file, lambda name: tree.rename(name, tree, "a/b/new")):
        with pytest.raises(OSError, match="Invalid cross-device link"):
            does(name)
    assert snapshot(tmp_path) == before


def test_a_link_in_a_file_s_place_is_seen_and_not_followed(tree: Tree, tmp_path: Path) -> None:
    status = tree.stat("a/name")
    assert status is not None
    assert stat.S_ISLNK(status.st_mode)
    assert tree.size("a/name") is None
    with pytest.raises(OSError, match="symbolic links"):
        tree.open("a/name", FLAGS)
    with pytest.raises(FileExistsError):
        tree.create("a/name")
    tree.rename("a/b/file", tree, "a/name")
    assert (tmp_path / "root/a/name").read_bytes() == b"ours"
    assert (tmp_path / "outside/secret").read_bytes() == b"root's"


def test_what_is_absent_is_absent_and_what_is_below_a_file_too(tree: Tree) -> None:
    for name in ("absent", "absent/deeper", "a/b/file/below"):
        assert tree.stat(name) is None
        assert tree.entries(name) == []
    assert not tree.is_directory("a/b/file")
    tree.remove_all("absent")


def test_a_tree_that_is_removed_takes_no_link_s_target_with_it(tree: Tree, tmp_path: Path) -> None:
    tree.remove_all("a")
    assert tree.entries(".") == []
    assert (tmp_path / "outside/secret").read_bytes() == b"root's"


def test_the_directory_stays_the_same_whatever_gets_its_name(tree: Tree, tmp_path: Path) -> None:
    inner = tree.inner("a/b")
    (tmp_path / "root/a/b").rename(tmp_path / "root/a/away")
    (tmp_path / "root/a/b").symlink_to(tmp_path / "outside")
    os.close(inner.create("new"))
    assert (tmp_path / "root/a/away/new").exists()
    assert not (tmp_path / "outside/new").exists()


def test_an_error_names_the_whole_path(tree: Tree, tmp_path: Path) -> None:
    for fails in (lambda: tree.remove_file("a/absent"), lambda: tree.open("a/absent", FLAGS)):
        with pytest.raises(FileNotFoundError) as raised:
            fails()
        assert raised.value.filename == f"{tmp_path}/root/a/absent"
    with pytest.raises(FileNotFoundError) as raised:
        tree.remove_file("absent/file")
    assert raised.value.filename == f"{tmp_path}/root/absent"
    with pytest.raises(NotADirectoryError) as below:
        tree.open("a/b/file/below/deeper", FLAGS)
    assert below.value.filename == f"{tmp_path}/root/a/b/file/below/deeper"
    with pytest.raises(LinkedDirectoryError, match="root/a/linked is"):
        tree.inner("a").remove_file("linked/secret")


def test_names_that_are_no_text_are_names(tree: Tree) -> None:
    name = os.fsdecode(b"a/caf\xe9")
    tree.make_directory(name)
    assert tree.is_directory(name)


def test_no_descriptor_is_left_open(tree: Tree) -> None:
    tree.stat("a/b/file")
    before = open_below(tree.root)
    for operation in OPERATIONS.values():
        with pytest.raises(LinkedDirectoryError):
            operation(tree)
    inner = tree.inner("a/b")
    inner.rename("file", tree, "a/moved")
    del inner
    assert open_below(tree.root) == before


def test_emptying_directories_leaves_no_descriptor_open(tree: Tree) -> None:
    inner = tree.inner("a")
    before = open_below(tree.root)
    for name, file, gone in (("b", "absent", False), ("absent", "file", False), ("b", "file", True)):
        assert inner.empty_directory(name, file) is gone
    assert open_below(tree.root) == before


@dataclass
class Nameless:
    """An entry of a file system whose directories don't say what a name is: it is looked at when that is asked."""

    name: str
    directory: int
    mode: int = 0

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._mode())

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        assert not follow_symlinks
        return stat.S_ISDIR(self._mode())

    def _mode(self) -> int:
        self.mode = self.mode or os.stat(self.name, dir_fd=self.directory, follow_symlinks=False).st_mode
        return self.mode


def test_what_a_name_is_is_known_on_every_file_system(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "scandir", lambda directory: nullcontext([Nameless(name, directory) for name in os.listdir(directory)])
    )
    found = {entry.name: (entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in tree.entries("a")}
    assert found == {"b": (True, False), "linked": (False, True), "name": (False, True)}


def test_whose_mode_cannot_be_changed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_descriptor: int, _mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    tree, file = Tree(tmp_path), put(tmp_path / "file", b"")
    descriptor = tree.open("file")
    monkeypatch.setattr(os, "fchmod", refused)
    with pytest.raises(PermissionError) as raised:
        tree.own(descriptor, 0o600, os.geteuid(), os.getegid())
    os.close(descriptor)
    assert raised.value.filename == f"{file}"


def test_who_is_not_root_gives_nothing_away_and_changes_the_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He may not, also where the group is another one: the storage's root says what the group of new files is."""
    tree, given = Tree(tmp_path), list[int]()
    descriptor = tree.create("new")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "fchown", lambda *_args: given.append(1))
    tree.own(descriptor, 0o640, 12345, 54321)
    os.close(descriptor)
    assert given == []
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.parametrize("beneath", [True, False])
def test_what_is_mounted_in_a_storage_belongs_to_it(*, beneath: bool) -> None:
    """Its blobs may lie on a disk of their own; /proc is mounted everywhere."""
    assert Tree(Path("/"), beneath=beneath).is_directory("proc/sys")


def test_threads_that_come_first_together_open_the_directory_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, real, both, opened = Tree(tmp_path), os.open, threading.Event(), list[Path]()

    def slow(path: Path, flags: int) -> int:
        opened.append(path)
        if len(opened) > 1:
            both.set()
        both.wait(0.1)
        return real(path, flags)

    monkeypatch.setattr(os, "open", slow)
    threads = [threading.Thread(target=lambda: tree.descriptor) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert opened == [tmp_path]
    assert open_below(tmp_path) == [f"{tmp_path}"]


def test_a_run_without_standard_input_leaves_no_directory_open(tmp_path: Path) -> None:
    """The first that is opened there has its number, 0."""
    kept = os.dup(0)
    os.close(0)
    try:
        tree = Tree(tmp_path)
        assert tree.stat("absent") is None
        del tree
        assert open_below(tmp_path) == []
        os.dup2(kept, 0)
        tree = Tree(tmp_path)
        put(tmp_path / "full/file", b"")
        assert tree.descriptor != 0
        os.close(0)
        assert tree.empty_directory("full", "file")
        assert open_below(tmp_path) == [f"{tmp_path}"]
        assert tree.size(put(tmp_path / "full/other", b"12345").relative_to(tmp_path).as_posix()) == 5
        assert open_below(tmp_path) == [f"{tmp_path}"]
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_a_file_in_the_place_of_a_directory_is_none_that_is_empty(tmp_path: Path) -> None:
    """A storage that seems to have nothing would be copied once more, into nowhere."""
    tree = Tree(put(tmp_path / "root", b""))
    with pytest.raises(NotADirectoryError):
        assert tree.descriptor
    assert open_below(tmp_path) == []


def test_no_program_inherits_what_is_open(tree: Tree) -> None:
    """A skopeo would keep a customer's storage busy after regwrap has gone."""
    tree.make_directory("a/made")
    for name, flags in (("a/b/file", FLAGS), ("a", FLAGS | os.O_DIRECTORY), ("a/made", os.O_PATH)):
        descriptor = tree.open(name, flags)
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    assert not os.get_inheritable(tree.descriptor)


def test_looking_into_directories_leaves_no_descriptor_open(tree: Tree) -> None:
    tree.stat("a/b/file")
    before = open_below(tree.root)
    for _ in range(3):
        assert [entry.name for entry in tree.entries("a/b")] == ["file"]
    assert open_below(tree.root) == before


def test_what_is_made_in_a_directory_of_ours_goes_to_its_owner(tmp_path: Path) -> None:
    owner = (65534, 65533) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    tree, before = Tree(tmp_path), os.umask(0)
    try:
        descriptor = tree.create("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
    tree.own(descriptor, 0o640, *owner)
    os.close(descriptor)
    status = (tmp_path / "new").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*owner, 0o640)


def test_who_becomes_the_owner_is_he_for_good_and_has_no_group_of_root_s(tmp_path: Path) -> None:
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, owner, owner if os.geteuid() == 0 else -1)
    tree, (reading, writing) = Tree(tmp_path), os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tree.become_owner()
            os.write(writing, f"{os.getresuid()} {0 in os.getgroups()}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(reading) as said:
        assert said.read() == f"{(owner,) * 3} {0 in os.getgroups() and os.geteuid() != 0}"


@pytest.mark.parametrize("uid", [0, 65534])
def test_root_becomes_the_owner_where_that_is_another_his_group_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    """Who is no longer root may change no group."""
    if os.geteuid() == 0:
        os.chown(tmp_path, uid, 65533)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "setgroups", lambda _groups: None)
    became: list[tuple[str, tuple[int, ...]]] = []
    monkeypatch.setattr(os, "setresgid", lambda *ids: became.append(("group", ids)))
    monkeypatch.setattr(os, "setresuid", lambda *ids: became.append(("user", ids)))
    Tree(tmp_path).become_owner()
    status = tmp_path.stat()
    expected = [("group", (status.st_gid,) * 3), ("user", (status.st_uid,) * 3)]
    assert became == (expected if status.st_uid else [])
    became.clear()
    tree = Tree(tmp_path)
    assert tree.descriptor
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    tree.become_owner()
    assert became == [], "who is not root stays who he is"


def test_a_path_that_cannot_be_looked_at_is_not_said_to_be_absent(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, fstat = [OSError(errno.EIO, "Input/output error")], os.fstat

    def failing(descriptor: int) -> os.stat_result:
        if looks:
            raise looks.pop()
        return fstat(descriptor)

    assert tree.descriptor
    monkeypatch.setattr(os, "fstat", failing)
    with pytest.raises(OSError, match="Input/output error") as raised:
        tree.stat("a/b/file")
    assert raised.value.filename == f"{tmp_path}/root/a/b/file"
    with pytest.raises(OSError, match="too long"):
        tree.stat("a/" + "x" * 300)


def test_what_is_made_without_a_mode_is_the_owners_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        Tree(tmp_path).make_directory("one")
        Tree(tmp_path).make_directories("more/below")
    finally:
        os.umask(previous)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("one", "more", "more/below")} == {0o700}
