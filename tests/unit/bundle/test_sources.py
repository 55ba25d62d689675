"""A storage, a bundle, a tree of files and a layout, asked for images: only what is whole, under its own name."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from regwrap.bundle.by_repository import LocalSource, StorageSource
from regwrap.bundle.contents import BundleContents
from regwrap.bundle.discovery import history_image_set, storage_image_set, tree_image_set
from regwrap.bundle.image_set import ImageSet, PlainFiles, file_image_set
from regwrap.bundle.opened import opened_contents, opened_history, opened_image_set
from regwrap.core import ocilayout
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.manifest import MAX_MANIFEST_BYTES, Descriptor, parse_manifest
from regwrap.core.model import Digest
from regwrap.core.ocilayout import LayoutEntry
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import (
    Image,
    flip,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    open_below,
    put,
    remove,
    replace_by_directory,
    replace_by_fifo,
    replace_by_symlink,
    truncate,
)
from tests.bundles import bundle_image_set, make_bundle

APP, MULTI = make_image("app"), make_multi_image("multi")
BIG = make_image("big", layers=[bytes(MAX_MANIFEST_BYTES + 1), make_layer("small")])
IMAGES = {"team/app:1": APP, "team/app:2": BIG, "multi:1": MULTI}
CONFIG, LAYER = Digest.of(APP.blobs[0]), Digest.of(APP.blobs[1])
HUGE = Digest.of(BIG.blobs[1])


def described(data: bytes) -> Descriptor:
    return Descriptor(media_type="application/json", digest=Digest.of(data), size=len(data))


@pytest.fixture(params=["bundle", "storage", "image set"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalSource]:
    path = make_bundle(tmp_path, IMAGES)
    if request.param == "bundle":
        with bundle_image_set(path) as image_set:
            yield image_set
    elif request.param == "image set":
        yield storage_image_set(Storage(tmp_path / "archive"))
    else:
        yield StorageSource(name="archive", storage=Storage(tmp_path / "archive"))


@pytest.mark.slow
def test_a_source_gives_what_a_repository_links_to_and_nothing_else(source: LocalSource) -> None:
    assert source.repositories() == ("multi", "team/app")
    assert source.tags("team/app") == ("1", "2")
    assert (source.tags("gone"), source.resolve("gone", "1"), source.resolve("team/app", "3")) == ((), None, None)
    assert source.resolve("team/app", "1") == APP.top
    assert source.manifest("team/app", APP.top) == APP.raw
    assert source.manifest("multi", APP.top) is None
    assert source.manifest("gone", APP.top) is None
    config = described(APP.blobs[0])
    assert source.config("team/app", APP.top, config) == APP.blobs[0]
    assert source.config("multi", APP.top, config) == b""
    assert source.config("gone", APP.top, config) == b""
    assert source.blob("multi", LAYER) is None
    assert source.blob("gone", LAYER) is None


@pytest.mark.slow
def test_a_blob_is_read_from_where_it_lies(source: LocalSource) -> None:
    piece = source.blob("team/app", LAYER)
    assert piece is not None
    with piece.file:
        assert piece.size == len(APP.blobs[1])
        assert os.pread(piece.file.fileno(), piece.size, piece.offset) == APP.blobs[1]
        assert piece.digest() == LAYER


@pytest.mark.slow
def test_what_is_larger_than_any_config_is_not_read_into_memory(source: LocalSource) -> None:
    with pytest.raises(IntegrityError, match=rf"{HUGE.short} has {MAX_MANIFEST_BYTES + 1} bytes"):
        source.config("team/app", BIG.top, described(BIG.blobs[1]))


@pytest.mark.parametrize("kind", ["bundle", "storage"])
def test_pages_are_in_the_order_of_names_and_begin_behind_the_last(tmp_path: Path, kind: str) -> None:
    """Repositories in the order of image names would be others, and a client would miss some, or turn in a circle."""
    with ExitStack() as stack:
        path = make_bundle(tmp_path, dict.fromkeys(("a:1", "a:2", "a:3", "a-b:1", "a/0:1"), APP))
        source: LocalSource = StorageSource(name="archive", storage=Storage(tmp_path / "archive"))
        if kind == "bundle":
            source = stack.enter_context(bundle_image_set(path))
        assert source.repositories() == ("a", "a-b", "a/0")
        assert tuple(source.repositories_after("a")) == ("a-b", "a/0")
        assert tuple(source.repositories_after("a-a")) == ("a-b", "a/0")
        assert tuple(source.tags_after("a", "1")) == ("2", "3")


def test_up_to_what_size_a_manifest_is_read(tmp_path: Path) -> None:
    path = put(tmp_path / "blob", b"")
    files = PlainFiles(lambda _digest: path)
    for size, is_read in ((MAX_MANIFEST_BYTES, True), (MAX_MANIFEST_BYTES + 1, False)):
        os.truncate(path, size)
        assert (files.read_blob(LAYER) is not None) is is_read
        contents = BundleContents(images=(), repositories=(), blobs=((LAYER, size),))
        image_set = file_image_set("tree", contents, lambda _digest: files)
        if is_read:
            assert len(image_set.read(LAYER)) == size
            continue
        with pytest.raises(IntegrityError, match=f"{LAYER.short} has {size} bytes, too many for a manifest"):
            image_set.read(LAYER)
    path.unlink()
    assert files.read_blob(LAYER) is None


@pytest.mark.parametrize("damage", [truncate, remove, replace_by_fifo, replace_by_directory, replace_by_symlink])
def test_a_blob_in_whose_place_something_else_lies_is_damage(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A fifo must not hang, a link not lead away."""
    root = make_storage(tmp_path / "root", IMAGES)
    image_set, living = storage_image_set(Storage(root)), StorageSource(name="root", storage=Storage(root))
    damage(Storage(root).blob_path(LAYER))
    with pytest.raises(IntegrityError, match=rf"blob {LAYER} (cannot be read|is not a file of)"):
        image_set.blob("team/app", LAYER)
    with pytest.raises(IntegrityError):
        image_set.copy(LAYER)
    piece = living.blob("team/app", LAYER)
    if damage is truncate:
        assert piece is not None
        assert piece.size == len(APP.blobs[1]) - 1
        piece.file.close()
    else:
        assert piece is None


def test_a_blob_of_a_tree_is_a_file_of_the_tree(tmp_path: Path) -> None:
    """A link that leads elsewhere is not followed, and a pipe that nobody writes into is not waited for."""
    linked, pipe = put(tmp_path / "tree/linked", b"bytes"), put(tmp_path / "tree/pipe", b"bytes")
    replace_by_symlink(linked)
    replace_by_fifo(pipe)
    with pytest.raises(OSError, match="symbolic links"):
        PlainFiles(lambda _digest: linked).open_blob(LAYER)
    descriptor = PlainFiles(lambda _digest: pipe).open_blob(LAYER)
    assert os.read(descriptor, 1) == b""
    os.close(descriptor)


def test_a_config_that_has_rotten_is_none(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    image_set = storage_image_set(Storage(root))
    flip(Storage(root).blob_path(CONFIG))
    assert image_set.config("team/app", APP.top, described(APP.blobs[0])) == b""
    assert not image_set.copy(CONFIG)
    assert image_set.copy(LAYER)


@pytest.mark.slow
def test_reading_leaves_no_file_open(source: LocalSource, tmp_path: Path) -> None:
    found = []
    for _ in range(3):
        piece = source.blob("team/app", LAYER)
        assert piece is not None
        piece.file.close()
        source.config("team/app", APP.top, described(APP.blobs[0]))
        found.append(open_below(tmp_path))
    assert found[0] == found[1] == found[2]


def test_what_is_no_file_leaves_none_open(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    image_set, living = storage_image_set(Storage(root)), StorageSource(name="root", storage=Storage(root))
    replace_by_fifo(Storage(root).blob_path(LAYER))
    found = []
    for _ in range(3):
        assert living.blob("team/app", LAYER) is None
        with pytest.raises(IntegrityError):
            image_set.blob("team/app", LAYER)
        found.append(open_below(tmp_path))
    assert found[0] == found[1] == found[2]


def test_a_tag_whose_manifest_has_rotten_is_not_listed(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    flip(Storage(root).blob_path(APP.top))
    flip(Storage(root).blob_path(MULTI.top))
    living = StorageSource(name="root", storage=Storage(root))
    assert living.tags("team/app") == ("2",)
    assert living.repositories() == ("team/app",)


# --- a storage as a whole


def problem(place: Path | str, *, named: str | None = None) -> str:
    """The one thing that is wrong with it."""
    with pytest.raises(IntegrityError, match="is damaged; nothing was written") as raised:
        tree_image_set(place, named=named) if isinstance(place, str) else storage_image_set(Storage(place))
    (line,) = raised.value.problems
    return line


def test_each_image_that_is_not_whole_is_named_and_none_left_out(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    remove(Storage(root).blob_path(LAYER))
    assert problem(root) == f"team/app:1: blob {LAYER} is absent"
    put(Storage(root).blob_path(LAYER), b"cut")
    assert problem(root) == f"team/app:1: blob {LAYER} has 3 bytes instead of {len(APP.blobs[1])}"
    remove(Storage(root).blob_path(Digest.of(MULTI.manifests[0])))
    with pytest.raises(IntegrityError) as raised:
        storage_image_set(Storage(root))
    assert len(raised.value.problems) == 2


def test_an_index_with_none_of_its_images_is_no_image(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"multi:1": MULTI})
    for raw in MULTI.manifests[:2]:
        remove(root / layout.revision_link("multi", Digest.of(raw)))
        remove(Storage(root).blob_path(Digest.of(raw)))
    assert problem(root) == f"multi:1: its index {MULTI.top} has none of its images"


def test_a_tag_without_its_manifest_is_named(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"team/app:1": APP})
    remove(root / layout.revision_link("team/app", APP.top))
    assert problem(root) == "team/app:1: its manifest is missing"
    remove(root / layout.tag_link("team/app", "1"))
    assert problem(root) == "team/app:1: its manifest is missing"


def test_a_storage_without_images_is_none_to_take_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="root has no images"):
        storage_image_set(Storage(make_storage(tmp_path / "root", {})))


def test_a_history_has_the_blobs_that_are_files_and_the_links_that_are_right(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    replace_by_fifo(Storage(root).blob_path(CONFIG))
    flip(root / layout.layer_link("multi", Digest.of(MULTI.blobs[0])))
    image_set = history_image_set(Storage(root))
    assert CONFIG not in image_set.contents.sizes
    links = {repository.name: set(repository.layers) for repository in image_set.contents.repositories}
    assert links["team/app"] == {LAYER, *map(Digest.of, BIG.blobs)}
    assert Digest.of(MULTI.blobs[0]) not in links["multi"]
    assert all(not repository.manifests for repository in image_set.contents.repositories)
    assert image_set.copy(LAYER)


# --- trees and layouts


def as_tree(place: Path, image: Image) -> None:
    for raw in image.manifests:
        put(place / ("manifest.json" if raw == image.raw else f"{Digest.of(raw).hex}.manifest.json"), raw)
    for blob in image.blobs:
        put(place / Digest.of(blob).hex, blob)


def as_layout(place: Path, **images: Image) -> None:
    put(place / ocilayout.MARK, ocilayout.MARK_BYTES)
    entries = []
    for name, image in images.items():
        for data in (*image.blobs, *image.manifests):
            put(place / ocilayout.blob_path(Digest.of(data)), data)
        media_type = parse_manifest(image.raw).media_type
        entries.append(LayoutEntry(name=name, media_type=media_type, digest=image.top, size=len(image.raw)))
    put(place / ocilayout.INDEX, ocilayout.index_bytes(tuple(entries)))


def names(image_set: ImageSet) -> dict[str, Digest]:
    return {image.name: image.digest for image in image_set.contents.images}


def test_a_tree_has_its_images_below_their_names(tmp_path: Path) -> None:
    as_tree(tmp_path / "tree/team/app:1", APP)
    as_tree(tmp_path / "tree/multi:1", MULTI)
    image_set = tree_image_set(f"{tmp_path}/tree", named=None)
    assert names(image_set) == {"multi:1": MULTI.top, "team/app:1": APP.top}
    assert all(image_set.copy(digest) for digest in image_set.contents.sizes)
    platforms = {image.name: tuple(map(str, image.platforms)) for image in image_set.contents.images}
    assert platforms == {"multi:1": ("linux/amd64", "linux/arm64"), "team/app:1": ("linux/amd64",)}


def test_a_tree_that_is_one_image_is_named_by_who_knows_it(tmp_path: Path) -> None:
    as_tree(tmp_path / "tree", MULTI)
    assert names(tree_image_set(f"{tmp_path}/tree", named="multi:9")) == {"multi:9": MULTI.top}
    with pytest.raises(UsageError, match="the image has no name"):
        tree_image_set(f"{tmp_path}/tree", named=None)


def test_what_is_wrong_in_a_tree_is_named(tmp_path: Path) -> None:
    as_tree(tmp_path / "tree/team/app:1", APP)
    remove(tmp_path / "tree/team/app:1" / LAYER.hex)
    assert problem(f"{tmp_path}/tree") == f"team/app:1: blob {LAYER} is absent"
    remove(tmp_path / "tree/team/app:1/manifest.json")
    with pytest.raises(UsageError, match="tree has no images"):
        tree_image_set(f"{tmp_path}/tree", named=None)
    with pytest.raises(UsageError, match="nowhere is not a directory"):
        tree_image_set(f"{tmp_path}/nowhere", named=None)


def test_what_is_wrong_in_a_tree_is_told_in_the_order_of_its_names(tmp_path: Path) -> None:
    wanted = [f"{repository}:{tag}" for repository in ("a", "a/b", "b") for tag in ("1", "2")]
    for name in (*wanted[::2], *wanted[::-2]):
        put(tmp_path / "tree" / name / "manifest.json", b"no manifest")
    with pytest.raises(IntegrityError) as raised:
        tree_image_set(f"{tmp_path}/tree", named=None)
    assert sorted(line.partition(": ")[0] for line in raised.value.problems) == sorted(wanted)
    places = [Path(line.partition(": ")[0]) for line in raised.value.problems]
    assert places == sorted(places)


@pytest.mark.slow
def test_a_manifest_larger_than_any_is_not_read(tmp_path: Path) -> None:
    as_tree(tmp_path / "tree/team/app:1", APP)
    path = put(tmp_path / "tree/team/app:1/manifest.json", APP.raw.ljust(MAX_MANIFEST_BYTES))
    assert names(tree_image_set(f"{tmp_path}/tree", named=None)) == {"team/app:1": Digest.of(path.read_bytes())}
    path.write_bytes(APP.raw.ljust(MAX_MANIFEST_BYTES + 1))
    assert "team/app:1: " in problem(f"{tmp_path}/tree")


def test_whoever_waits_is_told_how_many_images_are_read(tmp_path: Path) -> None:
    as_tree(tmp_path / "tree/app:1", APP)
    as_layout(tmp_path / "layout", one=APP, two=MULTI)
    root, told = make_storage(tmp_path / "root", IMAGES), list[tuple[str, int | None]]()

    class Listening(Silent):
        def count(self, _step: str, things: str, total: int | None = None, /) -> None:
            told.append((things, total))

        def on_things(self, count: int = 1, /) -> None:
            told.append(("done", count))

    tree_image_set(f"{tmp_path}/tree", named=None, listener=Listening())
    tree_image_set(f"{tmp_path}/layout", named="team/x", listener=Listening())
    storage_image_set(Storage(root), Listening())
    assert told == [
        ("images", 1), ("done", 1), ("images", 2), ("done", 1), ("done", 1), ("images", 3), ("done", 1), ("done", 1),
        ("done", 1),
    ]  # fmt: skip


def test_a_layout_has_its_images_by_their_names_and_one_can_be_chosen(tmp_path: Path) -> None:
    as_layout(tmp_path / "layout", one=APP, two=MULTI)
    found = {"team/x:one": APP.top, "team/x:two": MULTI.top}
    assert names(tree_image_set(f"{tmp_path}/layout", named="team/x")) == found
    assert names(tree_image_set(f"oci:{tmp_path}/layout", named="team/x")) == found
    assert names(tree_image_set(f"oci:{tmp_path}/layout:two", named="team/x")) == {"team/x:two": MULTI.top}
    assert all(tree_image_set(f"{tmp_path}/layout", named="team/x").copy(Digest.of(blob)) for blob in MULTI.blobs)


def test_two_images_with_one_name_are_refused(tmp_path: Path) -> None:
    as_tree(tmp_path / "tree/app:1", APP)
    as_tree(tmp_path / "tree/app/1", MULTI)
    with pytest.raises(UsageError, match="tree has two images with the name app:1"):
        tree_image_set(f"{tmp_path}/tree", named=None)


# --- what a user names


@pytest.mark.slow
def test_a_bundle_or_a_directory_is_opened_by_its_path(tmp_path: Path) -> None:
    path = make_bundle(tmp_path, IMAGES)
    for place in (path, tmp_path / "archive"):
        with opened_image_set(place, lock_timeout=0, listener=Silent()) as image_set:
            assert set(names(image_set)) == set(IMAGES)
        for hashed in (True, False):
            with opened_contents(place, hashed=hashed, listener=Silent()) as contents:
                assert contents.resolve("team/app", "1") == APP.top
    with opened_history(tmp_path / "archive", lock_timeout=0, listener=Silent()) as history:
        assert history.contents.images == ()
        assert LAYER in history.contents.sizes


def test_a_directory_that_is_no_storage_is_refused(tmp_path: Path) -> None:
    for opened in (
        opened_image_set(tmp_path, lock_timeout=0, listener=Silent()),
        opened_history(tmp_path, lock_timeout=0, listener=Silent()),
        opened_contents(tmp_path, hashed=False, listener=Silent()),
    ):
        with pytest.raises(UsageError, match="is not a registry storage") as raised, opened:
            pytest.fail("it was opened")
        assert "give a bundle, or the registry's root directory" in raised.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bundle", "storage"])
def test_rot_is_found_before_anything_is_sent_where_it_is_asked_for(tmp_path: Path, kind: str) -> None:
    path = make_bundle(tmp_path, IMAGES)
    if kind == "bundle":
        path.write_bytes(path.read_bytes().replace(APP.blobs[1], bytes(len(APP.blobs[1]))))
    else:
        path = tmp_path / "archive"
        flip(Storage(path).blob_path(LAYER))
    with (
        pytest.raises(IntegrityError, match=f"{path} is damaged") as raised,
        opened_contents(path, hashed=True, listener=Silent()),
    ):
        pytest.fail("it was opened")
    (line,) = raised.value.problems
    assert LAYER.hex in line
    assert "copy or build the bundle again" in raised.value.hint
    with opened_contents(path, hashed=False, listener=Silent()) as contents:
        assert contents.resolve("team/app", "1") == APP.top


@pytest.mark.slow
def test_what_is_read_is_told(tmp_path: Path) -> None:
    path, told, steps = make_bundle(tmp_path, IMAGES), list[int](), list[tuple[str, int]]()

    class Listening(Silent):
        def on_bytes(self, count: int, /) -> None:
            told.append(count)

        def expect(self, step: str, expected: int, /) -> None:
            steps.append((step, expected))

    with opened_contents(path, hashed=True, listener=Listening()) as contents:
        assert isinstance(contents, ImageSet)
        assert steps == [("verify", contents.contents.blob_bytes)]
        assert sum(told) == contents.contents.blob_bytes


@pytest.mark.slow
def test_nobody_writes_into_a_storage_that_is_read(tmp_path: Path) -> None:
    make_bundle(tmp_path, IMAGES)
    root = tmp_path / "archive"
    (root / ".regwrap").mkdir()
    (root / ".regwrap/lock").touch()
    for opened in (opened_image_set, opened_history):
        with opened(root, lock_timeout=0, listener=Silent()), (root / ".regwrap/lock").open("r+b") as lock:
            with pytest.raises(BlockingIOError) as raised:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert raised.value.errno == errno.EAGAIN
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_disk_that_fails_is_no_image_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_tree(tmp_path / "tree/app:1", APP)

    def fails(path: Path, *_args: object, **_kwargs: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error", f"{path}")

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(OSError, match="Input/output error"):
        tree_image_set(f"{tmp_path}/tree", named=None)


@pytest.mark.parametrize(
    ("name", "containerd", "found"),
    [
        (None, "docker.io/team/app:1", "team/app:1"),
        ("1", "docker.io/team/app:1", "team/app:1"),
        ("team/other:2", "docker.io/team/app:1", "team/other:2"),
        ("team/other:2", None, "team/other:2"),
        ("team/other:2", "docker.io/team/app", "team/other:2"),
    ],
)
def test_an_image_of_a_layout_has_the_name_that_containerd_gave_it(
    tmp_path: Path, name: str | None, containerd: str | None, found: str
) -> None:
    """What `ctr image export` wrote has only the tag as its own name: all of a product would be one repository's."""
    put_layout(tmp_path / "l", name, containerd)
    image_set = tree_image_set(f"oci:{tmp_path / 'l'}", named=None)
    assert [image.name for image in image_set.contents.images] == [found]


@pytest.mark.parametrize(("name", "containerd"), [("1", "docker.io/team/app"), ("1", "!"), (None, "!"), ("1", None)])
def test_an_image_of_which_no_name_is_told_is_refused(tmp_path: Path, name: str | None, containerd: str | None) -> None:
    put_layout(tmp_path / "l", name, containerd)
    with pytest.raises(UsageError, match="'1' is not an image name" if name else "the image has no name"):
        tree_image_set(f"oci:{tmp_path / 'l'}", named=None)
    assert tree_image_set(f"oci:{tmp_path / 'l'}", named="team/app:1" if name is None else "team/app").contents.images


def put_layout(directory: Path, name: str | None, containerd: str | None) -> None:
    put(directory / ocilayout.MARK, ocilayout.MARK_BYTES)
    for data in (*APP.blobs, *APP.manifests):
        put(directory / ocilayout.blob_path(Digest.of(data)), data)
    media_type = parse_manifest(APP.raw).media_type
    entry = LayoutEntry(name=name, containerd=containerd, media_type=media_type, digest=APP.top, size=len(APP.raw))
    put(directory / ocilayout.INDEX, ocilayout.index_bytes((entry,)))
