"""The vocabulary: what is parsed, what is refused, and that str is the way back."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regwrap.core.hosts import normal_host
from regwrap.core.model import Digest, ImageRef, ParseError, Platform, is_host, is_repository, is_tag

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


@pytest.mark.slow
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


def test_arm64_has_one_variant() -> None:
    plain, v8, other = Platform("linux", "arm64"), Platform("linux", "arm64", "v8"), Platform("linux", "arm64", "v9")
    assert all(one.matches(two) for one in (plain, v8) for two in (plain, v8))
    assert not v8.matches(other)
    assert not Platform("linux", "arm", "v8").matches(Platform("linux", "arm"))
