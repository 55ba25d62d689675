"""Garbage: what is kept, what goes and why; a crash at any moment and a second run give the same storage."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regwrap.commands.gc import GcOptions, GcReport, collect_garbage, keep_of
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.manifest import Manifest, parse_manifest
from regwrap.core.model import Digest
from regwrap.lists.imagelist import parse_images
from regwrap.storage import layout
from regwrap.storage.gc import Keep
from regwrap.storage.own import mark_own
from regwrap.storage.store import Storage
from regwrap.storage.sweep import Disk, RealDisk
from regwrap.storage.tree import Tree
from tests.builders import (
    Image,
    add_newline,
    add_untagged,
    empty,
    fill_with_garbage,
    flip,
    index_of,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    put,
    remove,
    replace_by_fifo,
    replace_by_symlink,
    snapshot,
    storage_problems,
    truncate,
)
from tests.crashing import Died, DyingDisk, directory_in_memory
from tests.lost import lose

BASE = make_layer("base")
ONE = make_image("one", layers=[BASE, make_layer("one")])
TWO = make_image("two", layers=[BASE, make_layer("two")])
THREE = make_image("three")
MULTI = make_multi_image("multi")
NESTED = index_of([make_multi_image("inner"), make_image("leaf")], [None, "linux/s390x"])
ALL = Keep(names=None, last=None)


def keeping(*names: str) -> Keep:
    return Keep(names=frozenset(names), last=None)


def gc(
    root: Path, keep: Keep = ALL, *, dry_run: bool = False, offline: bool = True, disk: Disk | None = None
) -> GcReport:
    options = GcOptions(
        dry_run=dry_run,
        offline=offline,
        lock_timeout=0,
    )
    return collect_garbage(root, keep, options, Silent(), disk or RealDisk())


def reasons(report: GcReport) -> dict[str, str]:
    return {image.image: image.reason for image in report.images}


def has(root: Path, *digests: Digest) -> bool:
    found = {Storage(root).blob_size(digest) is not None for digest in digests}
    assert len(found) == 1, "some are there, some are not"
    return found == {True}


def digests(image: Image) -> list[Digest]:
    return [Digest.of(data) for data in (*image.blobs, *image.manifests)]


def tree(root: Path) -> set[str]:
    """All but regwrap's own directory."""
    return {path for path in snapshot(root) if not path.startswith(".regwrap")}


def state(root: Path) -> object:
    return {path: state for path, state in snapshot(root).items() if not path.startswith(".regwrap")}


def same_as(root: Path, images: dict[str, Image], expected: Path) -> bool:
    return tree(root) == tree(make_storage(expected, images))


def signature_of(subject: Digest, seed: str, *, field: bool = False) -> Image:
    """What cosign pushes; with `field` an OCI referrer."""
    plain = make_image(f"signature-{seed}")
    document = json.loads(plain.raw)
    document["annotations"] = {"about": str(subject)}
    if field:
        document["subject"] = {"mediaType": "x", "digest": str(subject), "size": 1}
    return Image(manifests=(json.dumps(document).encode(),), blobs=plain.blobs)


def cosign_tag(digest: Digest, suffix: str = ".sig") -> str:
    return f"sha256-{digest.hex}{suffix}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def memory() -> Iterator[Path]:
    with directory_in_memory() as directory:
        yield directory


# --- what is kept


def test_a_clean_storage_loses_nothing(root: Path) -> None:
    make_storage(root, {"a:1": ONE, "a/b:1": MULTI, "c:1": NESTED})
    before = state(root)
    report = gc(root)
    assert state(root) == before
    assert report == GcReport(dry_run=False, kept=3, pinned=0, images=(), repositories=(), blobs=0, bytes=0, notes=())


def test_untagged_images_go_and_the_blobs_they_share_stay(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE})
    add_untagged(root, "a", TWO)
    report = gc(root)
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")
    assert reasons(report) == {f"a@{TWO.top}": "no tag points to it"}
    gone = {*TWO.blobs, *TWO.manifests} - {BASE}
    assert (report.blobs, report.bytes) == (len(gone), sum(map(len, gone)))
    assert [(r.name, r.tags, r.manifests, r.layers, r.bytes, r.gone) for r in report.repositories] == [
        ("a", 0, 1, 2, report.bytes, False)
    ]


def test_only_the_listed_images_stay(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE, "a:2": TWO, "a/b:1": MULTI, "c/d:1": NESTED, "c/d:2": THREE})
    report = gc(root, keeping("a:2", "c/d:1", "no/such:1"))
    assert same_as(root, {"a:2": TWO, "c/d:1": NESTED}, tmp_path / "expected")
    assert reasons(report) == dict.fromkeys(("a:1", "a/b:1", "c/d:2"), "not in the list")
    assert report.notes == ("no/such:1 is to be kept and is not there",)
    assert report.kept == 2
    assert storage_problems(root) == set()


def test_two_tags_of_one_image_drop_only_the_tag(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE, "a:latest": ONE})
    report = gc(root, keeping("a:1"))
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")
    assert (reasons(report), report.blobs) == ({"a:latest": "not in the list"}, 0)


def test_the_same_image_in_another_repository_keeps_the_blobs_only(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": MULTI, "b:1": MULTI})
    report = gc(root, keeping("b:1"))
    assert same_as(root, {"b:1": MULTI}, tmp_path / "expected")
    assert report.blobs == 0


def test_a_repository_in_another_one_survives_it(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE, "a/b/c:1": TWO, "x/y:1": THREE})
    gc(root, keeping("a/b/c:1"))
    assert same_as(root, {"a/b/c:1": TWO}, tmp_path / "expected")


def test_a_repository_without_tags_goes(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE})
    add_untagged(root, "a/lost", MULTI)
    report = gc(root)
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")
    assert reasons(report) == {f"a/lost@{MULTI.top}": "no tag points to it"}  # its children are parts of it
    assert [r.name for r in report.repositories if r.gone] == ["a/lost"]


def test_an_old_digest_of_a_tag_goes_with_its_history(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": TWO})
    make_storage(root, {"a:1": ONE})
    gc(root)
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")


def lock_of(text: str) -> Keep:
    return keep_of(parse_images(text.encode(), "images.lock").entries, last=None)


def test_an_image_that_a_lock_pins_stays_when_its_tag_has_moved(root: Path) -> None:
    make_storage(root, {"a:1": MULTI, f"a:{cosign_tag(MULTI.top)}": THREE, "b:1": ONE})
    make_storage(root, {"a:1": TWO})  # the tag moves
    add_untagged(root, "a", signature_of(MULTI.top, "field", field=True))
    before = state(root)
    keep = lock_of(f"r.example/a:1@{MULTI.top} => a:1\nr.example/b:1@{ONE.top} => b:1\n")
    report = gc(root, keep)
    assert state(root) == before, "neither the pinned image, nor its signatures, nor what the tag is now"
    assert (report.kept, report.pinned, report.images, report.notes) == (3, 1, (), ())
    shutil.rmtree(root / layout.tag_path("a", "1"))
    assert gc(root, keep).notes == ("a:1 is to be kept and is not there",)
    assert has(root, *digests(MULTI), *digests(signature_of(MULTI.top, "field", field=True)))
    assert not has(root, TWO.top)


def test_a_repository_stays_for_a_digest_alone(root: Path) -> None:
    make_storage(root, {"b:1": ONE})
    add_untagged(root, "a", THREE)
    gc(root, lock_of(f"r.example/a:1@{THREE.top} => a:1\n"))
    assert has(root, *digests(THREE))
    assert not has(root, ONE.top)
    assert Storage(root).has_revision("a", THREE.top)


def test_a_pinned_image_that_is_not_there_is_named_and_casts_no_doubt(root: Path) -> None:
    make_storage(root, {"a:1": ONE})
    add_untagged(root, "a", TWO)
    report = gc(root, lock_of(f"r.example/a:1@{THREE.top} => a:1\n"))
    assert report.notes == (f"a@{THREE.top} is to be kept and is not there",)
    assert not has(root, TWO.top)


def test_a_pinned_image_with_damage_keeps_its_repository(root: Path) -> None:
    make_storage(root, {"a:1": ONE})
    add_untagged(root, "a", MULTI)
    add_untagged(root, "a", TWO)
    flip(root / layout.blob_path(MULTI.top))
    before = state(root)
    report = gc(root, lock_of(f"r.example/a:1@{MULTI.top} => a:1\n"))
    assert state(root) == before
    assert [note.partition(" because ")[0] for note in report.notes] == ["a is kept as it is"]


def test_children_of_an_index_stay_and_a_partial_index_is_whole(root: Path) -> None:
    make_storage(root, {"a:1": MULTI, "b:1": THREE})
    absent = Digest.of(MULTI.manifests[0])
    shutil.rmtree((root / layout.revision_link("a", absent)).parent)
    shutil.rmtree((root / layout.blob_path(absent)).parent)
    report = gc(root)
    assert report.notes == ()
    assert has(root, MULTI.top, Digest.of(MULTI.manifests[1]), Digest.of(MULTI.blobs[1]))
    assert storage_problems(root) == {f"{layout.tag_link('a', '1')}: no manifest {absent.short}"}


# --- the newest


def at(root: Path, repository: str, tag: str, seconds: int) -> None:
    os.utime(root / layout.tag_link(repository, tag), (seconds, seconds))


def test_the_newest_tags_of_each_repository_stay(root: Path) -> None:
    make_storage(root, {"a:x": ONE, "a:y": TWO, "a:z": THREE, "b:old": MULTI})
    for tag, seconds in (("x", 300), ("y", 100), ("z", 200)):
        at(root, "a", tag, seconds)
    at(root, "b", "old", 1)
    report = gc(root, Keep(names=None, last=2))
    assert reasons(report) == {"a:y": "not among the 2 newest of its repository"}
    assert storage_problems(root) == set()


def test_of_the_same_age_the_higher_version_is_newer(root: Path) -> None:
    tags = ("v1.2", "v1.10", "v1.9", "latest")
    make_storage(root, {f"a:{tag}": make_image(tag) for tag in tags})
    for tag in tags:
        at(root, "a", tag, 5)
    gc(root, Keep(names=None, last=2))
    assert Storage(root).tags("a") == ("v1.10", "v1.9")


def test_the_list_and_the_newest_are_one_set(root: Path) -> None:
    make_storage(root, {f"a:{n}": make_image(f"{n}") for n in range(5)})
    for n in range(5):
        at(root, "a", f"{n}", n)
    report = gc(root, Keep(names=frozenset({"a:0"}), last=1))
    assert Storage(root).tags("a") == ("0", "4")
    assert set(reasons(report).values()) == {"neither in the list nor among the 1 newest of its repository"}


# --- signatures and other referrers


def test_signatures_live_as_long_as_what_they_sign(root: Path) -> None:
    kept, lost = signature_of(ONE.top, "1"), signature_of(TWO.top, "2")
    again = signature_of(kept.top, "3")
    child = signature_of(Digest.of(MULTI.manifests[0]), "4")
    make_storage(root, {
        "a:1": ONE, "a:2": TWO, "m:1": MULTI,
        f"a:{cosign_tag(ONE.top)}": kept, f"a:{cosign_tag(TWO.top)}": lost,
        f"a:{cosign_tag(kept.top, '.att')}": again, f"signatures:{cosign_tag(MULTI.top, '')}": child,
        f"a:{cosign_tag(Digest.of(MULTI.manifests[0]), '.sbom')}": child,
    })  # fmt: skip
    report = gc(root, keeping("a:1", "m:1"))
    assert reasons(report) == {
        "a:2": "not in the list",
        f"a:{cosign_tag(TWO.top)}": f"its subject {TWO.top.short} is not kept",
    }
    assert not has(root, lost.top)
    assert has(root, kept.top, again.top, child.top)
    assert storage_problems(root) == set()


def test_signatures_do_not_count_among_the_newest(root: Path) -> None:
    make_storage(root, {"a:1": ONE, "a:2": TWO, f"a:{cosign_tag(TWO.top)}": signature_of(TWO.top, "2")})
    for tag, seconds in (("1", 1), ("2", 2), (cosign_tag(TWO.top), 3)):
        at(root, "a", tag, seconds)
    gc(root, Keep(names=None, last=1))
    assert Storage(root).tags("a") == ("2", cosign_tag(TWO.top))


def test_without_a_selection_signatures_are_tags_like_others(root: Path) -> None:
    make_storage(root, {"a:1": ONE, f"a:{cosign_tag(THREE.top)}": TWO})
    before = state(root)
    gc(root)
    assert state(root) == before


def test_referrers_without_a_tag_stay_with_their_subject(root: Path) -> None:
    make_storage(root, {"a:1": ONE, "b:1": TWO})
    first = signature_of(ONE.top, "1", field=True)
    second = signature_of(first.top, "2", field=True)
    stray = signature_of(THREE.top, "3", field=True)
    elsewhere = signature_of(ONE.top, "4", field=True)
    index = json.loads(index_of([make_image("deep")]).raw) | {"subject": {"digest": str(ONE.top)}}
    parts = make_image("deep")
    listed = Image(manifests=(*parts.manifests, json.dumps(index).encode()), blobs=parts.blobs)
    for image in (first, second, stray, listed):
        add_untagged(root, "a", image)
    add_untagged(root, "b", elsewhere)
    report = gc(root)
    assert has(root, *digests(first), *digests(second), *digests(listed))
    assert reasons(report) == {
        f"a@{stray.top}": f"its subject {THREE.top.short} is not kept",
        f"b@{elsewhere.top}": f"its subject {ONE.top.short} is not kept",
    }
    assert not has(root, stray.top, elsewhere.top)


# --- damage


@pytest.mark.parametrize("damage", [remove, empty, add_newline, fill_with_garbage, replace_by_fifo, replace_by_symlink])
@pytest.mark.parametrize(
    "path", [layout.tag_link("a", "1"), layout.revision_link("a", MULTI.top), layout.blob_path(MULTI.top)]
)
def test_a_repository_with_damage_is_kept_as_it_is(root: Path, path: str, damage: Callable[[Path], None]) -> None:
    make_storage(root, {"a:1": MULTI, "b:1": THREE, "a/c:1": ONE})
    add_untagged(root, "a", TWO)
    damage(root / path)
    before = state(root)
    report = gc(root)
    assert state(root) == before
    assert len(report.notes) == 1
    assert report.notes[0].startswith("a is kept as it is because ")
    assert report.notes[0].endswith(f"regwrap verify {root} says more")


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_manifest_with_other_bytes_keeps_its_repository(
    root: Path, number: int, damage: Callable[[Path], None]
) -> None:
    make_storage(root, {"a:1": MULTI, "a:2": ONE})
    add_untagged(root, "a", TWO)
    damage(root / layout.blob_path(Digest.of(MULTI.manifests[number])))
    before = state(root)
    assert len(gc(root, keeping("a:1")).notes) == 1
    assert state(root) == before


def test_a_child_that_was_left_out_is_not_lost_because_another_repository_has_it(root: Path) -> None:
    make_storage(root, {"a:1": MULTI, "a:2": ONE, "b:1": MULTI})
    child = Digest.of(MULTI.manifests[0])
    shutil.rmtree((root / layout.revision_link("a", child)).parent)
    own, other = (parse_manifest(MULTI.manifests[number]) for number in (0, 1))
    assert isinstance(own, Manifest)
    assert isinstance(other, Manifest)
    for blob in {*own.blobs} - {*other.blobs}:
        shutil.rmtree((root / layout.layer_link("a", blob.digest)).parent)
    report = gc(root, keeping("a:1", "b:1"))
    assert not report.notes
    assert not has(root, ONE.top)
    assert has(root, child)


def test_a_child_that_is_lost_in_part_keeps_its_repository(root: Path) -> None:
    make_storage(root, {"a:1": MULTI})
    add_untagged(root, "a", TWO)
    shutil.rmtree((root / layout.revision_link("a", Digest.of(MULTI.manifests[0]))).parent)
    before = state(root)
    assert "has lost" in gc(root).notes[0]
    assert state(root) == before


def test_damage_of_an_image_that_goes_does_not_matter(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE, "a:2": MULTI, "a:3": TWO})
    empty(root / layout.tag_link("a", "2"))
    flip(root / layout.blob_path(TWO.top))
    report = gc(root, keeping("a:1"))
    assert report.notes == ()
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")


@pytest.mark.parametrize("damage", [empty, fill_with_garbage, remove, replace_by_fifo])
def test_damaged_links_that_nobody_needs_go(root: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    make_storage(root, {"a:1": ONE})
    add_untagged(root, "a", TWO)
    damage(root / layout.layer_link("a", Digest.of(TWO.blobs[0])))
    damage(root / layout.revision_link("a", TWO.top))
    report = gc(root)
    assert reasons(report) == {f"a@{TWO.top}": "its link is damaged or absent"}
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")


def test_links_that_dangle_go(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE})
    add_untagged(root, "a", TWO)
    for digest in set(digests(TWO)) - set(digests(ONE)):
        shutil.rmtree((root / layout.blob_path(digest)).parent)
    report = gc(root)
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")
    assert reasons(report) == {f"a@{TWO.top}": "its manifest is missing"}
    assert report.blobs == 0


@pytest.mark.parametrize("damage", [empty, add_newline, fill_with_garbage])
def test_a_damaged_layer_link_goes_even_if_an_image_needs_it(root: Path, damage: Callable[[Path], None]) -> None:
    """An empty one makes the registry answer 500 to every later push of the image."""
    make_storage(root, {"a:1": ONE})
    layer = Digest.of(ONE.blobs[2])
    damage(root / layout.layer_link("a", layer))
    report = gc(root)
    assert f"a needs {layer}" in report.notes[0]
    assert not (root / layout.layer_link("a", layer)).parent.exists()
    assert has(root, *digests(ONE))


def test_a_layer_link_without_its_blob_goes_even_if_an_image_needs_it(root: Path) -> None:
    make_storage(root, {"a:1": ONE})
    layer = Digest.of(ONE.blobs[2])
    (root / layout.blob_path(layer)).unlink()
    report = gc(root)
    assert f"a needs {layer}" in report.notes[0]
    assert not (root / layout.layer_link("a", layer)).exists()
    assert has(root, ONE.top)


def test_a_blob_whose_layer_link_is_lost_stays(root: Path) -> None:
    make_storage(root, {"a:1": ONE})
    remove(root / layout.layer_link("a", Digest.of(ONE.blobs[2])))
    gc(root)
    assert has(root, *digests(ONE))


# --- what has no place in the layout


def test_junk_is_neither_followed_nor_removed_and_is_named(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE, "b:1": TWO})
    precious = put(tmp_path / "precious/data", b"x")
    repositories, blobs = root / layout.REPOSITORIES, root / layout.BLOBS
    junk = [
        put(repositories / "notes.txt", b""),
        put(repositories / "UPPER/file", b"").parent,
        put(repositories / "a/_manifests/tags/.nfs0001", b""),
        put(repositories / "a/_other/x", b"").parent,
        put(blobs / "readme", b""),
        put(blobs / "zz/x", b"").parent,
        put(blobs / "ab" / ("0" * 64) / "data", b"").parent,
        put(root / layout.V2 / "blobs/sha512/x", b"").parent,
    ]
    os.mkfifo(blobs / "ab/fifo")
    (blobs / "ab/link").symlink_to(precious.parent)
    (repositories / "LINK").symlink_to("a")
    with socket.socket(socket.AF_UNIX) as unix:
        os.chdir(blobs / "ab")
        unix.bind("socket")
        os.chdir(tmp_path)
    report = gc(root, keeping("a:1"))
    odd = [*junk, blobs / "ab/fifo", blobs / "ab/link", blobs / "ab/socket", repositories / "LINK"]
    assert all(os.path.lexists(path) for path in odd)
    assert {note.partition(" ")[0] for note in report.notes} == {f"{path.relative_to(root)}" for path in odd}
    assert precious.read_bytes() == b"x"
    assert not (repositories / "b").exists()


def test_unknown_files_beside_what_goes_stay(root: Path) -> None:
    make_storage(root, {"a:1": ONE})
    add_untagged(root, "a", THREE)
    beside = put((root / layout.blob_path(THREE.top)).with_name("note"), b"")
    report = gc(root)
    assert beside.exists()
    assert report.notes == (f"{beside.parent} has something unknown in it; left alone",)
    assert gc(root).notes == report.notes


@pytest.mark.parametrize("part", ["_manifests", "_manifests/tags", "_manifests/revisions/sha256", "_layers"])
def test_a_symbolic_link_in_a_directory_s_place_is_refused(root: Path, tmp_path: Path, part: str) -> None:
    make_storage(root, {"a:1": ONE, "b:1": TWO})
    moved = root / layout.repository_path("a") / part
    moved.rename(tmp_path / "moved")
    moved.symlink_to(tmp_path / "moved")
    before = snapshot(tmp_path / "moved"), snapshot(root / "docker")
    with pytest.raises(UsageError, match=f"{moved} is a symbolic link") as raised:
        gc(root, keeping("b:1"))
    assert raised.value.hint.startswith("replace the link")
    assert (snapshot(tmp_path / "moved"), snapshot(root / "docker")) == before


def test_a_repository_that_leads_out_of_the_storage_is_refused(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE})
    (root / layout.repository_path("b")).symlink_to(tmp_path)
    with pytest.raises(UsageError, match="b is a symbolic link"):
        gc(root)


def test_blobs_in_another_place_are_refused(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE})
    (root / layout.BLOBS).rename(tmp_path / "blobs")
    (root / layout.BLOBS).symlink_to(tmp_path / "blobs")
    with pytest.raises(UsageError, match="blobs/sha256 is a symbolic link"):
        gc(root)


def test_what_other_collectors_and_killed_pushes_leave_goes(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE})
    repository = root / layout.repository_path("a")
    put(repository / "_uploads/0b9e/data", b"12345")
    put(repository / "_uploads/0b9e/hashstates/sha256/0", b"")
    (root / layout.repository_path("only/uploads") / "_uploads").mkdir(parents=True)
    (root / layout.BLOBS / "ff" / ("f" * 64)).mkdir(parents=True)
    (root / layout.BLOBS / "fe").mkdir(parents=True, exist_ok=True)
    (root / layout.repository_path("x/y/z")).mkdir(parents=True)
    report = gc(root)
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")
    assert report.bytes == 5


# --- refusals, and looking only


def test_a_dry_run_changes_nothing_and_says_the_same(root: Path) -> None:
    make_storage(root, {"a:1": ONE, "a:2": TWO, "b:1": MULTI})
    before = state(root)
    told = gc(root, keeping("a:1"), dry_run=True, offline=False)
    assert state(root) == before
    done = gc(root, keeping("a:1"))
    assert (told.images, told.repositories, told.blobs, told.bytes) == (
        done.images, done.repositories, done.blobs, done.bytes,
    )  # fmt: skip
    assert {path.name for path in (root / ".regwrap").iterdir()} == {"lock"}


@pytest.mark.parametrize("keep", [keeping(), keeping("no/such:1")])
def test_to_keep_nothing_is_refused(root: Path, keep: Keep) -> None:
    make_storage(root, {"a:1": ONE})
    before = state(root)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match="nothing would remain"):
            gc(root, keep, dry_run=dry_run)
    assert state(root) == before


def test_blobs_without_any_tag_are_refused(root: Path) -> None:
    make_storage(root, {})
    add_untagged(root, "a", ONE)
    before = state(root)
    with pytest.raises(UsageError, match="nothing would remain"):
        gc(root)
    assert state(root) == before


def test_an_empty_storage_is_no_mistake(root: Path) -> None:
    make_storage(root, {})
    assert gc(root).blobs == 0


@pytest.mark.parametrize("inside", ["", "docker", "docker/registry/v2"])
def test_what_is_no_storage_is_refused_and_not_written_to(root: Path, inside: str) -> None:
    make_storage(root, {"a:1": ONE})
    place = root / inside if inside else root.parent
    before = snapshot(root.parent)
    with pytest.raises(UsageError, match="is not a registry storage"):
        gc(place)
    assert snapshot(root.parent) == before


def test_a_storage_that_others_write_to_needs_the_word_of_the_user(root: Path) -> None:
    make_storage(root, {"a:1": ONE, "a:2": TWO})
    before = snapshot(root)
    with pytest.raises(UsageError, match="is not regwrap's own") as caught:
        gc(root, keeping("a:1"), offline=False)
    assert "--offline" in caught.value.hint
    assert snapshot(root) == before
    gc(root, dry_run=True, offline=False)
    mark_own(Tree(root))
    assert gc(root, keeping("a:1"), offline=False).kept == 1


# --- crashes


CROWD = keeping("a:1", "x/y:1")


def crowded(root: Path) -> Path:
    """Something for every step, and as little as possible of it."""
    small = make_image("small", layers=[])
    make_storage(root, {"a:1": small})
    make_storage(root, {"a:1": ONE, "a:2": TWO, f"a:{cosign_tag(TWO.top)}": small})
    make_storage(root, {"x:1": index_of([make_image("leaf", layers=[])]), "x/y:1": ONE})
    add_untagged(root, "a", signature_of(ONE.top, "1", field=True))
    add_untagged(root, "lost/one", small)
    put(root / layout.repository_path("a") / "_uploads/1/data", b"12345")
    (root / layout.BLOBS / "ff" / ("f" * 64)).mkdir(parents=True)
    return root


@pytest.mark.exhaustive
def test_a_crash_at_any_moment_leaves_a_sound_storage_and_a_second_run_is_done(memory: Path) -> None:
    template = crowded(memory / "template")
    whole = shutil.copytree(template, memory / "whole")
    counting = DyingDisk(RealDisk(), left=10**9)
    gc(whole, CROWD, disk=counting)
    expected = snapshot(whole)
    assert storage_problems(whole) == set()
    assert {"rename", "remove_file", "remove_directory", "remove_tree", "sync"} == set(counting.done)
    for k in range(len(counting.done)):
        root = shutil.copytree(template, memory / "crashed", copy_function=os.link)
        with pytest.raises(Died):
            gc(root, CROWD, disk=DyingDisk(RealDisk(), left=k))
        put(root / ".regwrap/gc/0/current/link", b"what a killed run leaves")
        assert storage_problems(root) == set(), f"after operation {k}"
        assert Storage(root).resolve("x/y", "1") == ONE.top
        gc(root, CROWD)
        assert snapshot(root) == expected, f"after operation {k} and again"
        shutil.rmtree(root)


def test_every_step_is_on_disk_before_the_next_one(root: Path) -> None:
    crowded(root)
    disk = DyingDisk(RealDisk(), left=10**9)
    gc(root, CROWD, disk=disk)
    steps = [name for name in disk.paths if name]
    order = [steps.index(first) for first in ("tag", "sync", "history", "revision", "layer", "blob", "prefix")]
    assert order == sorted(order)
    for before, after in (("tag", "history"), ("history", "revision"), ("revision", "layer"), ("layer", "blob")):
        last = max(n for n, step in enumerate(steps) if step == before)
        assert "sync" in steps[last : steps.index(after)]


def test_a_failing_disk_is_told_and_the_next_run_goes_on(root: Path, tmp_path: Path) -> None:
    make_storage(root, {"a:1": ONE, "a:2": TWO})
    disk = DyingDisk(RealDisk(), left=3, error=OSError(5, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error"):
        gc(root, keeping("a:1"), disk=disk)
    gc(root, keeping("a:1"))
    assert same_as(root, {"a:1": ONE}, tmp_path / "expected")


@pytest.mark.parametrize("which", ["a kept image", "a signature"])
def test_what_the_disk_does_not_give_is_not_taken_for_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    root = make_storage(tmp_path / "root", {"app:1": ONE})
    signature = signature_of(ONE.top, "a", field=True)
    add_untagged(root, "app", signature)
    before = state(root)
    lose(monkeypatch, Storage(root).blob_path(ONE.top if which == "a kept image" else signature.top))
    with pytest.raises(IntegrityError, match=r"cannot be read from .*: Input/output error"):
        gc(root)
    monkeypatch.undo()
    assert state(root) == before
