"""Questions about bundles and storages: each damage has a line that names it, and `--list` means exactly the list."""

import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regwrap.bundle.examine import verify_bundle, verify_storage
from regwrap.bundle.inspection import InspectedImage, Inspection, inspect_bundle, inspect_opened
from regwrap.bundle.inventory import FoundImage
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT
from regwrap.core.manifest import Manifest, parse_manifest
from regwrap.core.model import Digest
from regwrap.lists.imagelist import ImageEntry
from regwrap.storage import layout
from tests.builders import (
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
    replace_by_directory,
    replace_by_fifo,
    replace_by_symlink,
    snapshot,
    truncate,
)
from tests.bundles import bundle_image_set, contents_of, listed, make_bundle, packed, parts_of
from tests.lost import lose
from tests.told import Told

MULTI, SINGLE, DOCKER = make_multi_image("multi"), make_image("single"), make_image("docker", kind="docker")
IMAGES = {"a/b:1": MULTI, "a/b:2": SINGLE, "z:1": DOCKER}
ALL = tuple(map(listed, IMAGES))
CHILD = Digest.of(MULTI.manifests[1])
LAYER, CONFIG = Digest.of(SINGLE.blobs[1]), Digest.of(SINGLE.blobs[0])
Damage = Callable[[Path], None]
LINK_DAMAGES = [
    empty,
    truncate,
    add_newline,
    fill_with_garbage,
    replace_by_fifo,
    replace_by_directory,
    replace_by_symlink,
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "root", IMAGES)


def storage_lines(root: Path, entries: tuple[ImageEntry, ...] | None = None) -> tuple[str, ...]:
    before = snapshot(root)
    report = verify_storage(root, entries, SILENT, exact=True)
    assert snapshot(root) == before
    lines = (*report.problems, *report.differences)
    assert list(lines) == list(dict.fromkeys(lines))
    return lines


def bundle_lines(path: Path, *entries: ImageEntry) -> tuple[str, ...]:
    report = verify_bundle(path, entries, SILENT)
    return (*report.problems, *report.differences)


# --- a storage


def test_a_sound_storage(root: Path) -> None:
    told = Told()
    report = verify_storage(root, ALL, told)
    blobs = {data for image in IMAGES.values() for data in (*image.manifests, *image.blobs)}
    assert (report.images, report.blobs, report.bytes) == (3, len(blobs), sum(map(len, blobs)))
    assert (report.problems, report.notes) == ((), ())
    assert told.steps == [
        ("read", "tags found", None),
        ("verify", "tags and repositories read", 5),
        ("verify", "", report.bytes),
    ]
    assert told.done == [3, 5, report.bytes]


def test_what_is_no_storage_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a registry storage"):
        verify_storage(tmp_path, None, SILENT)


def test_an_empty_storage_is_sound_and_lacks_what_is_listed(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {})
    assert storage_lines(root) == ()
    assert storage_lines(root, (listed("a:1", line=4),)) == ("a:1: is listed (line 4) but missing here",)


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", [flip, truncate, empty, remove, replace_by_fifo, replace_by_directory])
@pytest.mark.parametrize(
    ("digest", "user"), [(LAYER, "a/b:2"), (CONFIG, "a/b:2"), (CHILD, "a/b:1"), (DOCKER.top, "z:1")]
)
def test_a_damaged_blob_is_named_with_its_image(root: Path, damage: Damage, digest: Digest, user: str) -> None:
    damage(root / layout.blob_path(digest))
    lines = storage_lines(root)
    named = [line for line in lines if digest.short in line and line.startswith(f"{user}:")]
    assert named, lines


@pytest.mark.parametrize("damage", [*LINK_DAMAGES, remove])
def test_a_damaged_tag_is_named(root: Path, damage: Damage) -> None:
    damage(root / layout.tag_link("a/b", "2"))
    assert storage_lines(root) == (f"a/b:2: the tag's link is absent or damaged ({layout.tag_link('a/b', '2')})",)


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", LINK_DAMAGES)
@pytest.mark.parametrize(
    "link",
    [layout.layer_link("a/b", LAYER), layout.revision_link("a/b", SINGLE.top), layout.revision_link("a/b", CHILD)],
)
def test_a_damaged_link_is_named(root: Path, damage: Damage, link: str) -> None:
    damage(root / link)
    assert [line for line in storage_lines(root) if link in line]


@pytest.mark.parametrize(
    ("link", "line"),
    [
        (layout.layer_link("a/b", LAYER), f"a/b:2: a/b has no link to blob {LAYER}"),
        (layout.revision_link("a/b", SINGLE.top), f"a/b:2: points to {SINGLE.top}, which is missing or not linked"),
        (
            layout.tag_index_link("a/b", "2", SINGLE.top),
            f"a/b:2: the tag's index link is absent or damaged ({layout.tag_index_link('a/b', '2', SINGLE.top)})",
        ),
        (layout.revision_link("a/b", CHILD), f"a/b:1: linux/arm64 of its index ({CHILD}) is not here"),
    ],
)
def test_an_absent_link_is_named(root: Path, link: str, line: str) -> None:
    remove(root / link)
    assert storage_lines(root) == (line,)


def test_a_link_to_nothing_is_named(root: Path) -> None:
    lost = Digest.of(b"lost")
    put(root / layout.layer_link("z", lost), f"{lost}".encode())
    put(root / layout.revision_link("z", lost), f"{lost}".encode())
    put(root / layout.tag_link("z", "lost"), f"{lost}".encode())
    assert storage_lines(root) == (
        f"z:lost: points to {lost}, which is missing or not linked",
        f"z: a manifest's link points to {lost}, which is missing",
    )
    notes = verify_storage(root, None, SILENT).notes
    assert notes == (f"z: a layer's link points to {lost}, which is missing",)  # a registry's collector leaves those


def test_blobs_that_no_tag_needs_are_hashed_too(root: Path) -> None:
    untagged = make_image("untagged")
    add_untagged(root, "z", untagged)
    assert storage_lines(root) == ()
    flip(root / layout.blob_path(Digest.of(untagged.blobs[1])))
    digest = Digest.of(untagged.blobs[1])
    assert storage_lines(root) == (
        f"no tag needs it: blob {digest} does not match its digest ({layout.blob_path(digest)})",
    )


def test_several_damages_have_several_lines(root: Path) -> None:
    flip(root / layout.blob_path(LAYER))
    flip(root / layout.blob_path(Digest.of(DOCKER.blobs[1])))
    empty(root / layout.tag_link("a/b", "1"))
    remove(root / layout.layer_link("z", Digest.of(DOCKER.blobs[0])))
    lines = storage_lines(root, (listed("absent:1"), *ALL))
    for start in ("a/b:1: the tag", "a/b:2: blob", "z:1: blob", "z:1: z has no link", "absent:1: is listed"):
        assert sum(line.startswith(start) for line in lines) == 1, lines


def test_a_sparse_index_is_a_note_and_with_a_list_a_problem(root: Path) -> None:
    remove(root / layout.revision_link("a/b", CHILD))
    remove(root / layout.blob_path(CHILD))
    line = f"a/b:1: linux/arm64 of its index ({CHILD}) is not here"
    report = verify_storage(root, None, SILENT)
    assert (report.problems, report.notes) == ((), (line,))
    assert line in storage_lines(root, ALL)
    assert storage_lines(root, (listed("a/b:1", "linux/amd64"), *ALL[1:])) == ()
    wanted = (listed("a/b:1", "linux/arm64"), *ALL[1:])
    assert any("arm64" in problem for problem in storage_lines(root, wanted))


def test_what_was_left_out_is_not_lost_because_another_repository_has_it(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a/b:1": MULTI, "z:1": MULTI})
    remove(root / layout.revision_link("a/b", CHILD))
    own, other = (parse_manifest(MULTI.manifests[number]) for number in (1, 0))
    assert isinstance(own, Manifest)
    assert isinstance(other, Manifest)
    line = f"a/b:1: linux/arm64 of its index ({CHILD}) is not here"
    assert storage_lines(root) == (line,)  # what it names is still linked: its own link was lost
    for blob in {*own.blobs} - {*other.blobs}:
        remove(root / layout.layer_link("a/b", blob.digest))
    report = verify_storage(root, None, SILENT)
    assert (report.problems, report.notes) == ((), (line,))


def test_an_index_without_any_child_is_lost_whatever_the_list_wants_of_it(tmp_path: Path) -> None:
    """What the list does not want was left out on purpose only where something else was not."""
    root = make_storage(tmp_path / "root", {"a:1": MULTI})
    wanted = (listed("a:1", "linux/arm64"),)
    line = f"a:1: linux/arm64 of its index ({CHILD}) is not here"
    for number, (raw, problems) in enumerate(((MULTI.manifests[1], ()), (MULTI.manifests[0], (line,)))):
        remove(root / layout.revision_link("a", Digest.of(raw)))
        remove(root / layout.blob_path(Digest.of(raw)))
        assert verify_storage(root, wanted, SILENT).problems == problems, number


def test_of_a_storage_with_links_for_directories_nothing_is_said_but_that(root: Path) -> None:
    place = layout.repository_path("z")
    replace_by_symlink(root / place)
    report = verify_storage(root, ALL[:1], SILENT, exact=True)
    assert report.problems == (f"{place} is a symbolic link; a storage has directories of its own",)
    assert (report.images, report.blobs, report.bytes, report.others, report.differences) == (0, 0, 0, 0, ())


def test_a_link_that_only_another_repository_has_is_missed(tmp_path: Path) -> None:
    """A pull from this one would fail."""
    root = make_storage(tmp_path / "root", {"a:1": SINGLE, "b:1": SINGLE, "c:1": SINGLE})
    remove(root / layout.layer_link("b", LAYER))
    assert storage_lines(root) == (f"b:1: b has no link to blob {LAYER}",)


def test_a_manifest_s_link_is_looked_at_though_a_layer_has_the_same_bytes(tmp_path: Path) -> None:
    raw = SINGLE.raw
    root = make_storage(tmp_path / "root", {"a:1": make_image("holds", layers=[raw])})
    path = layout.revision_link("a", Digest.of(raw))
    put(root / path, b"damaged")
    assert storage_lines(root) == (f"a: a manifest's link is damaged ({path})",)


def test_of_an_image_whose_manifest_is_damaged_the_tag_is_told(root: Path) -> None:
    flip(root / layout.blob_path(SINGLE.top))
    images = {image.image: image for image in verify_storage(root, None, SILENT).inventory.images}
    assert list(images) == list(IMAGES)
    assert images["a/b:2"] == FoundImage(
        image="a/b:2", digest=SINGLE.top, platforms=(), partial=False, blobs=frozenset({SINGLE.top})
    )


MANY = {f"a:{number}": make_image(f"{number}") for number in range(9)}


def test_what_is_said_has_the_same_order_in_every_run(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", MANY)
    assert storage_lines(root, ()) == tuple(f"{name}: is not in the list" for name in MANY)
    layers = {Digest.of(image.blobs[1]): name for name, image in MANY.items()}
    for layer in layers:
        flip(root / layout.blob_path(layer))
    assert storage_lines(root) == tuple(
        f"{layers[layer]}: blob {layer} does not match its digest ({layout.blob_path(layer)})"
        for layer in sorted(layers)
    )


def test_an_index_without_any_child_is_lost(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": MULTI})
    for raw in MULTI.manifests[:-1]:
        remove(root / layout.revision_link("a", Digest.of(raw)))
        remove(root / layout.blob_path(Digest.of(raw)))
    assert len(storage_lines(root)) == 2


# --- exactly the list, of storages and bundles alike


@pytest.fixture
def both(root: Path, tmp_path: Path) -> Callable[..., list[tuple[str, ...]]]:
    path = make_bundle(tmp_path / "release", IMAGES)
    return lambda *entries: [storage_lines(root, entries), bundle_lines(path, *entries)]


Both = Callable[..., list[tuple[str, ...]]]


@pytest.mark.slow
def test_exactly_the_list(both: Both) -> None:
    assert both(*ALL) == [()] * 2
    assert both(listed("a/b:1", "linux/amd64", "linux/arm64"), *ALL[1:]) == [()] * 2
    assert both(listed("a/b:1", digest=f"{MULTI.top}"), *ALL[1:]) == [()] * 2


@pytest.mark.slow
def test_what_is_missing_and_what_is_not_listed_is_named(both: Both) -> None:
    lines = ("absent:1: is listed (line 7) but missing here", "z:1: is not in the list")
    assert both(listed("absent:1", line=7), *ALL[:2]) == [lines] * 2
    assert both() == [tuple(f"{name}: is not in the list" for name in IMAGES)] * 2


def test_a_storage_may_have_images_of_other_releases(root: Path) -> None:
    report = verify_storage(root, ALL[:1], SILENT)
    assert (report.images, report.others, report.problems, report.differences) == (3, 2, (), ())
    exact = verify_storage(root, ALL[:1], SILENT, exact=True)
    assert exact.others == 2
    assert exact.differences == tuple(f"{name}: is not in the list" for name in ("a/b:2", "z:1"))


def test_a_signature_is_no_image_of_another_release(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "signed", {"a:1": SINGLE, f"a:sha256-{SINGLE.top.hex}.sig": DOCKER})
    assert verify_storage(root, (listed("a:1"),), SILENT).others == 0


def test_damage_and_what_differs_from_the_list_are_told_apart(root: Path, tmp_path: Path) -> None:
    flip(root / layout.blob_path(LAYER))
    entries = (*ALL[:2], listed("absent:1"), listed("z:1", digest=f"{SINGLE.top}"))
    report = verify_storage(root, entries, SILENT)
    assert [line.partition(":")[0] for line in report.problems] == ["a/b"]
    assert [line.partition(":")[0] for line in report.differences] == ["absent", "z"]
    bundle = verify_bundle(make_bundle(tmp_path / "release", IMAGES), ALL[:2], SILENT)
    assert (bundle.problems, bundle.differences) == ((), ("z:1: is not in the list",))


def test_a_platform_that_was_left_out_is_no_damage(root: Path) -> None:
    remove(root / layout.revision_link("a/b", CHILD))
    remove(root / layout.blob_path(CHILD))
    for entry in (ALL[0], listed("a/b:1", "linux/arm64"), listed("a/b:1", "linux/s390x")):
        report = verify_storage(root, (entry,), SILENT)
        assert report.problems == (), entry
        assert report.differences, entry


def test_another_digest_is_named(both: Both) -> None:
    line = f"z:1: is {DOCKER.top}, the list says {SINGLE.top}"
    assert both(*ALL[:2], listed("z:1", digest=f"{SINGLE.top}")) == [(line,)] * 2


def test_a_platform_that_is_not_there_is_named(both: Both) -> None:
    found = both(*ALL[:2], listed("z:1", "linux/arm64"))
    assert found == [("z:1: the list has linux/arm64, found linux/amd64",)] * 2
    for lines in both(listed("a/b:1", "linux/s390x", "linux/amd64"), *ALL[1:]):
        assert lines
        assert all("linux/s390x" in line for line in lines)


def test_a_variant_is_asked_for_or_not(tmp_path: Path) -> None:
    arm = index_of([make_image("arm", platform="linux/arm/v7")], ["linux/arm/v7"])
    path = make_bundle(tmp_path / "release", {"a:1": arm})
    assert bundle_lines(path, listed("a:1", "linux/arm")) == ()
    assert bundle_lines(path, listed("a:1", "linux/arm/v7")) == ()
    assert bundle_lines(path, listed("a:1", "linux/arm/v6")) != ()
    assert bundle_lines(path, listed("a:1", "linux/ar")) != ()


def test_a_bundle_that_leaves_out_what_the_list_wants_is_named(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts_of(contents_of(root, listed("a/b:1", "linux/amd64")), root)))
    assert bundle_lines(path, listed("a/b:1", "linux/amd64")) == ()
    assert bundle_lines(path, listed("a/b:1")) == (
        "a/b:1: the list has all platforms, but 1 manifest of the index is missing",
    )


# --- a bundle


def test_a_sound_bundle(tmp_path: Path) -> None:
    report = verify_bundle(make_bundle(tmp_path, IMAGES), None, SILENT)
    assert (report.problems, report.images, report.blobs) == ((), 3, len(list((tmp_path / "archive").rglob("data"))))
    assert (report.others, report.differences, report.notes) == (0, (), ())


def test_each_rotten_member_is_named(tmp_path: Path) -> None:
    path = make_bundle(tmp_path, IMAGES)
    data = bytearray(path.read_bytes())
    for blob in (SINGLE.blobs[1], DOCKER.blobs[1]):
        data[data.index(blob)] ^= 1
    path.write_bytes(data)
    lines = verify_bundle(path, None, SILENT).problems
    digests = sorted([LAYER, Digest.of(DOCKER.blobs[1])])
    assert lines == tuple(f"blob {d} does not match its digest ({layout.blob_path(d)})" for d in digests)


def test_a_rotten_config_is_named_once_and_a_rotten_manifest_with_its_image(tmp_path: Path) -> None:
    path = make_bundle(tmp_path, IMAGES)
    whole = path.read_bytes()
    place = whole.index(SINGLE.blobs[0])
    path.write_bytes(whole[:place] + b"[" + whole[place + 1 :])
    lines = verify_bundle(path, None, SILENT).problems
    assert lines == (f"blob {CONFIG} does not match its digest ({layout.blob_path(CONFIG)})",)
    place = whole.index(SINGLE.raw)
    path.write_bytes(whole[:place] + b"[" + whole[place + 1 :])
    lines = verify_bundle(path, None, SILENT).problems
    assert [line.partition(": ")[0] for line in lines] == [
        "a/b:2",
        f"blob {SINGLE.top} does not match its digest ({layout.blob_path(SINGLE.top)})",
    ]
    with pytest.raises(IntegrityError, match=re.escape(SINGLE.top.short)):
        inspect_bundle(path)


def bundle_json_of(path: Path) -> bytes:
    with tarfile.open(path) as tar:
        file = tar.extractfile("bundle.json")
        assert file is not None
        return file.read()


def test_inspection_of_a_hand_made_bundle(tmp_path: Path) -> None:
    """a:1 and a:2 share a layer; c:1 is a:1 under another name, so neither of the two saves anything."""
    shared, own = make_layer("shared", os.fsencode("s" * 300)), make_layer("own", b"o" * 100)
    one, two = make_image("one", layers=[shared]), make_image("two", kind="docker", layers=[shared, own])
    images = {"a:1": one, "a:2": two, "b:1": MULTI, "c:1": one}
    path = make_bundle(tmp_path, images)
    config_of_two = two.blobs[0]
    one_size = len(one.raw) + len(one.blobs[0]) + len(shared)
    two_size = len(two.raw) + len(config_of_two) + len(shared) + len(own)
    multi_size = sum(map(len, (*MULTI.manifests, *MULTI.blobs)))
    own_config = len(config_of_two) if config_of_two != one.blobs[0] else 0

    def inspected(name: str, **values: int | str | tuple[str, ...]) -> InspectedImage:
        image = images[name]
        sizes = {str(Digest.of(raw)): len(raw) for raw in (*image.manifests, *image.blobs)}
        fields: dict[str, Any] = {"platforms": ("linux/amd64",), "omitted": 0, "blobs": sizes, **values}
        return InspectedImage(image=name, digest=f"{image.top}", **fields)

    assert inspect_bundle(path) == Inspection(
        path=f"{path}",
        name="",
        id=f"{Digest.of(bundle_json_of(path))}",
        images=(
            inspected("a:1", kind="OCI image", size=one_size, alone=0),
            inspected("a:2", kind="docker image", size=two_size, alone=len(two.raw) + len(own) + own_config),
            inspected(
                "b:1", kind="OCI index", size=multi_size, alone=multi_size, platforms=("linux/amd64", "linux/arm64")
            ),
            inspected("c:1", kind="OCI image", size=one_size, alone=0),
        ),
        blobs=len(list((tmp_path / "archive").rglob("data"))),
        blob_bytes=sum(p.stat().st_size for p in (tmp_path / "archive").rglob("data")),
        file_bytes=path.stat().st_size,
    )
    with bundle_image_set(path) as image_set:
        assert inspect_opened(path, image_set) == inspect_bundle(path)


def test_inspection_counts_what_was_left_out(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts_of(contents_of(root, listed("a/b:1", "linux/amd64")), root)))
    image = inspect_bundle(path).images[0]
    assert (image.platforms, image.omitted, image.size) == (("linux/amd64",), 1, image.alone)


def test_a_platform_that_an_image_never_had_is_a_difference_and_no_damage(root: Path) -> None:
    report = verify_storage(root, (listed("a/b:1", "linux/s390x"),), SILENT)
    assert report.problems == ()
    assert report.differences[0].startswith(f"a/b:1: index {MULTI.top.short} has no linux/s390x; ")
    assert report.others == 2


# --- a medium that does not give all bytes


@pytest.mark.parametrize(
    ("lost", "line"),
    [
        (LAYER, "a/b:2: blob {0} cannot be read: Input/output error (docker/registry/"),
        (CONFIG, "a/b:2: blob {0} cannot be read: Input/output error (docker/registry/"),
        (SINGLE.top, "a/b:2: blob {0} cannot be read from {1}: Input/output error"),
    ],
)
def test_a_blob_of_a_storage_that_cannot_be_read_is_damaged_and_all_others_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Digest, line: str
) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    flip(root / layout.blob_path(Digest.of(MULTI.blobs[0])))
    path = root / layout.blob_path(lost)
    lose(monkeypatch, path)
    report = verify_storage(root, None, SILENT)
    assert [problem for problem in report.problems if problem.startswith(line.format(lost, path))]
    assert [problem for problem in report.problems if "does not match its digest" in problem]
    assert {lost, Digest.of(MULTI.blobs[0])} == report.inventory.damaged
    assert report.images == len(IMAGES)


def test_a_bundle_on_a_medium_that_cannot_be_read_everywhere_has_a_line_for_each_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_bundle(tmp_path / "b", IMAGES)
    lose(monkeypatch, path, calls=("preadv",))
    report = verify_bundle(path, None, SILENT)
    named = {
        match[0] for problem in report.problems if (match := re.search(r"blob sha256:\S+ cannot be read", problem))
    }
    assert len(named) == report.blobs == len(report.inventory.damaged)
    assert all("Input/output error" in problem for problem in report.problems)
