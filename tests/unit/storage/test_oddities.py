"""Things in a storage that nobody expects there: what comes after them is found all the same."""

import os
from pathlib import Path

from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.store import Storage, read_link
from regwrap.storage.tree import Tree
from tests.builders import add_untagged, make_image, make_storage, open_below, put

ONE = make_image("one")


def test_what_is_no_digest_does_not_end_a_list(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    for directory in ("_manifests/revisions/sha256", "_layers/sha256"):
        (root / layout.repository_path("a") / directory / ".junk").mkdir()
    storage = Storage(root)
    assert storage.revisions("a") == (ONE.top,)
    assert storage.layers("a") == tuple(sorted(Digest.of(blob) for blob in ONE.blobs))


def test_a_repository_with_manifests_alone_is_one(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    add_untagged(root, "b", ONE)
    link = root / layout.repository_path("c") / "_manifests/revisions"
    link.mkdir(parents=True)
    assert list(Storage(root).repositories()) == ["a", "b", "c"]


def test_reading_links_leaves_no_descriptor_open(tmp_path: Path) -> None:
    put(tmp_path / "link", b"x")
    os.mkfifo(tmp_path / "fifo")
    tree = Tree(tmp_path)
    assert tree.descriptor
    before = open_below(tmp_path)
    for name in ("link", "fifo", "absent"):
        assert read_link(tree, name) is None
    assert open_below(tmp_path) == before
