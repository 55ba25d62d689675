"""What of a damaged storage is taken for garbage, and what stays because nobody can tell."""

import json
import os
import shutil
from pathlib import Path

import pytest

from regwrap.core.errors import UsageError
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage import tree as tree_module
from regwrap.storage.gc import Garbage, Keep, find_garbage
from regwrap.storage.store import Storage
from regwrap.storage.sweep import RealDisk, remove_garbage
from regwrap.storage.tree import LinkedDirectoryError, Tree
from tests.builders import Image, add_newline, add_untagged, index_of, make_image, make_multi_image, make_storage, put

ONE, TWO, THREE = make_image("one"), make_image("two"), make_image("three")
ALL = Keep(names=None, last=None)


def collect(root: Path, keep: Keep = ALL) -> Garbage:
    garbage = find_garbage(Storage(root), keep)
    remove_garbage(Tree(root), garbage, RealDisk(), lambda _bytes: None)
    return garbage


def has(root: Path, digest: Digest) -> bool:
    return Storage(root).blob_size(digest) is not None


@pytest.mark.slow
def test_a_tag_whose_revision_is_not_linked_keeps_its_manifest(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE, "b:1": TWO})
    shutil.rmtree((root / layout.revision_link("a", ONE.top)).parent)
    collect(root)
    assert has(root, ONE.top)
    assert all(has(root, Digest.of(blob)) for blob in ONE.blobs)


@pytest.mark.slow
@pytest.mark.parametrize("raw", [b'{"schemaVersion": 1}', b" " * (4 * 1024 * 1024 + 1)], ids=["no manifest", "large"])
def test_an_untagged_revision_that_can_not_be_read_goes(tmp_path: Path, raw: bytes) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    odd = Image(manifests=(raw,), blobs=())
    add_untagged(root, "a", odd)
    assert [image.digest for image in collect(root).images] == [odd.top]
    assert not has(root, odd.top)
    assert has(root, ONE.top)


@pytest.mark.parametrize("as_file", [False, True], ids=["absent", "a file"])
def test_a_tag_without_its_link_counts_as_the_newest(tmp_path: Path, *, as_file: bool) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE, "a:2": TWO, "a:3": THREE})
    current = (root / layout.tag_link("a", "2")).parent
    shutil.rmtree(current)
    if as_file:
        put(current, b"")
    assert collect(root, Keep(names=None, last=1)).kept == 3  # a repository with damage is kept as it is
    assert all(has(root, image.top) for image in (ONE, TWO, THREE))


def test_tags_whose_blobs_are_all_lost_are_not_dropped_in_silence(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    shutil.rmtree(root / layout.BLOBS)
    (root / layout.BLOBS).mkdir()
    with pytest.raises(UsageError, match="nothing would remain"):
        collect(root, Keep(names=frozenset({"b:1"}), last=None))


def test_a_file_in_the_place_of_a_directory_of_blobs_is_no_blob(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    prefix = (root / layout.blob_path(Digest.of(ONE.blobs[-1]))).parent.parent
    shutil.rmtree(prefix)
    put(prefix, b"precious")
    garbage = collect(root)
    assert prefix.read_bytes() == b"precious"
    assert any("its blob is not there" in note for note in garbage.notes)


def test_a_file_in_the_place_of_a_blobs_own_directory_is_no_blob(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    directory = (root / layout.blob_path(Digest.of(ONE.blobs[-1]))).parent
    shutil.rmtree(directory)
    put(directory, b"precious")
    garbage = collect(root)
    assert directory.read_bytes() == b"precious"
    assert any("its blob is not there" in note for note in garbage.notes)


@pytest.mark.parametrize("name", ["abc", "ab" + "z" * 62, "ab" + "0" * 61, "ab.tmp"])
def test_a_directory_that_is_no_blobs_stays_with_what_is_in_it(tmp_path: Path, name: str) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    junk = put(root / layout.BLOBS / "ab" / name / "data", b"precious")
    garbage = collect(root)
    assert junk.read_bytes() == b"precious"
    assert any(name in note for note in garbage.notes)


@pytest.mark.parametrize("prefix", ["a", "abc", "ag", "AB"])
def test_a_directory_that_is_no_prefix_stays_with_what_is_in_it(tmp_path: Path, prefix: str) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    junk = put(root / layout.BLOBS / prefix / ((prefix * 64)[:64]) / "data", b"precious")
    collect(root)
    assert junk.read_bytes() == b"precious"


def test_what_a_kept_manifest_names_stays_though_its_link_is_lost(tmp_path: Path) -> None:
    """Of a damaged repository nothing goes: a sync mends the link, and needs the blob for it."""
    root = make_storage(tmp_path / "root", {"a:2": TWO})
    add_untagged(root, "a", ONE)
    layer = Digest.of(ONE.blobs[1])
    shutil.rmtree((root / layout.layer_link("a", layer)).parent)
    (root / layout.tag_link("a", "2")).unlink()
    collect(root)
    assert has(root, ONE.top)
    assert has(root, layer)


def test_a_storage_in_which_all_is_needed_has_nothing_to_do(tmp_path: Path) -> None:
    """Also where a repository lies in a directory that is none itself."""
    root = make_storage(tmp_path / "root", {"a/b:1": ONE, "a/c/d:1": TWO, "e:1": THREE})
    garbage = find_garbage(Storage(root), ALL)
    assert (garbage.repositories, garbage.blobs, garbage.prefixes, garbage.images) == ((), (), (), ())


@pytest.mark.parametrize(
    "place", ["repositories/b", "repositories/b/_layers", "repositories/b/_manifests/tags/1", "blobs"]
)
def test_nothing_goes_from_a_storage_that_does_not_lie_in_one_piece(tmp_path: Path, place: str) -> None:
    """A registry follows the link: what is behind it may need what seems to be garbage."""
    root = make_storage(tmp_path / "root", {"a:1": ONE, "b:1": TWO})
    linked = root / layout.V2 / place if place != "blobs" else (root / layout.blob_path(TWO.top)).parents[1]
    linked.rename(tmp_path / "moved")
    linked.symlink_to(tmp_path / "moved")
    with pytest.raises(LinkedDirectoryError, match=f"{linked} is a symbolic link"):
        find_garbage(Storage(root), ALL)


def test_an_image_of_many_tags_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nightly build leaves a thousand tags of one image."""
    root = make_storage(tmp_path / "root", {f"a:{number}": ONE for number in range(9)})
    real, opened = tree_module._OPENAT2, list[bytes]()

    def noted(number: int, base: int, path: bytes, *args: object) -> int:
        opened.append(path)
        return int(real(number, base, path, *args))

    monkeypatch.setattr(tree_module, "_OPENAT2", noted)
    find_garbage(Storage(root), ALL)
    assert opened.count(layout.revision_link("a", ONE.top).encode()) == 1


def test_a_directory_without_a_repository_in_it_goes(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a/b:1": ONE})
    (root / layout.REPOSITORIES / "a/empty/deep").mkdir(parents=True)
    collect(root)
    assert sorted(path.name for path in (root / layout.REPOSITORIES / "a").iterdir()) == ["b"]


@pytest.mark.parametrize("kept", [0, 1])
def test_an_inner_index_is_lost_where_the_repository_has_any_of_its_images(tmp_path: Path, kept: int) -> None:
    inner = make_multi_image("inner")
    outer = index_of([inner, ONE])
    root = make_storage(tmp_path / "root", {"a:1": outer})
    for raw in (inner.raw, *inner.manifests[:2][1 - kept : 2 - kept]):
        shutil.rmtree((root / layout.revision_link("a", Digest.of(raw))).parent)
    assert Storage(root).has_lost("a", inner.top)
    shutil.rmtree((root / layout.revision_link("a", Digest.of(inner.manifests[kept]))).parent)
    assert not Storage(root).has_lost("a", inner.top)


def test_garbage_is_listed_in_order_whatever_the_disk_says(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    for number in range(9):
        add_untagged(root, "a", make_image(f"{number}"))
    garbage = find_garbage(Storage(root), ALL)
    assert len(garbage.blobs) > 20
    assert list(garbage.blobs) == sorted(garbage.blobs)
    assert list(garbage.prefixes) == sorted(garbage.prefixes)
    (repository,) = garbage.repositories
    assert list(repository.revisions) == sorted(repository.revisions)
    assert list(repository.layers) == sorted(repository.layers)
    assert [image.digest for image in garbage.images] == list(repository.revisions)


def test_what_goes_is_told_in_order(tmp_path: Path) -> None:
    """Two runs of the same storage would differ, and nobody could compare them."""
    root = make_storage(tmp_path / "root", {f"a:{tag}": ONE for tag in "gebhdacfi"})
    garbage = find_garbage(Storage(root), Keep(names=frozenset({"a:e"}), last=None))
    assert [image.image for image in garbage.images] == [f"a:{tag}" for tag in "abcdfghi"]
    assert {image.reason for image in garbage.images} == {"not in the list"}
    assert [list(repository.tags) for repository in garbage.repositories] == [list("abcdfghi")]


def test_what_a_tag_was_before_goes_tag_by_tag(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {f"a:{tag}": TWO for tag in "gebhdacfi"})
    make_storage(root, {f"a:{tag}": ONE for tag in "gebhdacfi"})
    (repository,) = find_garbage(Storage(root), ALL).repositories
    assert repository.history == tuple((tag, TWO.top) for tag in "abcdefghi")


def test_what_is_to_be_kept_and_is_not_there_is_named_in_order(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    names = [f"gone-{letter}:1" for letter in "abcdefghi"]
    keep = Keep(names=frozenset({"a:1", *names}), last=None)
    assert [note.partition(" ")[0] for note in find_garbage(Storage(root), keep).notes] == names


@pytest.mark.parametrize("how", ["pinned", "attached"])
def test_of_many_damaged_images_the_same_one_is_named_each_time(tmp_path: Path, how: str) -> None:
    """Two runs of the same storage would give different reasons, and nobody could compare them."""
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    about = {"mediaType": "x", "digest": f"{ONE.top}", "size": len(ONE.raw)}
    damaged = []
    for number in range(9):
        image = make_image(f"{number}")
        raw = json.dumps({**json.loads(image.raw), "subject": about}).encode() if how == "attached" else image.raw
        image = Image((raw,), image.blobs)
        add_untagged(root, "a", image)
        add_newline(root / layout.blob_path(image.top))
        damaged.append(image.top)
    pinned = frozenset(("a", digest) for digest in damaged) if how == "pinned" else frozenset()
    (note,) = find_garbage(Storage(root), Keep(names=None, last=None, digests=pinned)).notes
    assert f"because a@{min(damaged).short} cannot be read" in note


def test_layers_that_a_push_has_to_bring_again_are_named_in_order(tmp_path: Path) -> None:
    many = make_image("many", layers=[bytes([number]) * 9 for number in range(9)])
    root = make_storage(tmp_path / "root", {"a:1": many})
    lost = sorted(map(Digest.of, many.blobs[1:]))
    for digest in lost:
        Storage(root).blob_path(digest).unlink()
    notes = find_garbage(Storage(root), ALL).notes
    assert [note.partition(": its blob is not there")[0] for note in notes] == [f"a needs {digest}" for digest in lost]


def test_of_tags_of_one_moment_a_version_is_newer_than_a_word(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:latest": ONE, "a:1.9": TWO, "a:1.10": THREE})
    for tag in ("latest", "1.9", "1.10"):
        os.utime(root / layout.tag_link("a", tag), ns=(10**18, 10**18))
    garbage = find_garbage(Storage(root), Keep(names=None, last=1))
    assert [image.image for image in garbage.images] == ["a:1.9", "a:latest"]


def test_a_link_among_uploads_is_only_a_link(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    outside = put(tmp_path / "outside/precious", b"precious" * 1000)
    uploads = root / layout.repository_path("a") / "_uploads"
    put(uploads / "1/data", b"12345")
    (uploads / "linked").symlink_to(outside.parent)
    (repository,) = collect(root).repositories
    assert repository.uploads == repository.bytes == 5 + len(f"{outside.parent}")
    assert not uploads.exists()
    assert outside.exists()


def test_an_upload_that_the_registry_removes_meanwhile_frees_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, real = make_storage(tmp_path / "root", {"a:1": ONE}), tree_module._OPENAT2
    upload = put(root / layout.repository_path("a") / "_uploads/1/data", b"half a layer")

    def late(number: int, base: int, path: bytes, *args: object) -> int:
        if path.endswith(b"/_uploads/1/data"):
            upload.unlink()
        return int(real(number, base, path, *args))

    monkeypatch.setattr(tree_module, "_OPENAT2", late)
    (repository,) = find_garbage(Storage(root), ALL).repositories
    assert (upload.exists(), repository.uploads, repository.bytes) == (False, 0, 0)


def test_what_is_freed_is_what_is_there(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    add_untagged(root, "a", TWO)
    Storage(root).blob_path(Digest.of(TWO.blobs[1])).unlink()
    garbage = find_garbage(Storage(root), ALL)
    (repository,) = garbage.repositories
    assert len(repository.layers) == 2
    assert repository.bytes == len(TWO.raw) + len(TWO.blobs[0])
    assert garbage.notes == (), "nobody needs what is not there"


def test_what_another_repository_needs_is_not_said_to_be_freed(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE, "b:1": TWO})
    add_untagged(root, "a", TWO)
    (repository,) = find_garbage(Storage(root), ALL).repositories
    assert (len(repository.layers), repository.bytes) == (2, 0)
