"""An index of the platforms that are there, in the place of one that names more."""

from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.closure import closure_of
from regwrap.core.errors import IntegrityError
from regwrap.core.manifest import MAX_INDEX_DEPTH, Descriptor
from regwrap.core.model import Digest, Platform
from regwrap.lists.imagelist import ImageEntry
from regwrap.lists.naming import entry_of
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.transfer.rewritten import rewrite_indexes
from tests.builders import Image, index_of, make_image, make_index, make_multi_image, make_storage, remove

INNER = make_multi_image("inner")
NESTED = index_of([INNER, make_image("leaf")], [None, "linux/s390x"])
IMAGES = {
    "multi:v1": make_multi_image("multi"),
    "whole:v1": make_multi_image("whole"),
    "nested:v1": NESTED,
    "one:v1": make_image("one"),
}


@pytest.fixture
def source(tmp_path: Path) -> StorageSource:
    """Without linux/arm64."""
    root = make_storage(tmp_path / "storage", IMAGES)
    for repository, image in (("multi", IMAGES["multi:v1"]), ("nested", INNER)):
        remove(root / layout.revision_link(repository, Digest.of(image.manifests[1])))
    return StorageSource(name="storage", storage=Storage(root))


def entry(name: str, image: Image, *platforms: str) -> ImageEntry:
    repository, _, tag = name.partition(":")
    found = entry_of(repository, tag, image.top)
    return ImageEntry(
        source=found.source, dest=found.dest, platforms=tuple(map(Platform.parse, platforms)), line=0, text=name
    )


@pytest.mark.parametrize("name", ["multi:v1", "nested:v1"])
def test_what_is_there_is_whole_under_another_digest(source: StorageSource, name: str) -> None:
    repository = name.partition(":")[0]
    partial = entry(name, IMAGES[name], "linux/amd64")
    rewriting = rewrite_indexes(source, (partial,))
    (move,), (new,) = rewriting.moves, rewriting.entries
    assert (move.image, move.old, move.new) == (name, IMAGES[name].top, new.source.digest)
    assert move.new != move.old
    assert new.platforms == ()
    assert rewriting.source.resolve(repository, "v1") == move.new
    closure = closure_of(move.new, lambda digest: rewriting.source.manifest(repository, digest))
    assert closure is not None
    assert (closure.missing, closure.omitted) == ((), ())
    assert Digest.of(IMAGES["multi:v1" if repository == "multi" else "nested:v1"].manifests[0]) in {
        manifest.digest for manifest in closure.manifests
    }


def test_images_that_are_whole_stay_as_they_are(source: StorageSource) -> None:
    entries = tuple(
        entry(name, IMAGES[name], *some) for name in ("one:v1", "whole:v1") for some in ((), ("linux/amd64",))
    )
    rewriting = rewrite_indexes(source, entries)
    assert (rewriting.entries, rewriting.moves) == (entries, ())
    assert rewriting.source.resolve("one", "v1") == IMAGES["one:v1"].top
    assert rewriting.source.resolve("whole", "v1") == IMAGES["whole:v1"].top


def test_an_image_that_is_wanted_whole_is_not_made_smaller(source: StorageSource) -> None:
    """That a platform is not there has to be told."""
    whole = entry("multi:v1", IMAGES["multi:v1"])
    rewriting = rewrite_indexes(source, (whole,))
    assert (rewriting.entries, rewriting.moves) == ((whole,), ())
    assert rewriting.source.resolve("multi", "v1") == IMAGES["multi:v1"].top


def test_an_inner_index_that_is_whole_stays_in_one_that_is_not(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "storage", {"nested:v1": NESTED})
    remove(root / layout.revision_link("nested", Digest.of(NESTED.manifests[-2])))
    source = StorageSource(name="storage", storage=Storage(root))
    rewriting = rewrite_indexes(source, (entry("nested:v1", NESTED, "linux/amd64"),))
    closure = closure_of(rewriting.moves[0].new, lambda digest: rewriting.source.manifest("nested", digest))
    assert closure is not None
    assert {manifest.digest for manifest in closure.manifests[:-1]} == set(map(Digest.of, INNER.manifests))


def test_an_index_of_nothing_stays_as_it_is(tmp_path: Path) -> None:
    nothing = Image(manifests=(b'{"schemaVersion": 2, "manifests": null}',), blobs=())
    source = StorageSource(name="storage", storage=Storage(make_storage(tmp_path, {"none:v1": nothing})))
    wanted = (entry("none:v1", nothing, "linux/amd64"),)
    assert rewrite_indexes(source, wanted).entries == wanted


@pytest.mark.slow
@pytest.mark.parametrize("levels", [MAX_INDEX_DEPTH + 1, 500])
def test_an_index_that_is_too_deep_is_left_to_who_looks_at_the_image(tmp_path: Path, levels: int) -> None:
    """He refuses it alone, and the other images go."""
    images = [make_image("leaf")]
    for _ in range(levels):
        images.append(Image(manifests=(make_index([images[-1].raw]),), blobs=()))
    deep = Image(manifests=tuple(image.raw for image in images[1:]), blobs=())  # the leaf is not there
    source = StorageSource(name="storage", storage=Storage(make_storage(tmp_path, {"deep:v1": deep})))
    wanted = (entry("deep:v1", deep, "linux/amd64"),)
    assert rewrite_indexes(source, wanted).entries == wanted


def test_all_else_is_what_the_source_has(source: StorageSource) -> None:
    """A registry on loopback serves it to skopeo."""
    one = IMAGES["one:v1"]
    made = rewrite_indexes(source, (entry("multi:v1", IMAGES["multi:v1"], "linux/amd64"),)).source
    assert (made.name, made.repositories(), made.tags("one")) == (
        "storage",
        ("multi", "nested", "one", "whole"),
        ("v1",),
    )
    assert list(made.repositories_after("multi")) == ["nested", "one", "whole"]
    assert (list(made.tags_after("one", "")), list(made.tags_after("one", "v1"))) == (["v1"], [])
    assert (made.resolve("one", "v1"), made.manifest("one", one.top)) == (one.top, one.raw)
    config, layer = (Descriptor(media_type="", digest=Digest.of(blob), size=len(blob)) for blob in one.blobs)
    assert made.config("one", one.top, config) == one.blobs[0]
    piece = made.blob("one", layer.digest)
    assert piece is not None
    with piece.file:
        assert piece.size == layer.size


@pytest.mark.slow
def test_a_manifest_of_other_bytes_is_put_into_no_index(source: StorageSource) -> None:
    path = source.storage.blob_path(Digest.of(IMAGES["multi:v1"].manifests[0]))
    path.write_bytes(path.read_bytes().replace(b'"size": ', b'"size":  '))
    with pytest.raises(IntegrityError, match="does not match its digest"):
        rewrite_indexes(source, (entry("multi:v1", IMAGES["multi:v1"], "linux/amd64"),))
