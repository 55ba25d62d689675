"""Which children of an index are visited, and which of them count as a platform."""

import pytest

from regwrap.core.closure import Closure, check_platform, closure_of, shipped_platforms
from regwrap.core.errors import ImagesFailedError
from regwrap.core.manifest import subject_of
from regwrap.core.model import Digest, Platform
from tests.builders import Image, index_of, make_image

AMD64 = Platform("linux", "amd64")


def walked(image: Image) -> Closure:
    closure = closure_of(image.top, {Digest.of(raw): raw for raw in image.manifests}.get)
    assert closure is not None
    return closure


def test_what_comes_behind_a_child_that_is_named_twice_is_not_lost() -> None:
    one, two = make_image("one"), make_image("two")
    closure = walked(index_of([one, one, two], ["linux/amd64", "linux/amd64", "linux/arm64"]))
    assert [m.digest for m in closure.leaves] == [one.top, two.top]


def test_what_comes_behind_a_child_that_is_left_out_or_missing_is_not_lost() -> None:
    arm, lost, amd = make_image("arm"), make_image("lost"), make_image("amd")
    index = index_of([arm, lost, amd], ["linux/arm64", "linux/amd64", "linux/amd64"])
    raws = {Digest.of(raw): raw for raw in index.manifests if raw != lost.raw}
    closure = closure_of(index.top, raws.get, (AMD64,))
    assert closure is not None
    assert [m.digest for m in closure.leaves] == [amd.top]
    assert [child.digest for child in closure.omitted] == [arm.top]
    assert [child.digest for child in closure.missing] == [lost.top]


def test_an_attestation_is_no_platform_and_half_of_one_is_none() -> None:
    children = [make_image("one"), make_image("attestation"), make_image("half")]
    index = index_of(children, ["linux/amd64", "unknown/unknown", "linux/"])
    assert shipped_platforms(walked(index), lambda _config: b"") == (AMD64,)


@pytest.mark.parametrize("config", [b"{}", b'{"os": "linux"}', b'{"architecture": "amd64"}', b"[]", b"no JSON"])
def test_an_artifact_is_for_no_platform(config: bytes) -> None:
    closure = walked(make_image("artifact"))
    assert shipped_platforms(closure, lambda _config: config) == ()
    with pytest.raises(ImagesFailedError, match="is for no platform"):
        check_platform(closure, (AMD64,), lambda _config: config)


def test_an_image_is_for_the_platform_of_its_config() -> None:
    closure = walked(make_image("one"))
    config = b'{"os": "linux", "architecture": "arm", "variant": "v7"}'
    assert shipped_platforms(closure, lambda _config: config) == (Platform("linux", "arm", "v7"),)
    check_platform(closure, (Platform("linux", "arm", "v7"),), lambda _config: config)
    with pytest.raises(ImagesFailedError, match="the image is for linux/arm/v7, not for linux/amd64"):
        check_platform(closure, (AMD64,), lambda _config: config)


def test_a_document_without_an_end_has_no_subject() -> None:
    assert subject_of(b'{"subject":' + b"[" * 100_000) is None
