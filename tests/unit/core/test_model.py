"""The vocabulary: what is parsed, what is refused, and that str is the way back."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regwrap.core.errors import IntegrityError
from regwrap.core.hosts import normal_host
from regwrap.core.model import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Digest,
    ImageRef,
    Index,
    Manifest,
    ParseError,
    Platform,
    is_host,
    is_repository,
    is_tag,
    parse_manifest,
    subject_of,
)

Json = dict[str, object]

FIXED = settings(derandomize=True, deadline=None)
HEX = "0123456789abcdef" * 4
DIGEST = Digest(HEX)

COMPONENTS = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
HOSTS = st.sampled_from(
    ["ghcr.io", "docker.io", "localhost", "localhost:5000", "r.example.com:443", "10.0.0.1:5000", "[::1]:5000", "R.io"]
)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
DIGESTS = st.binary(max_size=4).map(Digest.of)


@st.composite
def reference_texts(draw: st.DrawFn) -> str:
    scheme = draw(st.sampled_from(["", "docker://"]))
    host = draw(st.none() | HOSTS)
    path = "/".join(draw(st.lists(COMPONENTS, min_size=1, max_size=3)))
    if not host:  # a first component with a dot would be a host
        path = path.replace(".", "-")
    tag = draw(st.none() | TAGS)
    digest = draw(st.none() | DIGESTS)
    return (
        scheme
        + (f"{host}/" if host else "")
        + path
        + (f":{tag}" if tag else "")
        + (f"@{digest}" if digest else "")
    )  # fmt: skip


def parse_error(parse: Callable[[str], object], text: str) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(text)
    return caught.value


def test_digest_is_of_the_bytes_and_has_its_prefix_in_text() -> None:
    digest = Digest.of(b"")
    assert str(digest) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest.short == "sha256:e3b0c44298fc"


@pytest.mark.exhaustive
@FIXED
@given(DIGESTS)
def test_digest_parses_what_it_prints(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    ["", HEX, f"sha512:{HEX}", f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"sha256:{HEX.upper()}", f"sha256:{HEX}\n",
     f" sha256:{HEX}", f"SHA256:{HEX}", "sha256:" + "\u0660" * 64, f"sha256:{'g' * 64}"],
)  # fmt: skip
def test_digest_in_any_other_spelling_is_refused(text: str) -> None:
    parse_error(Digest.parse, text)


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("nginx", None, "nginx", None, None),
        ("nginx:1.25", None, "nginx", "1.25", None),
        ("bitnami/nginx:1", None, "bitnami/nginx", "1", None),
        ("docker.io/nginx", "docker.io", "library/nginx", None, None),
        ("docker.io/bitnami/nginx", "docker.io", "bitnami/nginx", None, None),
        ("docker://ghcr.io/a/b:c", "ghcr.io", "a/b", "c", None),
        ("localhost/a", "localhost", "a", None, None),
        ("localhost", None, "localhost", None, None),
        ("myhost:5000/a", "myhost:5000", "a", None, None),
        ("myhost:5000/a/b:5000", "myhost:5000", "a/b", "5000", None),
        ("foo.bar:5000", None, "foo.bar", "5000", None),
        ("[::1]:5000/a:b", "[::1]:5000", "a", "b", None),
        ("[fe80::1]/a", "[fe80::1]", "a", None, None),
        (f"a@sha256:{HEX}", None, "a", None, DIGEST),
        (f"r.io/a:b@sha256:{HEX}", "r.io", "a", "b", DIGEST),
        ("a__b/c---d/e.f_g", None, "a__b/c---d/e.f_g", None, None),
    ],
)
def test_reference_has_these_parts(
    text: str, registry: str | None, repository: str, tag: str | None, digest: Digest | None
) -> None:
    assert ImageRef.parse(text) == ImageRef(registry=registry, repository=repository, tag=tag, digest=digest)


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, "the repository's name is missing"),
        ("docker://", 9, "the repository's name is missing"),
        (":tag", 0, "the repository's name is missing"),
        ("ghcr.io/", 8, "the repository's name is missing"),
        (f"docker://r.io/@sha256:{HEX}", 14, "the repository's name is missing"),
        ("a:", 2, "not a tag: ''"),
        ("a/b:-c", 4, "not a tag: '-c'"),
        ("docker://r.io/a:" + "t" * 129, 16, "not a tag: 'tttt"),
        ("a@", 2, "expected sha256:"),
        ("a:b@sha256:12", 4, "expected sha256:"),
        (f"docker://a@sha256:{HEX}@", 11, "expected sha256:"),
        ("a//b", 1, "not a repository's name"),
        ("a/b/", 3, "not a repository's name"),
        ("a..b", 1, "not a repository's name"),
        ("a___b", 1, "not a repository's name"),
        ("_a", 0, "not a repository's name"),
        ("a b", 1, "not a repository's name"),
        ("a\n", 1, "not a repository's name"),
        ("a:b:c", 1, "not a repository's name"),
        ("ä", 0, "not a repository's name"),
        ("../../etc/passwd", 0, "not a host: '..'"),
        ("docker://-.io/a", 9, "not a host: '-.io'"),
        ("r.io:99999/a", 0, "not a host: 'r.io:99999'"),
        ("r.io:port/a", 0, "not a host: 'r.io:port'"),
        ("ghcr.io/Owner/name", 8, "upper case"),
        ("docker://ghcr.io/owner/Name:1", 23, "upper case"),
        ("owner/name-X", 11, "upper case"),
        ("r.io/" + "a" * 256, 5, "at most 255 characters, this one 256"),
        ("r.io/" + "a" * 254 + "A", 259, "upper case"),
        ("[::1]", 0, "not a repository's name: '[::1]'"),
        ("a@" + "x" * 80, 2, f"got '{'x' * 80}'"),
        ("a@" + "x" * 81, 2, f"got '{'x' * 80}…'"),
    ],
)
def test_bad_reference_says_what_and_where(text: str, offset: int, message: str) -> None:
    error = parse_error(ImageRef.parse, text)
    assert message in str(error)
    assert error.offset == offset


def test_the_longest_name_of_a_repository_is_one_and_a_longer_one_is_not() -> None:
    assert ImageRef.parse("r.io/" + "a" * 255).repository == "a" * 255
    assert is_repository("a/" * 127 + "a")
    assert not is_repository("a" * 256)


def test_a_port_is_below_65536() -> None:
    assert [port for port in (0, 80, 65535, 65536, 99999) if is_host(f"r.io:{port}")] == [0, 80, 65535]


@pytest.mark.exhaustive
@FIXED
@given(reference_texts())
def test_reference_prints_what_it_parsed(text: str) -> None:
    reference = ImageRef.parse(text)
    assert ImageRef.parse(str(reference)) == reference
    host, slash, rest = text.removeprefix("docker://").partition("/")
    spelled = f"{normal_host(host)}/{rest}" if slash and reference.registry else f"{host}{slash}{rest}"
    assert str(reference) in {spelled, spelled.replace("docker.io/", "docker.io/library/", 1)}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("R.Example:443/app", "r.example/app"),
        ("index.docker.io/app", "docker.io/library/app"),
        ("Registry-1.docker.io:443/team/app", "docker.io/team/app"),
        ("r.example:80/app", "r.example:80/app"),
        ("[2001:DB8::1]:443/app", "[2001:db8::1]/app"),
    ],
)
def test_a_host_has_one_name(text: str, name: str) -> None:
    assert ImageRef.parse(text).name == name


@FIXED
@given(st.text(alphabet="aB0:/@.-_[]= \té\u00a0", max_size=30) | st.text(max_size=30))
def test_reference_of_any_text_is_one_or_a_parse_error(text: str) -> None:
    try:
        reference = ImageRef.parse(text)
    except ParseError as error:
        offset: int | None = error.offset
    else:
        offset = None
        assert is_repository(reference.repository)
        assert reference.tag is None or is_tag(reference.tag)
        assert reference.registry is None or is_host(reference.registry)
    assert offset is None or 0 <= offset <= len(text)


def test_references_sort_with_and_without_registry_tag_and_digest() -> None:
    texts = [f"a@sha256:{HEX}", "b", "b:1", "r.io/a:1", f"r.io/a:1@sha256:{HEX}"]
    expected = [ImageRef.parse(text) for text in texts]
    assert sorted([*expected[2:], *expected[:2]]) == expected


def test_name_is_registry_and_repository() -> None:
    assert ImageRef.parse("docker.io/nginx:1").name == "docker.io/library/nginx"
    assert ImageRef.parse("nginx:1").name == "nginx"


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm/v7", "windows/amd64", "unknown/unknown"])
def test_platform_prints_what_it_parsed(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux//v7", "linux/arm/v7/x", "Linux/amd64", "linux/amd64\n", "all"]
)
def test_platform_that_is_none_is_refused(text: str) -> None:
    assert "linux/amd64" in str(parse_error(Platform.parse, text))


@pytest.mark.parametrize(
    ("asked", "offered", "matches"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm", "linux/arm/v6", True),
        ("linux/arm/v7", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm/v7", "linux/arm", False),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_platform_without_variant_matches_every_variant(asked: str, offered: str, matches: bool) -> None:
    assert Platform.parse(asked).matches(Platform.parse(offered)) is matches


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
    assert [child.about for child in index.manifests] == [about]


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


def test_arm64_has_one_variant() -> None:
    plain, v8, other = Platform("linux", "arm64"), Platform("linux", "arm64", "v8"), Platform("linux", "arm64", "v9")
    assert all(one.matches(two) for one in (plain, v8) for two in (plain, v8))
    assert not v8.matches(other)
    assert not Platform("linux", "arm", "v8").matches(Platform("linux", "arm"))


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


def test_manifest_may_have_four_mebibytes_and_no_byte_more() -> None:
    raw = raw_of(a_manifest()).ljust(MAX_MANIFEST_BYTES)
    assert parse_manifest(raw).raw == raw
    assert f"has {MAX_MANIFEST_BYTES + 1} bytes" in refusal(raw + b" ")


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
