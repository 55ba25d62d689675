"""Manifests and indexes: what is read, and what is refused rather than guessed at."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regwrap.core.errors import IntegrityError
from regwrap.core.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
    subject_of,
)
from regwrap.core.model import Digest, Platform

Json = dict[str, object]

FIXED = settings(derandomize=True, deadline=None)
DIGEST = Digest("0123456789abcdef" * 4)


def a_descriptor(**changes: object) -> Json:
    return {"mediaType": "application/octet-stream", "digest": str(DIGEST), "size": 7, **changes}


def a_manifest(**changes: object) -> Json:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": a_descriptor(),
        "layers": [a_descriptor()],
    } | changes


def an_index(**changes: object) -> Json:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [a_descriptor()]} | changes


def without(document: Json, key: str) -> Json:
    return {name: value for name, value in document.items() if name != key}


def raw_of(document: object) -> bytes:
    return json.dumps(document).encode()


def refusal(raw: bytes) -> str:
    with pytest.raises(IntegrityError) as caught:
        parse_manifest(raw)
    assert Digest.of(raw).short in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_manifest_keeps_its_bytes_and_names_its_blobs(media_type: str) -> None:
    config = a_descriptor(size=0)
    raw = b" " + raw_of(a_manifest(mediaType=media_type, config=config))
    blob = Descriptor(media_type="application/octet-stream", digest=DIGEST, size=7)
    empty = Descriptor(media_type="application/octet-stream", digest=DIGEST, size=0)
    manifest = parse_manifest(raw)
    assert manifest == Manifest(raw=raw, digest=Digest.of(raw), media_type=media_type, config=empty, layers=(blob,))
    assert isinstance(manifest, Manifest)
    assert manifest.blobs == (empty, blob)


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_index_names_its_manifests_and_their_platforms(media_type: str) -> None:
    arm = {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1", "features": ["x"]}
    documents = [a_descriptor(platform=arm), a_descriptor(platform={"os": "linux", "architecture": "amd64"})]
    raw = raw_of(an_index(mediaType=media_type, manifests=[*documents, a_descriptor()]))
    index = parse_manifest(raw)
    assert isinstance(index, Index)
    assert (index.raw, index.digest, index.media_type) == (raw, Digest.of(raw), media_type)
    platforms = [child.platform for child in index.manifests]
    assert platforms == [Platform("linux", "arm", "v7"), Platform("linux", "amd64"), None]


@pytest.mark.parametrize(
    ("annotations", "about"),
    [
        ({"vnd.docker.reference.digest": f"{DIGEST}"}, DIGEST),
        ({"vnd.docker.reference.digest": "whatever"}, None),
        ({"vnd.docker.reference.digest": 5}, None),
        ({}, None),
        (None, None),
        ("text", None),
    ],
)
def test_an_index_says_which_of_its_images_an_attestation_is_about(annotations: object, about: Digest | None) -> None:
    index = parse_manifest(raw_of(an_index(manifests=[a_descriptor(annotations=annotations)])))
    assert isinstance(index, Index)
    assert [child.subject for child in index.manifests] == [about]


def test_missing_media_type_means_oci() -> None:
    assert parse_manifest(raw_of(without(a_manifest(), "mediaType"))).media_type == OCI_MANIFEST
    assert parse_manifest(raw_of(without(an_index(), "mediaType"))).media_type == OCI_INDEX


def test_no_layers_and_no_manifests_are_fine() -> None:
    manifest, index = parse_manifest(raw_of(a_manifest(layers=[]))), parse_manifest(raw_of(an_index(manifests=[])))
    assert isinstance(manifest, Manifest)
    assert manifest.layers == ()
    assert isinstance(index, Index)
    assert index.manifests == ()


def test_a_list_that_is_null_or_absent_is_empty() -> None:
    """As programs in Go write it."""
    for document in (a_manifest(layers=None), without(a_manifest(), "layers")):
        manifest = parse_manifest(raw_of(document))
        assert isinstance(manifest, Manifest)
        assert manifest.layers == ()
    index = parse_manifest(raw_of(an_index(manifests=None)))
    assert isinstance(index, Index)
    assert index.manifests == ()


def test_layer_with_urls_or_of_a_foreign_type_is_foreign() -> None:
    layers = [
        a_descriptor(urls=["https://example.com/x"]),
        a_descriptor(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        a_descriptor(mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar"),
        a_descriptor(urls=[]),
        a_descriptor(urls=None),
    ]
    manifest = parse_manifest(raw_of(a_manifest(layers=layers)))
    assert isinstance(manifest, Manifest)
    assert [layer.is_foreign for layer in manifest.layers] == [True, True, True, False, False]


def test_annotations_and_unknown_keys_may_be_anything() -> None:
    odd = {"Layers": "x", "MANIFESTS": "y", "": "z", "\u017fize": "ä", "mediatype": "t"}
    parse_manifest(raw_of(a_manifest(annotations=odd, subject=a_descriptor(), artifactType="a/b", extra=None)))
    parse_manifest(raw_of(an_index(manifests=[a_descriptor(annotations=odd)], annotations=odd)))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": []}, "of docker's schema 1"),
        ({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []}, "an OCI artifact manifest"),
        (a_manifest(schemaVersion="2"), "schemaVersion is not 2"),
        (a_manifest(schemaVersion=2.0), "schemaVersion is not 2"),
        (without(a_manifest(), "schemaVersion"), "schemaVersion is not 2"),
        ([a_manifest()], "schemaVersion is not 2"),
        (None, "schemaVersion is not 2"),
        ({"schemaVersion": 2}, "either manifests, or config and layers"),
        (a_manifest(manifests=[]), "either manifests, or config and layers"),
        (an_index(layers=[]), "either manifests, or config and layers"),
        (an_index(config=None), "either manifests, or config and layers"),
        (a_manifest(mediaType=OCI_INDEX), "does not fit its content"),
        (an_index(mediaType=DOCKER_MANIFEST), "does not fit its content"),
        (a_manifest(mediaType="text/html"), "does not fit its content"),
        (a_manifest(mediaType=None), "mediaType: expected a string, got nothing"),
        (without(a_manifest(), "config"), "config: expected an object, got nothing"),
        (a_manifest(layers={}), "layers: expected a list, got a mapping"),
        (a_manifest(layers=["x"]), 'layers: expected an object, got "x"'),
        (a_manifest(config=a_descriptor(digest=None)), "config: digest: expected a string, got nothing"),
        (a_manifest(config=a_descriptor(digest="sha512:00")), "sha512 digests are not supported"),
        (a_manifest(config=a_descriptor(digest="../../x")), "expected sha256:"),
        (a_manifest(config=a_descriptor(mediaType=1)), "config: mediaType: expected a string, got 1"),
        (a_manifest(config=a_descriptor(urls="x")), 'config: urls: expected a list, got "x"'),
        (a_manifest(config=a_descriptor(urls=[1])), "config: urls: expected a string, got 1"),
        (an_index(manifests=[a_descriptor(platform={"os": 1})]), "manifests: os: expected a string, got 1"),
    ],
)
def test_document_that_is_no_manifest_is_refused(document: object, message: str) -> None:
    assert message in refusal(raw_of(document))


@pytest.mark.parametrize("key", ["Layers", "MEDIATYPE", "Manifests", "Config", "\u017fchemaVersion", "SchemaVersion"])
def test_key_that_go_would_read_as_another_is_refused(key: str) -> None:
    assert "is ambiguous" in refusal(raw_of(a_manifest(**{key: []})))


@pytest.mark.parametrize("key", ["Digest", "SIZE", "media\u212aType", "Urls"])
def test_key_in_a_descriptor_that_go_would_read_as_another_is_refused(key: str) -> None:
    if key.isascii():
        assert "is ambiguous" in refusal(raw_of(a_manifest(layers=[a_descriptor(**{key: "x"})])))
    else:  # folds to a key that nobody reads
        parse_manifest(raw_of(a_manifest(layers=[a_descriptor(**{key: "x"})])))


def test_key_in_a_platform_that_go_would_read_as_another_is_refused() -> None:
    platform = {"os": "linux", "architecture": "amd64", "OS": "windows"}
    assert "is ambiguous" in refusal(raw_of(an_index(manifests=[a_descriptor(platform=platform)])))


@pytest.mark.parametrize("at", ["top", "descriptor", "annotations"])
def test_key_that_stands_twice_is_refused(at: str) -> None:
    raw = raw_of(a_manifest(annotations={"a": "b"}))
    old, new = {
        "top": (b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2'),
        "descriptor": (b'"size": 7', b'"size": 7, "si\\u007ae": 8'),
        "annotations": (b'"a": "b"', b'"a": "b", "a": "c"'),
    }[at]
    assert "a key stands twice" in refusal(raw.replace(old, new))


@pytest.mark.parametrize(
    "size",
    ["-1", "true", "false", "7.0", "7e0", "1e999", "9223372036854775808", '"7"', "null", "[7]", "NaN", "9" * 5000],
)
def test_size_that_is_no_size_is_refused(size: str) -> None:
    refusal(raw_of(a_manifest()).replace(b'"size": 7', f'"size": {size}'.encode()))


def test_largest_size_that_go_can_read_is_read() -> None:
    manifest = parse_manifest(raw_of(a_manifest(config=a_descriptor(size=2**63 - 1))))
    assert isinstance(manifest, Manifest)
    assert manifest.config.size == 2**63 - 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_number_that_json_does_not_have_is_refused_wherever_it_stands(number: str) -> None:
    refusal(raw_of(a_manifest(extra=7)).replace(b'"extra": 7', f'"extra": {number}'.encode()))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"\x00",
        b"<html>",
        b"{",
        b"{'a': 1}",
        b"\xff\xfe",
        raw_of(a_manifest()) + b"x",
        raw_of(a_manifest()) * 2,
    ],
)
def test_bytes_that_are_no_json_are_refused(raw: bytes) -> None:
    refusal(raw)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_manifest_that_is_not_plain_utf8_is_refused(encoding: str) -> None:
    # A registry reads manifests with Go's encoding/json, which knows nothing but UTF-8 without a BOM.
    refusal(json.dumps(a_manifest()).encode(encoding))


def test_surrogate_in_the_bytes_is_refused() -> None:
    refusal(raw_of(a_manifest(annotations={"a": "b"})).replace(b'"b"', b'"\xed\xa0\x80"'))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"annotations":['])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    refusal(opening * 100_000)
    refusal(raw_of(a_manifest(annotations=0)).replace(b" 0}", b"[" * 100_000 + b"]" * 100_000 + b"}"))


@pytest.mark.slow
def test_manifest_may_have_four_mebibytes_and_no_byte_more() -> None:
    raw = raw_of(a_manifest()).ljust(MAX_MANIFEST_BYTES)
    assert parse_manifest(raw).raw == raw
    assert f"has {MAX_MANIFEST_BYTES + 1} bytes" in refusal(raw + b" ")


@pytest.mark.slow
@FIXED
@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["schemaVersion", "config", "layers", "manifests", "size"]), inner)
        ),
        max_leaves=10,
    ).map(raw_of)
)
def test_any_bytes_are_a_manifest_or_an_integrity_error(raw: bytes) -> None:
    try:
        manifest = parse_manifest(raw)
    except IntegrityError:
        return
    assert manifest.raw == raw


@pytest.mark.parametrize(
    ("raw", "subject"),
    [
        (f'{{"subject": {{"digest": "{DIGEST}"}}}}', DIGEST),
        (f'{{"mediaType": "what/ever", "Subject": {{"digest": "{DIGEST}"}}}}', DIGEST),
        ('{"subject": {"digest": "sha512:00"}}', None),
        ('{"subject": "text"}', None),
        ('{"subject": null}', None),
        ("{}", None),
        ("[]", None),
        ("no json", None),
        ('{"subject": {"size": 7}}', None),
        (f'{{"subject": {{"digest": "{DIGEST}"}}, "config": {{"digest": "{Digest.of(b"other")}"}}}}', DIGEST),
    ],
)
def test_the_subject_of_a_referrer_is_read_whatever_it_is(raw: str, subject: Digest | None) -> None:
    assert subject_of(raw.encode()) == subject
    assert subject_of(b"\xff") is None
