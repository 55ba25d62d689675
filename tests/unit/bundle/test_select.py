"""What goes into a bundle: exactly the listed images, and everything that is wrong is said at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from regwrap.bundle.contents import BundleContents, BundleImage, BundleRepository, parse_contents
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.select import select_images
from regwrap.bundle.structure import structure_problems
from regwrap.core.errors import BrokenBlobError, ImagesFailedError
from regwrap.core.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from regwrap.core.model import Digest, Platform
from regwrap.lists.imagelist import parse_images
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import (
    Image,
    empty,
    flip,
    index_of,
    make_image,
    make_multi_image,
    make_storage,
    remove,
    replace_by_fifo,
    truncate,
)
from tests.bundles import contents_of, listed, packed, parts_of
from tests.lost import lose

AMD, ARM = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
MULTI, SINGLE = make_multi_image("multi"), make_image("single")
LIST = make_multi_image("list", kind="docker")
IMAGES = {"a:1": SINGLE, "a/b:1": MULTI, "a/b/c:1": LIST, "a/b:unlisted": make_image("unlisted")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "archive", IMAGES)


def digests(*blobs: bytes) -> tuple[Digest, ...]:
    return tuple(sorted(map(Digest.of, blobs)))


def sizes(*images: Image) -> tuple[tuple[Digest, int], ...]:
    return tuple(sorted({(Digest.of(b), len(b)) for image in images for b in (*image.manifests, *image.blobs)}))


def test_the_listed_images_and_no_others(root: Path) -> None:
    selection = select_images(Storage(root), (listed("a/b:1"), listed("a:1")))
    assert selection.contents == BundleContents(
        images=(
            BundleImage(
                repository="a/b", tag="1", digest=MULTI.top, media_type=OCI_INDEX, platforms=(AMD, ARM), omitted=()
            ),
            BundleImage(
                repository="a", tag="1", digest=SINGLE.top, media_type=OCI_MANIFEST, platforms=(AMD,), omitted=()
            ),
        ),
        repositories=(
            BundleRepository(name="a", manifests=digests(*SINGLE.manifests), layers=digests(*SINGLE.blobs)),
            BundleRepository(name="a/b", manifests=digests(*MULTI.manifests), layers=digests(*MULTI.blobs)),
        ),
        blobs=sizes(MULTI, SINGLE),
    )
    assert set(selection.users) == {digest for digest, _size in selection.contents.blobs}
    assert selection.users[SINGLE.top] == "a:1"
    assert all(selection.path(d).stat().st_size == size for d, size in selection.contents.blobs)


def test_the_lists_order_does_not_matter(root: Path) -> None:
    names = ("a:1", "a/b:1", "a/b/c:1")
    assert contents_of(root, *names).to_json() == contents_of(root, *reversed(names)).to_json()


def test_nothing_listed_is_nothing(root: Path) -> None:
    assert select_images(Storage(root), ()).contents == BundleContents(images=(), repositories=(), blobs=())


def test_one_repository_with_two_tags_and_blobs_of_two_repositories_once(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "archive", {"a:1": SINGLE, "a:2": MULTI, "b:1": SINGLE})
    contents = contents_of(root, "a:1", "a:2", "b:1")
    assert [r.name for r in contents.repositories] == ["a", "b"]
    assert contents.repositories[0].manifests == digests(*SINGLE.manifests, *MULTI.manifests)
    assert contents.blobs == sizes(SINGLE, MULTI)


@pytest.mark.parametrize("line", ["a:1", "a:1 platform=linux/amd64"])
def test_a_config_that_the_disk_does_not_give_is_damage(root: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Without it nobody knows the platform: it is not another one."""
    lose(monkeypatch, path := Storage(root).blob_path(Digest.of(SINGLE.blobs[0])))
    with pytest.raises(BrokenBlobError) as told:
        select_images(Storage(root), parse_images(line.encode(), "images.list").entries)
    (problem,) = told.value.problems
    assert f"cannot be read from {path}: Input/output error" in problem


def test_only_the_platforms_that_were_asked_for(root: Path) -> None:
    contents = contents_of(root, listed("a/b/c:1", "linux/arm64"))
    arm, amd = LIST.manifests[1], LIST.manifests[0]
    assert contents.images[0].platforms == (ARM,)
    assert contents.images[0].omitted == (Digest.of(amd),)
    assert contents.images[0].media_type == DOCKER_LIST
    assert contents.repositories[0].manifests == digests(arm, LIST.raw)
    assert Digest.of(amd) not in dict(contents.blobs)
    assert 0 < len(contents.blobs) < len(sizes(LIST))


def test_what_is_left_out_is_named_in_order(tmp_path: Path) -> None:
    """Two runs give the same bytes, whatever order a set has."""
    platforms = [f"linux/{name}" for name in ("386", "amd64", "arm64", "mips64le", "ppc64le", "riscv64", "s390x")]
    image = make_multi_image("many", platforms)
    root = make_storage(tmp_path / "archive", {"many:1": image})
    (found,) = contents_of(root, listed("many:1", "linux/amd64")).images
    assert found.omitted == digests(image.manifests[0], *image.manifests[2:-1])


def test_an_index_in_an_index(tmp_path: Path) -> None:
    nested = index_of([MULTI, SINGLE])
    root = make_storage(tmp_path / "archive", {"deep/er:1": nested})
    contents = contents_of(root, "deep/er:1")
    assert contents.blobs == sizes(nested)
    assert contents.images[0].platforms == (AMD, ARM)
    assert accepted(tmp_path, root, contents)


def accepted(tmp_path: Path, root: Path, contents: BundleContents) -> bool:
    path = tmp_path / "bundle.tar"
    path.write_bytes(packed(parts_of(contents, root)))
    with opened_bundle(path) as bundle:
        return structure_problems(bundle) == []


@pytest.mark.parametrize("platform", ["Linux/AMD64", "linux/amd64 v1", "linux/a/b", "/amd64", "linux/ä"])
def test_a_platform_that_no_list_can_name_is_no_obstacle(tmp_path: Path, platform: str) -> None:
    image = index_of([SINGLE, make_image("other", platform=platform)], ["linux/amd64", platform])
    root = make_storage(tmp_path / "archive", {"odd:1": image, "odd:2": make_image("third", platform=platform)})
    contents = contents_of(root, "odd:1", "odd:2")
    assert parse_contents(contents.to_json()) == contents
    assert AMD in contents.images[0].platforms
    assert accepted(tmp_path, root, contents)


def test_all_that_is_missing_is_named_at_once(root: Path) -> None:
    other = Digest.of(b"other")
    remove(root / layout.revision_link("a/b", Digest.of(MULTI.manifests[0])))
    entries = (
        listed("absent:1", line=1),
        listed("a:2", line=2),
        listed("a:1", digest=f"{other}", line=3),
        listed("a/b:1", line=4),
        listed("a/b/c:1", "linux/s390x", line=5),
        listed("a/b:unlisted", "linux/arm64", line=6),
        listed("a/b/c:1", line=7),
    )
    with pytest.raises(ImagesFailedError) as caught:
        select_images(Storage(root), entries)
    assert caught.value.message.startswith("6 of 7 listed images cannot be packed")
    lines = caught.value.detail.splitlines()
    assert [line.partition(")")[0] for line in lines] == [f"{e.dest} (line {e.line}" for e in entries[:6]]
    assert f"the archive has {SINGLE.top}, the list says {other}" in lines[2]
    assert "has no linux/amd64 of its index" in lines[3]
    assert "linux/s390x" in lines[4]
    assert "linux/arm64" in lines[5]


def test_the_digest_that_the_list_says_is_taken(root: Path) -> None:
    assert contents_of(root, listed("a:1", digest=f"{SINGLE.top}")) == contents_of(root, "a:1")


@pytest.mark.parametrize("damage", [truncate, empty, remove, replace_by_fifo])
def test_a_blob_of_another_size_is_damage(root: Path, damage: Callable[[Path], None]) -> None:
    digest = Digest.of(SINGLE.blobs[1])
    damage(root / layout.blob_path(digest))
    with pytest.raises(BrokenBlobError) as caught:
        select_images(Storage(root), (listed("absent:1"), listed("a/b:1"), listed("a:1", line=9)))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"a:1 (line 9): blob {digest} ")
    assert "regwrap sync --hash" in caught.value.hint


@pytest.mark.parametrize("damage", [truncate, empty, flip, remove])
def test_each_damaged_manifest_is_named(root: Path, damage: Callable[[Path], None]) -> None:
    for digest in (SINGLE.top, MULTI.top):
        damage(root / layout.blob_path(digest))
    with pytest.raises(BrokenBlobError) as caught:
        select_images(Storage(root), (listed("a:1"), listed("a/b:1", line=2)))
    assert [p.partition(":1")[0] for p in caught.value.problems] == ["a", "a/b"]


def test_what_a_blob_lacks_is_told_apart(root: Path) -> None:
    layer = Digest.of(SINGLE.blobs[1])
    path = Storage(root).blob_path(layer)
    for damage, said in ((truncate, f"has {len(SINGLE.blobs[1]) - 1} bytes instead of"), (remove, "is absent")):
        damage(path)
        with pytest.raises(BrokenBlobError) as raised:
            select_images(Storage(root), (listed("a:1", line=7),))
        (problem,) = raised.value.problems
        assert problem.startswith(f"a:1 (line 7): blob {layer} {said}")
