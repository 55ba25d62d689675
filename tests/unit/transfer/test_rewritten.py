"""An index of the platforms that are there, in the place of one that names more."""

from pathlib import Path

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.closure import closure_of
from regwrap.core.model import Digest, Platform
from regwrap.lists.imagelist import ImageEntry
from regwrap.lists.naming import entry_of
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.transfer.rewritten import rewrite_indexes
from tests.builders import Image, index_of, make_image, make_multi_image, make_storage, remove

INNER = make_multi_image("inner")
NESTED = index_of([INNER, make_image("leaf")], [None, "linux/s390x"])
IMAGES = {"multi:v1": make_multi_image("multi"), "nested:v1": NESTED, "one:v1": make_image("one")}


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
    entries = (entry("one:v1", IMAGES["one:v1"]), entry("one:v1", IMAGES["one:v1"], "linux/amd64"))
    rewriting = rewrite_indexes(source, entries)
    assert (rewriting.entries, rewriting.moves) == (entries, ())
    assert rewriting.source.resolve("one", "v1") == IMAGES["one:v1"].top
