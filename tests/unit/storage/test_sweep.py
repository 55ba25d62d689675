"""The file operations of a removal, and what becomes of a disk that fails in the middle of one."""

import errno
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.gc import Keep, find_garbage
from regwrap.storage.store import Storage
from regwrap.storage.sweep import RealDisk, remove_garbage
from regwrap.storage.tree import Tree
from tests.builders import add_untagged, make_image, make_storage, put
from tests.crashing import DyingDisk

ONE, TWO = make_image("one"), make_image("two")


@dataclass(frozen=True)
class FailingDisk(RealDisk):
    """Blobs can't be removed, and nothing needs a sync to be seen."""

    number: int

    def empty_directory(self, tree: Tree, name: str, file: str) -> bool:
        if "/blobs/" in tree.shown(name):
            raise OSError(self.number, "gone for a moment", tree.shown(name))
        return super().empty_directory(tree, name, file)


def test_the_real_disk_syncs_the_file_system_that_it_is_given(tmp_path: Path) -> None:
    RealDisk().sync(Tree(tmp_path))
    with pytest.raises(FileNotFoundError):
        RealDisk().sync(Tree(tmp_path / "absent"))


def test_what_is_gone_already_is_gone(tmp_path: Path) -> None:
    disk, tree = RealDisk(), Tree(tmp_path)
    disk.remove_file(tree, "absent")
    assert disk.remove_directory(tree, "absent")
    assert disk.remove_directory(tree, "absent/deeper")


def test_a_directory_goes_only_when_it_is_empty_and_is_one(tmp_path: Path) -> None:
    disk, tree, file = RealDisk(), Tree(tmp_path), put(tmp_path / "full/file", b"precious")
    assert not disk.remove_directory(tree, "full")
    assert not disk.remove_directory(tree, "full/file")
    disk.remove_file(tree, "full")  # no file: it is left alone
    assert file.read_bytes() == b"precious"
    disk.remove_file(tree, "full/file")
    assert disk.remove_directory(tree, "full")
    assert not file.parent.exists()


def test_an_error_of_the_disk_ends_the_removal_and_the_next_one_is_complete(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    add_untagged(root, "a", TWO)
    keep = Keep(names=None, last=None)
    garbage = find_garbage(Storage(root), keep)
    with pytest.raises(OSError, match="gone for a moment"):
        remove_garbage(Tree(root), garbage, FailingDisk(errno.EIO), lambda _bytes: None)
    assert Storage(root).blob_size(TWO.top) is not None
    remove_garbage(Tree(root), find_garbage(Storage(root), keep), RealDisk(), lambda _bytes: None)
    assert Storage(root).blob_size(TWO.top) is None
    assert Storage(root).blob_size(ONE.top) is not None


def test_every_byte_that_goes_is_counted_and_unknown_files_are_named(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    add_untagged(root, "a", TWO)
    put(root / layout.tag_index_link("a", "1", TWO.top), f"{TWO.top}".encode())
    strange = put((root / layout.blob_path(Digest.of(TWO.blobs[0]))).parent / "strange", b"precious")
    counted: list[int] = []
    garbage = find_garbage(Storage(root), Keep(names=None, last=None))
    left = remove_garbage(Tree(root), garbage, RealDisk(), counted.append)
    assert left == (f"{strange.parent}",)
    assert strange.read_bytes() == b"precious"
    assert sum(counted) == garbage.blob_bytes == sum(map(len, (*TWO.blobs, *TWO.manifests)))


def test_a_repository_that_stays_without_a_tag_keeps_its_directories(tmp_path: Path) -> None:
    """A registry that finds no directory of tags says that it doesn't know the repository."""
    root = make_storage(tmp_path / "root", {"a:1": ONE, "a:2": TWO})
    keep = Keep(names=frozenset(), last=None, digests=frozenset({("a", ONE.top)}))
    remove_garbage(Tree(root), find_garbage(Storage(root), keep), RealDisk(), lambda _bytes: None)
    assert list((root / layout.tag_path("a", "1")).parent.iterdir()) == []
    assert Storage(root).revisions("a") == (ONE.top,)


@pytest.mark.parametrize("leftover", [f"{layout.repository_path('a')}/_uploads/1/data", f"{layout.BLOBS}/zz"])
def test_that_leftovers_are_gone_is_on_the_disk_before_it_is_said(tmp_path: Path, leftover: str) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    free = next(f"{n:02x}" for n in range(256) if not (root / layout.BLOBS / f"{n:02x}").exists())
    path = root / leftover.replace("zz", free)
    if path.name == "data":
        put(path, b"half a layer")
    else:
        path.mkdir()
    disk = DyingDisk(RealDisk(), left=10**9)
    remove_garbage(Tree(root), find_garbage(Storage(root), Keep(names=None, last=None)), disk, lambda _bytes: None)
    assert not path.exists()
    assert disk.done[-1] == "sync"
    assert len(disk.done) > 1


def test_each_step_is_on_the_disk_before_the_next_begins(tmp_path: Path) -> None:
    """After a power cut no tag leads to a manifest that is gone, and no manifest to a blob."""
    root = make_storage(tmp_path / "root", {"a:1": ONE, "a:2": TWO, "b:2": TWO})
    put(root / layout.tag_index_link("a", "1", TWO.top), f"{TWO.top}".encode())
    disk = DyingDisk(RealDisk(), left=10**9)
    garbage = find_garbage(Storage(root), Keep(names=frozenset({"a:1"}), last=None))
    remove_garbage(Tree(root), garbage, disk, lambda _bytes: None)
    steps = [step for step, _group in groupby(filter(None, disk.paths))]
    assert steps == [
        "tag", "sync", "history", "sync", "revision", "sync", "layer", "sync", "blob", "sync", "prefix", "sync",
    ]  # fmt: skip
    assert not (root / layout.tag_path("a", "2")).exists()
    assert not (root / layout.tag_path("b", "2")).exists()
    assert not (root / ".regwrap/gc").exists()
