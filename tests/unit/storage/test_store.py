"""Reading a storage: names, damaged links and blobs, and images of every shape."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regwrap.core.errors import IntegrityError
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest, Platform
from regwrap.storage import layout
from regwrap.storage.hashing import hash_file
from regwrap.storage.store import Storage, ValidBlobs, read_link, real_root, regular_size
from regwrap.storage.tree import LinkedDirectoryError, Tree
from tests.builders import (
    add_newline,
    add_untagged,
    empty,
    fill_with_garbage,
    flip,
    index_of,
    make_image,
    make_multi_image,
    make_storage,
    put,
    remove,
    replace_by_directory,
    replace_by_fifo,
    replace_by_symlink,
    truncate,
)

Damage = Callable[[Path], None]
IMAGE = make_image("a")
LAYER = Digest.of(IMAGE.blobs[-1])

BAD_LINKS = [
    empty, add_newline, truncate, fill_with_garbage, remove, replace_by_directory, replace_by_fifo, replace_by_symlink
]  # fmt: skip


def storage_with(tmp_path: Path, *names: str) -> Storage:
    return Storage(make_storage(tmp_path / "storage", dict.fromkeys(names, IMAGE)))


def layer(size: int = len(IMAGE.blobs[-1])) -> Descriptor:
    return Descriptor(media_type="", digest=LAYER, size=size)


def test_repositories_are_sorted_and_may_lie_in_each_other(tmp_path: Path) -> None:
    names = ["tags/list", "a/b/c", "a", "a/b", "a-b", "a/blobs", "a/tags/x"]
    storage = storage_with(tmp_path, *(f"{name}:1" for name in names))
    assert list(storage.repositories()) == sorted(names)


def test_a_storage_is_its_directories_whether_it_was_looked_into_or_not(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    assert list(storage.repositories()) == ["a"]
    assert storage == Storage(storage.root)
    assert repr(storage) == f"Storage(root={storage.root!r}, below=())"


def test_an_empty_storage_has_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "absent")
    assert list(storage.repositories()) == []
    assert list(storage.blobs()) == []
    assert (storage.tags("a"), storage.revisions("a"), storage.layers("a")) == ((), (), ())
    assert (storage.resolve("a", "1"), storage.blob_size(LAYER), storage.closure("a", LAYER)) == (None, None, None)


def test_what_is_no_repository_is_left_out(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    repositories = storage.root / layout.REPOSITORIES
    (repositories / "only-uploads/_uploads").mkdir(parents=True)
    (repositories / "empty").mkdir()
    (repositories / "UPPER/_manifests").mkdir(parents=True)
    (repositories / "_layers/_manifests").mkdir(parents=True)
    (repositories / "LINKED").symlink_to(repositories / "a")
    put(repositories / "file", b"")
    put(repositories / "b/_manifests", b"")
    os.mkfifo(repositories / "fifo")
    assert list(storage.repositories()) == ["a"]


def test_a_repository_with_layers_only_is_one(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    (tmp_path / layout.REPOSITORIES / "a/b/_layers").mkdir(parents=True)
    assert list(storage.repositories()) == ["a/b"]


def test_tags_are_directories_with_a_legal_name(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:2", "a:1", "a:v1.0_x")
    tags = storage.root / layout.repository_path("a") / "_manifests/tags"
    put(tags / "junk.txt", b"")
    (tags / "bad tag").mkdir()
    (tags / ".nfs0001").mkdir()
    (tags / "linked tag").symlink_to("1")
    (tags / "empty").mkdir()
    assert storage.tags("a") == ("1", "2", "empty", "v1.0_x")
    assert storage.resolve("a", "empty") is None


@pytest.mark.parametrize("place", ["a", "a/_manifests/tags/1"])
def test_a_link_in_a_directory_s_place_is_named_and_not_followed(tmp_path: Path, place: str) -> None:
    storage = storage_with(tmp_path / "storage", "a:1", "b:1")
    linked = storage.root / layout.REPOSITORIES / place
    linked.rename(tmp_path / "away")
    linked.symlink_to(tmp_path / "away")
    with pytest.raises(LinkedDirectoryError, match=f"{place} is a symbolic link"):
        sorted([*storage.tags("a"), *storage.repositories()])


def test_revisions_and_layers_are_what_has_a_digest_for_a_name(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    for place in ("_layers", "_manifests/revisions"):
        (storage.root / layout.repository_path("a") / place / "sha256/junk").mkdir()
    assert storage.layers("a") == tuple(sorted(Digest.of(blob) for blob in IMAGE.blobs))
    assert storage.revisions("a") == (IMAGE.top,)


def test_blobs_are_sorted_and_lie_where_they_belong(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    wrong = "00" if LAYER.hex[:2] != "00" else "01"
    put(storage.root / layout.BLOBS / wrong / LAYER.hex / "data", b"x")
    put(storage.root / layout.BLOBS / "junk", b"")
    assert list(storage.blobs()) == sorted(Digest.of(data) for data in (*IMAGE.blobs, *IMAGE.manifests))


@pytest.mark.parametrize("damage", BAD_LINKS)
def test_a_damaged_link_counts_as_absent(tmp_path: Path, damage: Damage) -> None:
    storage = storage_with(tmp_path, "a:1")
    assert storage.resolve("a", "1") == IMAGE.top
    assert storage.has_layer("a", LAYER)
    assert storage.has_revision("a", IMAGE.top)
    for path in (
        layout.tag_link("a", "1"), layout.layer_link("a", LAYER), layout.revision_link("a", IMAGE.top)
    ):  # fmt: skip
        damage(storage.root / path)
    assert storage.resolve("a", "1") is None
    assert not storage.has_layer("a", LAYER)
    assert not storage.has_revision("a", IMAGE.top)
    assert storage.closure("a", IMAGE.top) is None


@pytest.mark.parametrize(
    "text", [b"sha256:" + b"A" * 64, b"sha512:" + b"a" * 64, b" sha256:" + b"a" * 63, b"\xff" * 71]
)
def test_a_link_is_exactly_one_digest(tmp_path: Path, text: bytes) -> None:
    put(tmp_path / "link", text)
    assert read_link(Tree(tmp_path), "link") is None


def test_a_link_below_a_file_is_absent(tmp_path: Path) -> None:
    put(tmp_path / "file", b"")
    assert read_link(Tree(tmp_path), "file/link") is None


def test_a_link_that_can_t_be_looked_at_is_not_absent(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        read_link(Tree(tmp_path), "x" * 300)


def test_a_link_to_something_else_than_its_name_does_not_count(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    (storage.root / layout.layer_link("a", LAYER)).write_text(str(IMAGE.top))
    assert not storage.has_layer("a", LAYER)


@pytest.mark.parametrize("damage", [remove, replace_by_fifo, replace_by_directory, replace_by_symlink])
def test_a_blob_that_is_no_regular_file_is_absent(tmp_path: Path, damage: Damage) -> None:
    storage = storage_with(tmp_path, "a:1")
    assert storage.blob_size(LAYER) == len(IMAGE.blobs[-1])
    damage(storage.blob_path(LAYER))
    assert storage.blob_size(LAYER) is None
    assert storage.read_blob(LAYER) is None
    assert not storage.is_valid(layer(), hashed=False)
    assert regular_size(storage.blob_path(LAYER) / "below") is None


@pytest.mark.parametrize(("damage", "by_size", "by_hash"), [(flip, True, False), (truncate, False, False)])
def test_a_sound_blob_has_its_size_and_if_asked_for_its_bytes(
    tmp_path: Path, damage: Damage, *, by_size: bool, by_hash: bool
) -> None:
    storage = storage_with(tmp_path, "a:1")
    assert storage.is_valid(layer(), hashed=True)
    damage(storage.blob_path(LAYER))
    assert storage.is_valid(layer(), hashed=False) is by_size
    assert storage.is_valid(layer(), hashed=True) is by_hash


def test_a_blob_is_looked_at_once_a_run(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    valid = ValidBlobs(storage=storage, hashed=True)
    assert valid.has(layer())
    storage.blob_path(LAYER).unlink()
    assert valid.has(layer())
    assert not ValidBlobs(storage=storage, hashed=True).has(layer())


def test_a_link_of_a_repository_is_looked_for_until_it_is_there(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    valid = ValidBlobs(storage=storage, hashed=False)
    assert valid.has_in("a", layer())
    assert not valid.has_in("b", layer())
    storage_with(tmp_path, "b:1")
    assert valid.has_in("b", layer())
    (storage.root / layout.layer_link("b", LAYER)).unlink()
    assert valid.has_in("b", layer())  # seen once a run


def test_a_blob_that_was_just_written_is_sound(tmp_path: Path) -> None:
    valid = ValidBlobs(storage=Storage(tmp_path), hashed=False)
    assert not valid.has(layer())
    valid.add(LAYER)
    assert valid.has(layer())


def test_a_large_blob_is_not_read_into_memory(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    with pytest.raises(IntegrityError, match="at most 3"):
        storage.read_blob(LAYER, limit=3)
    size = len(IMAGE.blobs[-1])
    with pytest.raises(IntegrityError, match=f"has {size} bytes"):
        storage.read_blob(LAYER, limit=size - 1)
    assert storage.read_blob(LAYER, limit=size) == IMAGE.blobs[-1]


def test_a_config_of_other_bytes_is_none(tmp_path: Path) -> None:
    storage = storage_with(tmp_path, "a:1")
    assert storage.read_config(layer()) == IMAGE.blobs[-1]
    flip(storage.blob_path(LAYER))
    assert storage.read_config(layer()) == b""
    remove(storage.blob_path(LAYER))
    assert storage.read_config(layer()) == b""


def test_the_closure_of_a_nested_index(tmp_path: Path) -> None:
    image = index_of([make_multi_image("m"), make_image("s")])
    storage = Storage(make_storage(tmp_path, {"a/b:1": image}))
    closure = storage.closure("a/b", image.top)
    assert closure is not None
    assert tuple(manifest.raw for manifest in closure.manifests) == image.manifests
    assert closure.missing == ()
    assert storage.closure("a", image.top) is None


def test_the_closure_of_a_sparse_index_names_what_is_missing(tmp_path: Path) -> None:
    image = make_multi_image("m")
    storage = Storage(make_storage(tmp_path, {"a:1": image}))
    child = Digest.of(image.manifests[0])
    remove(storage.root / layout.revision_link("a", child))
    closure = storage.closure("a", image.top)
    assert closure is not None
    assert [item.digest for item in closure.missing] == [child]
    chosen = storage.closure("a", image.top, (Platform("linux", "arm64"),))
    assert chosen is not None
    assert (chosen.missing, [item.digest for item in chosen.omitted]) == ((), [child])


@pytest.mark.parametrize("position", [0, -1])
@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_manifest_of_other_bytes_is_refused(tmp_path: Path, damage: Damage, position: int) -> None:
    image = make_multi_image("m")
    storage = Storage(make_storage(tmp_path, {"a:1": image}))
    damage(storage.blob_path(Digest.of(image.manifests[position])))
    with pytest.raises(IntegrityError):
        storage.closure("a", image.top)


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 1_000_000])
def test_hash_file_is_the_digest_of_the_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert hash_file(put(tmp_path / "file", data[:size])) == Digest.of(data[:size])


def test_digests_are_listed_in_order_whatever_the_disk_says(tmp_path: Path) -> None:
    image = make_image("many", layers=[bytes([number]) * 9 for number in range(9)])
    root = make_storage(tmp_path / "storage", {"a:1": image})
    for number in range(5):
        add_untagged(root, "a", make_image(f"{number}"))
    storage = Storage(root)
    for found in (storage.layers("a"), storage.revisions("a"), tuple(storage.blobs())):
        assert len(found) > 5
        assert list(found) == sorted(found)


def test_a_directory_that_has_lost_its_name_is_used_as_it_is(tmp_path: Path) -> None:
    """As /proc/PID/root, where the text of a path leads elsewhere than the path."""
    (tmp_path / "gone").mkdir()
    descriptor = os.open(tmp_path / "gone", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tmp_path / "gone").rmdir()
        place = Path(f"/proc/self/fd/{descriptor}")
        assert real_root(place) == place
    finally:
        os.close(descriptor)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert real_root(tmp_path / "link") == tmp_path / "there"
    assert real_root(tmp_path / "link/new") == tmp_path / "there/new"
