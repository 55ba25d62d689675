"""The walk from an image's top: what belongs to it, what was left out, what is missing, and what is refused."""

from collections.abc import Iterable

import pytest

from regwrap.core.closure import check_platform, closure_of, platforms_of, shipped_platforms
from regwrap.core.errors import ImagesFailedError, IntegrityError
from regwrap.core.manifest import MAX_INDEX_DEPTH, Descriptor, Index, parse_manifest
from regwrap.core.model import Digest, Platform
from tests.builders import Image, Kind, index_of, make_image, make_index, make_layer, make_manifest, make_multi_image

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


class Source(dict[Digest, bytes]):
    """Manifests and blobs by digest; remembers what was asked for."""

    def __init__(self, *images: Image) -> None:
        super().__init__({Digest.of(data): data for image in images for data in (*image.manifests, *image.blobs)})
        self.asked: list[Digest] = []

    def fetch(self, digest: Digest) -> bytes | None:
        self.asked.append(digest)
        return self.get(digest)

    def config(self, blob: Descriptor) -> bytes:
        return self.get(blob.digest, b"")


def digests(items: Iterable[bytes]) -> list[Digest]:
    return [Digest.of(item) for item in items]


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_single_image_is_its_manifest_config_and_layers(kind: Kind) -> None:
    image = make_image("a", kind=kind)
    closure = closure_of(image.top, Source(image).fetch)
    assert closure is not None
    assert closure.manifests == closure.leaves == (closure.top,)
    assert [blob.digest for blob in closure.blobs] == digests(image.blobs)
    assert closure.omitted == closure.missing == ()
    assert closure.size == len(image.raw) + sum(map(len, image.blobs))


def test_an_absent_top_is_none() -> None:
    assert closure_of(Digest.of(b"x"), Source().fetch) is None


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_index_comes_after_its_children_and_shared_layers_count_once(kind: Kind) -> None:
    image = make_multi_image("a", kind=kind)
    closure = closure_of(image.top, Source(image).fetch)
    assert closure is not None
    assert [manifest.digest for manifest in closure.manifests] == digests(image.manifests)
    assert sorted(blob.digest for blob in closure.blobs) == sorted(digests(image.blobs))


def test_nested_indexes_are_walked() -> None:
    inner, other = make_multi_image("inner"), make_image("other")
    outer = index_of([inner, other])
    closure = closure_of(outer.top, Source(outer).fetch)
    assert closure is not None
    assert [manifest.digest for manifest in closure.manifests] == digests(outer.manifests)
    assert len(closure.leaves) == 3


def test_indexes_nested_too_deep_are_refused() -> None:
    image = make_image("a")
    for _ in range(MAX_INDEX_DEPTH):
        image = index_of([image])
    assert closure_of(image.top, Source(image).fetch) is not None
    deeper = index_of([image])
    with pytest.raises(IntegrityError, match="is nested deeper"):
        closure_of(deeper.top, Source(deeper).fetch)


def test_a_child_that_is_not_there_is_missing() -> None:
    image = make_multi_image("a")
    source = Source(image)
    gone = Digest.of(image.manifests[1])
    del source[gone]
    closure = closure_of(image.top, source.fetch)
    assert closure is not None
    assert [child.digest for child in closure.missing] == [gone]
    assert closure.omitted == ()


def test_a_child_for_another_platform_is_omitted_and_not_asked_for() -> None:
    image = make_multi_image("a")
    source = Source(image)
    closure = closure_of(image.top, source.fetch, (ARM64,))
    assert closure is not None
    assert [manifest.digest for manifest in closure.leaves] == digests(image.manifests[1:2])
    assert [child.digest for child in closure.omitted] == digests(image.manifests[:1])
    assert closure.missing == ()
    assert Digest.of(image.manifests[0]) not in source.asked


def test_a_child_without_platform_always_comes_along() -> None:
    children = [make_image("a"), make_image("signature"), make_image("b", platform="linux/arm64")]
    image = index_of(children, ["linux/amd64", None, "linux/arm64"])
    closure = closure_of(image.top, Source(image).fetch, (AMD64,))
    assert closure is not None
    assert {leaf.digest for leaf in closure.leaves} == {children[0].top, children[1].top}


def test_what_one_index_omits_and_another_brings_is_not_omitted() -> None:
    arm = make_image("arm", platform="linux/arm64")
    amd = make_image("amd")
    inner = index_of([arm])  # names no platform, so all of it comes along
    outer = index_of([amd, arm, inner], ["linux/amd64", "linux/arm64"])
    closure = closure_of(outer.top, Source(outer).fetch, (AMD64,))
    assert closure is not None
    assert arm.top in {leaf.digest for leaf in closure.leaves}
    assert closure.omitted == ()


def test_a_platform_that_the_index_does_not_name_fails_the_image() -> None:
    image = make_multi_image("a")
    with pytest.raises(ImagesFailedError, match=r"has no linux/s390x; it has linux/amd64, linux/arm64"):
        closure_of(image.top, Source(image).fetch, (AMD64, Platform("linux", "s390x")))


def test_other_bytes_than_the_digest_says_are_refused() -> None:
    image, other = make_multi_image("a"), make_multi_image("b")
    for position in (0, -1):
        source = Source(image)
        source[Digest.of(image.manifests[position])] = other.manifests[position]
        with pytest.raises(IntegrityError, match=r"does not match its digest|bytes, its index says"):
            closure_of(image.top, source.fetch)


def test_a_build_cache_is_no_image_and_is_told_as_what_it_is() -> None:
    image = make_image("a")
    cache = b'{"mediaType": "application/vnd.buildkit.cacheconfig.v0"'
    index = make_index([image.raw, image.raw], [None, "linux/amd64"])
    head, own, tail = index.rpartition(b'{"mediaType": "application/vnd.oci.image.manifest.v1+json"')
    assert own
    with pytest.raises(ImagesFailedError, match="is a build cache of BuildKit, not an image") as raised:
        closure_of(Digest.of(head + cache + tail), Source(image, Image((head + cache + tail,), ())).fetch)
    assert "image-manifest=true" in raised.value.hint


def test_a_child_of_another_size_than_its_index_says_is_refused() -> None:
    image = make_image("a")
    index = make_index([image.raw]).replace(f'"size": {len(image.raw)}'.encode(), b'"size": 7')
    source = Source(image, Image(manifests=(index,), blobs=()))
    with pytest.raises(IntegrityError, match="its index says 7"):
        closure_of(Digest.of(index), source.fetch)


def test_one_child_of_two_sizes_is_refused() -> None:
    image = make_image("a")
    twice = make_index([image.raw, image.raw])
    size = f'"size": {len(image.raw)}'.encode()
    head, _, tail = twice.rpartition(size)
    index = head + b'"size": 7' + tail
    with pytest.raises(IntegrityError, match="its index says 7"):
        closure_of(Digest.of(index), Source(image, Image(manifests=(index,), blobs=())).fetch)


def test_one_blob_of_two_sizes_is_refused() -> None:
    layer = make_layer("a")
    one, other = make_manifest(b"{}", [layer]), make_manifest(b"{ }", [layer])
    other = other.replace(f'"size": {len(layer)}'.encode(), b'"size": 7')
    image = Image(manifests=(one, other, make_index([one, other])), blobs=())
    with pytest.raises(IntegrityError, match=rf"has two sizes: {len(layer)} and 7 bytes"):
        closure_of(image.top, Source(image).fetch)


def test_an_index_may_be_empty() -> None:
    image = Image(manifests=(make_index([]),), blobs=())
    closure = closure_of(image.top, Source(image).fetch)
    assert closure is not None
    assert (closure.blobs, closure.leaves) == ((), ())


def test_platforms_of_an_index_leave_out_attestations() -> None:
    children = [make_image("a"), make_image("b"), make_image("c")]
    index = parse_manifest(index_of(children, ["linux/arm64", "unknown/unknown"]).raw)
    assert isinstance(index, Index)
    assert platforms_of(index) == (ARM64,)


def test_shipped_platforms_are_those_of_the_children_that_are_there() -> None:
    image = make_multi_image("a")
    source = Source(image)
    whole, part = closure_of(image.top, source.fetch), closure_of(image.top, source.fetch, (ARM64,))
    assert whole is not None
    assert part is not None
    assert shipped_platforms(whole, source.config) == (AMD64, ARM64)
    assert shipped_platforms(part, source.config) == (ARM64,)


def test_platforms_are_told_in_order_whatever_the_order_of_the_index() -> None:
    names = [f"linux/{name}" for name in ("s390x", "arm64", "riscv64", "386", "amd64", "ppc64le", "mips64le")]
    image = index_of([make_image(name, platform=name) for name in names], names)
    source = Source(image)
    closure = closure_of(image.top, source.fetch)
    assert closure is not None
    assert isinstance(closure.top, Index)
    assert list(map(str, platforms_of(closure.top))) == sorted(names)
    assert list(map(str, shipped_platforms(closure, source.config))) == sorted(names)


@pytest.mark.parametrize("config", [b"", b"{}", b"[]", b"\xff", b'{"os": 1, "architecture": "x"}', b"[" * 100_000])
def test_an_artifact_has_no_platform(config: bytes) -> None:
    image = Image(manifests=(make_manifest(config, []),), blobs=(config,))
    source = Source(image)
    closure = closure_of(image.top, source.fetch)
    assert closure is not None
    assert shipped_platforms(closure, source.config) == ()


def test_a_single_image_for_another_platform_fails() -> None:
    image = make_image("a", platform="linux/arm64")
    source = Source(image)
    closure = closure_of(image.top, source.fetch, (ARM64,))
    assert closure is not None
    check_platform(closure, (ARM64,), source.config)
    check_platform(closure, (), source.config)
    with pytest.raises(ImagesFailedError, match="is for linux/arm64, not for linux/amd64"):
        check_platform(closure, (AMD64,), source.config)
