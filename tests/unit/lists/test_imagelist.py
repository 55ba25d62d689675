"""images.list: every branch of the grammar, and for every refusal the exact line and column."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regwrap.core.errors import UsageError, error_text
from regwrap.core.model import Destination, Digest, ImageRef, Platform
from regwrap.lists.imagelist import (
    MAX_LIST_BYTES,
    ImageEntry,
    ImageList,
    Rewrite,
    as_archived,
    failed_list,
    list_text,
    need_source,
    parse_images,
    read_images,
)
from regwrap.lists.line import MAX_LINE
from tests.bundles import dest_of

FIXED = settings(derandomize=True, deadline=None)
HEX = "0123456789abcdef" * 4
AT = f"@sha256:{HEX}"
AMD = Platform("linux", "amd64")
ARM = Platform("linux", "arm64")


def parsed(text: str | bytes) -> ImageList:
    return parse_images(text.encode() if isinstance(text, str) else text, "images.list")


def only(text: str | bytes) -> ImageEntry:
    (entry,) = parsed(text).entries
    return entry


def refused(text: str | bytes) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert caught.value.hint
    return [*(caught.value.problems or (caught.value.message,))]


def an_entry(source: str, dest: str, *platforms: Platform, text: str, line: int = 1) -> ImageEntry:
    return ImageEntry(source=ImageRef.parse(source), dest=dest_of(dest), platforms=platforms, line=line, text=text)


@pytest.mark.parametrize("text", ["", "\n", " \t\n\r\n", "# a\n  # b\n\t#c", "#", "\ufeff", "\ufeff# a\r\n"])
def test_list_may_be_empty(text: str) -> None:
    assert parsed(text) == ImageList(name="images.list", entries=(), notes=())


@pytest.mark.parametrize(
    ("text", "source", "dest"),
    [
        ("r.io/a/b:1", "r.io/a/b:1", "a/b:1"),
        ("docker://r.io/a/b:1", "r.io/a/b:1", "a/b:1"),
        ("a:1", "a:1", "a:1"),
        ("docker.io/a:1", "docker.io/library/a:1", "library/a:1"),
        ("localhost:5000/a:1", "localhost:5000/a:1", "a:1"),
        (f"r.io/a:1{AT}", f"r.io/a:1{AT}", "a:1"),
        ("r.io/a:1 b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1\tb/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1 \t b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1 => b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1=>b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1\t=>b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1=>\tb/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1 -> b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1->b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1-->b/c:2", "r.io/a:1-", "b/c:2"),
        ("r.io/a:1=b/c:2", "r.io/a:1", "b/c:2"),
        ("docker://r.io/a:1=docker://b/c:2", "r.io/a:1", "b/c:2"),
        ("r.io/a:1 b/c", "r.io/a:1", "b/c:1"),
        (f"r.io/a{AT} b/c:2", f"r.io/a{AT}", "b/c:2"),
        (f"r.io/a:1{AT} b/c", f"r.io/a:1{AT}", "b/c:1"),
        ("r.io/a b/c:2", "r.io/a:latest", "b/c:2"),
        ("r.io/a b/c", "r.io/a:latest", "b/c:latest"),
        ("platform:1=name", "platform:1", "name:1"),
        ("platform", "platform:latest", "platform:latest"),
        ("docker:24-dind", "docker:24-dind", "docker:24-dind"),
        ("docker://oci:1", "oci:1", "oci:1"),
        ("r.io/oci:1 x/dir:2", "r.io/oci:1", "x/dir:2"),
    ],
)
def test_line_names_source_and_destination(text: str, source: str, dest: str) -> None:
    assert only(text) == an_entry(source, dest, text=text)


def test_host_of_a_destination_is_dropped() -> None:
    assert only("r.io/a:1 corp.example:5000/b/c:2").dest == Destination("b/c", "2")


def test_component_with_a_dot_stays_in_the_default_destination() -> None:
    dest = only("r.io/b.c/d:1").dest
    assert dest == Destination("b.c/d", "1")


@pytest.mark.parametrize(
    ("options", "platforms"),
    [
        ("platform=linux/amd64", (AMD,)),
        ("platform=linux/arm64,linux/amd64", (AMD, ARM)),
        ("platform=linux/arm64,linux/amd64,linux/arm64", (AMD, ARM)),
        ("platform=linux/arm/v7", (Platform("linux", "arm", "v7"),)),
        ("platform=all", ()),
        ("name=x", ()),
        ("group=a,b", ()),
        ("name=a=b#c", ()),
        ("name=Büro", ()),
        ("group=x  platform=linux/amd64\tname=y", (AMD,)),
    ],
)
@pytest.mark.parametrize("pair", ["r.io/a:1", "r.io/a:1 b", "r.io/a:1=b", "r.io/a:1->b", "r.io/a:1 => b"])
def test_options_follow_source_or_destination(pair: str, options: str, platforms: tuple[Platform, ...]) -> None:
    entry = only(f"{pair} {options}")
    assert entry.platforms == platforms
    assert entry.dest == dest_of("a:1" if pair == "r.io/a:1" else "b:1")
    assert entry.text == f"{pair} {options}"


@pytest.mark.parametrize("ending", ["", " ", "\t# x", " #", " # \u00a0 any “text”, a=b -> c", "\r", " # x\r"])
def test_comment_and_blanks_are_not_in_the_text_of_an_entry(ending: str) -> None:
    assert only(f" \tr.io/a:1 b name=x{ending}\n").text == "r.io/a:1 b name=x"


def test_lines_are_counted_through_bom_and_crlf() -> None:
    images = parsed("\ufeffr.io/a:1\r\n\r\n# x\r\nr.io/b:1\r\n")
    assert [(entry.line, entry.text) for entry in images.entries] == [(1, "r.io/a:1"), (4, "r.io/b:1")]
    assert refused("\ufeff-a\r\n\r\n  -b\r\n") == [
        "images.list:1:1: '-a' is not an image; a list has references, not options",
        "images.list:3:3: '-b' is not an image; a list has references, not options",
    ]


def test_entries_keep_the_order_of_the_list() -> None:
    assert [str(entry.dest) for entry in parsed("c:1\na:1\nb:1\n").entries] == ["c:1", "a:1", "b:1"]


NOT_AN_IMAGE = "is not an image; a list has references, not options"
BLANKS = "is not allowed here; only space and tab are blanks"
DOCKER_ONLY = "only docker references are supported here, not"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        # options and schemes in place of a reference
        ("--all", 1, f"'--all' {NOT_AN_IMAGE}"),
        ("  --src-creds=a:b", 3, f"'--src-creds' {NOT_AN_IMAGE}"),
        ("a:1 --dest-tls-verify", 5, f"'--dest-tls-verify' {NOT_AN_IMAGE}"),
        ("a:1=-b", 5, f"'-b' {NOT_AN_IMAGE}"),
        ("oci:/dir", 1, "oci:/dir does not name its image: write => REPOSITORY:TAG after it"),
        ("oci-archive:x.tar", 1, "oci-archive:x.tar does not name its image"),
        ("dir:x", 1, "dir:x does not name its image"),
        ("dir:x third-party/db", 7, "dir:x does not name its image"),
        ("dir:=x:1", 5, "expected dir:PATH, the path is missing"),
        ("  dir:=x:1", 7, "expected dir:PATH, the path is missing"),
        ("docker-daemon:a:1 b:1", 1, f"{DOCKER_ONLY} 'docker-daemon:'"),
        ("file://x", 1, f"{DOCKER_ONLY} 'file://'"),
        ("https://r.io/a:1", 1, f"{DOCKER_ONLY} 'https://'"),
        ("HTTPS://r.io/a:1", 1, f"{DOCKER_ONLY} 'HTTPS://'"),
        ("a:1 s3://bucket/a", 5, f"{DOCKER_ONLY} 's3://'"),
        ("a:1=file://x", 5, f"{DOCKER_ONLY} 'file://'"),
        ("a:1 -> oci:x", 8, f"{DOCKER_ONLY} 'oci:'"),
        # references
        ("r.io/A:1", 6, "upper case is not allowed in a repository's name: 'A'"),
        ("docker://r.io/a/B:1", 17, "upper case is not allowed in a repository's name: 'a/B'"),
        ("a:1 b//c", 6, "not a repository's name: 'b//c'"),
        ("a:1 b:", 6, "the tag is missing after the colon"),
        ("a:1#x", 3, "not a tag: '1#x'"),
        ("a@sha256:12", 3, "expected sha256: and 64 hex digits, got 'sha256:12'"),
        ("a:1=docker://-.io/b", 14, "not a host: '-.io'"),
        ("bü:1", 2, "U+00FC (LATIN SMALL LETTER U WITH DIAERESIS) is not allowed in a reference"),
        ("a:1 \u0430:1", 5, "U+0430 (CYRILLIC SMALL LETTER A) is not allowed in a reference"),
        ("“a:1”", 1, "U+201C (LEFT DOUBLE QUOTATION MARK) is not allowed in a reference"),
        ("a:1=b=c", 6, "a reference has no '=': 'b=c'"),
        ("a=b => c", 2, "a reference has no '=': 'a=b'"),
        ("a => x=y", 7, "a reference has no '=': 'x=y'"),
        # separators
        ("=> b", 1, "the source is missing before =>"),
        ("  ->b", 3, "the source is missing before ->"),
        ("=b", 1, "the source is missing before '=b'"),
        ("  platform=linux/amd64", 3, "the source is missing before 'platform=linux/amd64'"),
        ("platform=linux/amd64,linux/arm64", 1, "the source is missing before 'platform=linux/amd64,linux/arm64'"),
        ("name=x", 1, "the source is missing before 'name=x'"),
        ("a:1 =>", 5, "the destination is missing after =>"),
        ("a:1-> # x", 4, "the destination is missing after ->"),
        ("a:1 => -> b", 8, "the destination is missing after =>"),
        ("a:1 -> platform=all", 8, "the destination is missing after ->"),
        ("a:1=", 4, "the destination is missing after '='"),
        ("a:1= # x", 4, "the destination is missing after '='"),
        ("a:1 = b:2", 5, "no blanks around '=': write 'a:1=b:2'"),
        (" a:1\t= b:2", 6, "no blanks around '=': write 'a:1=b:2'"),
        ("a:1 =b:2", 5, "no blanks around '=': write 'a:1=b:2'"),
        ("a:1= b:2 name=x", 4, "no blanks around '=': write 'a:1=b:2'"),
        ("a:1 =", 5, "expected key=value without blanks, got '='"),
        ("a:1,b:2", 4, "separate source and destination with a blank, not a comma: 'a:1 b:2'"),
        (" a:1, b:2", 5, "separate source and destination with a blank, not a comma: 'a:1 b:2'"),
        ("a:1,", 4, "separate source and destination with a blank, not a comma: 'a:1'"),
        ("a:1,b:2,c:3", 4, "separate source and destination with a blank, not a comma: 'a:1 b:2'"),
        ("a:1,b:2=c", 4, "separate source and destination with a blank, not a comma: 'a:1 b:2=c'"),
        ("a:1 b,c", 6, "not a repository's name: 'b,c'"),
        # options
        ("a:1 b c", 7, "expected key=value without blanks, got 'c'"),
        ("a:1 b => c", 7, "expected key=value without blanks, got '=>'"),
        ("a:1->b->c", 7, "expected key=value without blanks, got '->'"),
        ("a:1=b c", 7, "expected key=value without blanks, got 'c'"),
        ("a:1 platform = all", 14, "expected key=value without blanks, got '='"),
        ("a:1 name=x y", 12, "expected key=value without blanks, got 'y'"),
        ("a:1 name=x =y", 12, "expected key=value without blanks, got '=y'"),
        ("a:1 platforms=all", 5, "unknown option 'platforms'; did you mean platform=?"),
        ("a:1 b Platform=all", 7, "unknown option 'Platform'; did you mean platform=?"),
        ("a:1 b x=y", 7, "unknown option 'x'; known are platform, name, group"),
        ("a:1 b=c", 5, "unknown option 'b'; known are platform, name, group"),
        ("a:1 platform=", 5, "platform= needs a value"),
        ("a:1 name= x", 5, "name= needs a value"),
        ("a:1 platform=all platform=all", 18, "platform= is given twice"),
        ("a:1 name=x group=y name=z", 20, "name= is given twice"),
        ("a:1 platform=linux", 14, "expected a platform such as linux/amd64, got 'linux'"),
        ("a:1 platform=linux/amd64,Linux/arm64", 26, "expected a platform such as linux/amd64, got 'Linux/arm64'"),
        ("a:1 platform=linux/amd64,", 26, "expected a platform such as linux/amd64, got ''"),
        ("a:1 platform=all,linux/amd64", 14, "expected a platform such as linux/amd64, got 'all'"),
        # tags and digests
        (f"a:1 b:1{AT}", 8, "a destination has no digest; put it at the source"),
        (f"a:1=docker://r.io/b{AT}", 20, "a destination has no digest; put it at the source"),
        # characters
        ("a:1\u00a0b", 4, f"U+00A0 (NO-BREAK SPACE) {BLANKS}"),
        ("\u00a0# x", 1, f"U+00A0 (NO-BREAK SPACE) {BLANKS}"),
        ("a:1 name=\u200bx", 10, f"U+200B (ZERO WIDTH SPACE) {BLANKS}"),
        ("a:1\u2028b:1", 4, f"U+2028 (LINE SEPARATOR) {BLANKS}"),
        ("\ufeff\ufeffa:1", 1, f"U+FEFF (ZERO WIDTH NO-BREAK SPACE) {BLANKS}"),
        ("a:1\x00", 4, f"U+0000 (a control character) {BLANKS}"),
        ("a:1\rb:1", 4, f"U+000D (a control character) {BLANKS}"),
        ("a:1\r\r\n", 4, f"U+000D (a control character) {BLANKS}"),
        ("a:1\x0bb", 4, f"U+000B (a control character) {BLANKS}"),
        ("a:1\x85", 4, f"U+0085 (a control character) {BLANKS}"),
        ("a:1 # \x1b[31m", 7, f"U+001B (a control character) {BLANKS}"),
        ("# \ufeff é \x00", 7, f"U+0000 (a control character) {BLANKS}"),
        ("a:1\ue000", 4, f"U+E000 (unnamed) {BLANKS}"),
    ],
)
def test_bad_line_is_refused_with_its_column(text: str, column: int, message: str) -> None:
    (problem,) = refused(f"# first\n{text}\n" if not text.startswith("\ufeff") else text)
    line = 1 if text.startswith("\ufeff") else 2
    assert problem.startswith(f"images.list:{line}:{column}: {message}")


@pytest.mark.parametrize(
    ("data", "where", "byte"),
    [
        (b"\xff", "1:1", "0xff"),
        (b"a:1\n\xc3\xa9\xe9:1\n", "2:2", "0xe9"),
        (b"\xef\xbb\xbfa:1 # \xc3\xa9 \xc3", "1:9", "0xc3"),
        (b"a:1\n# \xed\xa0\x80", "2:3", "0xed"),
        (b"a\xc0\x80", "1:2", "0xc0"),
    ],
)
def test_bad_byte_is_refused_with_its_column_in_characters(data: bytes, where: str, byte: str) -> None:
    assert refused(data) == [f"images.list:{where}: the byte {byte} is not UTF-8"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_refused_by_its_name(encoding: str) -> None:
    assert refused("\ufeffr.io/a:1\r\n".encode(encoding)) == ["images.list:1:1: the file is UTF-16"]


def test_line_may_have_4096_characters_and_no_more() -> None:
    assert only("a:1 #" + "é" * (MAX_LINE - 5) + "\r\n").text == "a:1"
    (problem,) = refused("\na:1 #" + "é" * (MAX_LINE - 4))
    assert problem == "images.list:2:4097: the line has 4097 characters; the limit is 4096"


@pytest.mark.exhaustive
def test_list_may_have_64_mebibytes_and_no_byte_more() -> None:
    line = b"#".ljust(MAX_LINE - 1) + b"\n"
    data = line * (MAX_LIST_BYTES // MAX_LINE)
    assert len(data) == MAX_LIST_BYTES
    assert parsed(data).entries == ()
    with pytest.raises(UsageError, match=r"^images\.list: larger than 67108864 bytes"):
        parsed(data + b"\n")


def test_every_bad_line_is_reported_at_once_in_the_order_of_the_list() -> None:
    text = "a:1\n\x00\nx/b:1 c:1\ny/b:1 c:1\n" + "ok:1\n" * 7 + "  A:1\n"
    assert refused(text.encode() + b"\xff") == [
        f"images.list:2:1: U+0000 (a control character) {BLANKS}",
        "images.list:4:7: c:1 is already the destination of line 3, with another source",
        "images.list:12:3: upper case is not allowed in a repository's name: 'A'",
        "images.list:13:1: the byte 0xff is not UTF-8",
    ]


def test_long_word_is_cut_in_the_message() -> None:
    (problem,) = refused("a:1 " + "x=" * 1000)
    assert len(problem) < 200
    (problem,) = refused("a:1 b " + "x" * 4000)
    assert problem.endswith("x…'")
    assert len(problem) < 200


def test_exact_repeat_is_one_entry_and_a_note() -> None:
    images = parsed("r.io/a:1\nb:1\n\ndocker://r.io/a:1 a # again\nr.io/a:1 platform=all name=x\n")
    assert [entry.line for entry in images.entries] == [1, 2]
    assert images.notes == ("images.list:4: repeats line 1; 2 lines repeat others",)


def test_platforms_in_another_order_are_a_repeat() -> None:
    text = "a:1 platform=linux/amd64,linux/arm64\na:1 platform=linux/arm64,linux/amd64\n"
    assert parsed(text).notes == ("images.list:2: repeats line 1",)


def test_latest_written_or_meant_is_a_repeat() -> None:
    images = parsed("r.io/a\nr.io/a:latest\n")
    assert len(images.entries) == 1
    assert images.notes == ("images.list:1: no tag given, latest is meant", "images.list:2: repeats line 1")


@pytest.mark.parametrize(
    ("first", "second", "column", "why"),
    [
        ("x.io/a:1", "y.io/a:1", 1, "with another source"),
        ("x.io/a:1", "a:1", 1, "with another source"),
        ("x.io/a:1", f"x.io/a:1{AT}", 1, "with another source"),
        (f"x.io/a:1{AT}", f"x.io/a:1@{Digest.of(b'')}", 1, "with another source"),
        ("x.io/a:1", "x.io/b:2 => a:1", 13, "with another source"),
        ("x.io/a:1 b.io/a", "x.io/b:2=c.io/a:1", 10, "with another source"),
        ("x.io/a:1", "x.io/a:1 platform=linux/amd64", 1, "for other platforms"),
        ("x.io/a:1 platform=linux/amd64", " x.io/a:1 a platform=linux/arm64", 11, "for other platforms"),
    ],
)
def test_same_destination_of_anything_else_is_refused_naming_both_lines(
    first: str, second: str, column: int, why: str
) -> None:
    problems = refused(f"\n{first}\n\n{second}\n")
    assert problems == [f"images.list:4:{column}: a:1 is already the destination of line 2, {why}"]


def test_every_later_line_of_a_conflict_names_the_first() -> None:
    problems = refused("x.io/a:1\ny.io/a:1\nx.io/a:1\ny.io/a:1\n")
    assert [problem.partition(", ")[0] for problem in problems] == [
        "images.list:2:1: a:1 is already the destination of line 1",
        "images.list:4:1: a:1 is already the destination of line 1",
    ]


def test_same_repository_with_another_tag_is_another_destination() -> None:
    assert len(parsed("x.io/a:1\ny.io/a:2\n").entries) == 2


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("r.io/a", "no tag given, latest is meant"),
        ("r.io/a b:1", "no tag given, latest is meant"),
        ("r.io/a:latest", "`latest` is a moving tag; pin a digest"),
        ("r.io/a:latest b:1", "`latest` is a moving tag; pin a digest"),
    ],
)
def test_latest_without_digest_has_one_note(text: str, note: str) -> None:
    images = parsed(f"\n\n{text}\n")
    assert images.entries[0].source == ImageRef.parse("r.io/a:latest")
    assert images.notes == (f"images.list:3: {note}",)


@pytest.mark.parametrize("text", ["r.io/a:1", f"r.io/a:latest{AT}", f"r.io/a{AT} b:latest", "r.io/a:1 b:latest"])
def test_nothing_is_noted_of_a_source_that_stands_still(text: str) -> None:
    assert parsed(text).notes == ()


def test_every_dropped_host_is_noted_once() -> None:
    why = "is left out: the destination's registry comes from --dest or the archive"
    images = parsed("a:1 x.io/a\nb:1 x.io/b\n\nc:1 y.io:5000/c\nd x.io/d\n")
    assert images.notes == (
        f"images.list:1: x.io {why}",
        f"images.list:4: y.io:5000 {why}",
        "images.list:5: no tag given, latest is meant",
    )


def test_entries_without_a_registry_need_a_source() -> None:
    images = parsed("a:1\nr.io/b:1\nc/d:1 r.io/d\nlocalhost/e:1\n")
    assert [str(entry.source) for entry in need_source(images)] == ["a:1", "c/d:1"]


# --- rewrites

MIRROR = Rewrite(prefix="mirror/")
KEEP = Rewrite(keep_host=True)
BOTH = Rewrite(prefix="a/b/", keep_host=True)


@pytest.mark.parametrize(
    ("rewrite", "line", "repository"),
    [
        (MIRROR, "docker.io/redis:7", "mirror/library/redis"),
        (MIRROR, "team/app:1", "mirror/team/app"),
        (KEEP, "docker.io/redis:7", "docker.io/library/redis"),
        (KEEP, "Registry.local:5000/app:1", "registry.local_5000/app"),
        (KEEP, "localhost/app:1", "localhost/app"),
        (KEEP, "10.0.0.1:80/app:1", "10.0.0.1_80/app"),
        (KEEP, "team/app:1", "team/app"),
        (BOTH, "R.io:443/app:1", "a/b/r.io/app"),
        (BOTH, "r.io:8443/app:1", "a/b/r.io_8443/app"),
    ],
)
def test_line_without_a_destination_is_rewritten(rewrite: Rewrite, line: str, repository: str) -> None:
    (entry,) = parse_images(line.encode(), "images.list", rewrite).entries
    assert entry.dest.repository == repository
    assert entry.text == line


@pytest.mark.parametrize("line", ["r.io/a:1 b/c:2", "r.io/a:1 => r.io/b/c:2", "r.io/a:2=b/c"])
def test_destination_that_a_line_names_is_never_rewritten(line: str) -> None:
    assert parse_images(line.encode(), "images.list", BOTH).entries[0].dest == Destination("b/c", "2")


def test_kept_hosts_do_not_collide() -> None:
    lines = b"x.io/a:1\ny.io/a:1\nx.io:5000/a:1\nx.io-5000/a:1\n"
    assert len(parse_images(lines, "images.list", KEEP).entries) == 4


@pytest.mark.parametrize(
    ("rewrite", "first", "second", "dest"),
    [
        (MIRROR, "a:1", "x.io/b:1 => mirror/a:1", "mirror/a:1"),
        (MIRROR, "x.io/a:1", "y.io/a:1", "mirror/a:1"),
    ],
)
def test_collision_after_a_rewrite_names_both_lines(rewrite: Rewrite, first: str, second: str, dest: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^images\.list:3:\d+: {dest} is already the destination of line 1, with ano"
    ):
        parse_images(f"{first}\n\n{second}\n".encode(), "images.list", rewrite)


@pytest.mark.parametrize("line", ["[::1]:5000/a:1", "a..b/c:1", f"r.io/{'a' * 251}:1"])
def test_rewrite_that_makes_no_repository_is_an_error_of_its_line(line: str) -> None:
    assert parsed(line).entries
    with pytest.raises(UsageError, match=r"^images\.list:2:2: rewrite: gives '.*write a destination$"):
        parse_images(f"ok:1\n {line}\n".encode(), "images.list", KEEP)


def test_failed_list_is_the_lines_as_written() -> None:
    images = parsed("a:1=b # x\n\n  r.io/c:1  d  platform=all\tname=y\n")
    assert failed_list(images.entries) == "a:1=b\nr.io/c:1  d  platform=all\tname=y\n"
    assert failed_list(()) == ""


def test_file_is_read_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "images.list"
    path.write_bytes(b"\xef\xbb\xbfr.io/a:1\r\n")
    images = read_images(str(path), io.BytesIO(b"not read"))
    assert images.name == str(path)
    assert images.entries == (an_entry("r.io/a:1", "a:1", text="r.io/a:1"),)


def test_dash_is_standard_input_which_stays_open() -> None:
    stdin = io.BytesIO(b"r.io/a\n")
    images = read_images("-", stdin)
    assert images.name == "<stdin>"
    assert images.notes == ("<stdin>:1: no tag given, latest is meant",)
    assert not stdin.closed
    with pytest.raises(UsageError, match=r"^<stdin>:1:1: '-x' is not"):
        read_images("-", io.BytesIO(b"-x"))


@pytest.mark.parametrize(
    ("path_of", "why"),
    [
        (lambda base: str(base / "absent"), "No such file or directory"),
        (str, "Is a directory"),
        (lambda base: str(base / "a\x00b"), "null byte"),
        (lambda base: str(base / ("n" * 300)), "File name too long"),
    ],
)
def test_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path, path_of: Callable[[Path], str], why: str) -> None:
    with pytest.raises(UsageError, match=r"^cannot read the list of images '/.*") as caught:
        read_images(path_of(tmp_path), io.BytesIO())
    assert why in caught.value.detail


def test_standard_input_that_is_a_directory_is_a_usage_error() -> None:
    class Unreadable(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise IsADirectoryError(21, "Is a directory")

    with pytest.raises(UsageError, match=r"^cannot read the list of images '<stdin>': Is a directory$"):
        read_images("-", Unreadable())


@pytest.mark.slow
def test_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(UsageError, match=r"^/dev/zero: larger than"):
        read_images("/dev/zero", io.BytesIO())


COMPONENTS = st.from_regex(r"[a-z0-9]{1,5}((_|__|-{1,2})[a-z0-9]{1,3})?", fullmatch=True).map(lambda text: f"x{text}")
HOSTS = st.sampled_from(["r.io", "docker.io", "localhost", "r.example.com:5000", "[::1]:5000"])
PATHS = st.lists(COMPONENTS, min_size=1, max_size=3).map("/".join)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,8}", fullmatch=True)
DIGESTS = st.binary(max_size=3).map(Digest.of)
PLATFORMS = st.lists(
    st.sampled_from([AMD, ARM, Platform("linux", "arm", "v7"), Platform("windows", "amd64")]), unique=True
)
BLANK = st.text(alphabet=" \t", min_size=1, max_size=3)
MAYBE_BLANK = st.text(alphabet=" \t", max_size=3)
SCHEMES = st.sampled_from(["", "docker://"])
LABELS = st.sampled_from(["name=x", "group=a,b", "name=ä#", "group=a=b"])


@st.composite
def spelled_lines(draw: st.DrawFn) -> tuple[str, ImageRef, Destination, tuple[Platform, ...]]:
    """A line in one of its spellings, and what it means."""
    host, digest = draw(st.none() | HOSTS), draw(st.none() | DIGESTS)
    tag = draw(st.none() | TAGS)
    written = f"{host}/{draw(PATHS)}" if host else draw(PATHS)
    written += (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    implied = written if tag or digest else f"{written}:latest"
    source = ImageRef.parse(implied)
    name, dest_tag = source.repository, source.tag
    words = draw(MAYBE_BLANK) + draw(SCHEMES) + written
    if draw(st.booleans()) or dest_tag is None:
        name = draw(PATHS)
        given_tag = draw(TAGS) if dest_tag is None else draw(st.none() | TAGS)
        dest_tag = given_tag or dest_tag
        arrow = draw(MAYBE_BLANK) + draw(st.sampled_from(["=>", "->"])) + draw(MAYBE_BLANK)
        words += draw(st.sampled_from(["=", arrow]) | BLANK) + draw(SCHEMES) + draw(st.sampled_from(["", "h.io/"]))
        words += name + (f":{given_tag}" if given_tag else "")
    platforms = draw(PLATFORMS)
    says_all = draw(st.booleans())
    spelled = ",".join(map(str, platforms)) or "all"
    options = [f"platform={spelled}"] if platforms or says_all else []
    options += draw(st.lists(LABELS, max_size=2, unique_by=lambda label: label.partition("=")[0]))
    words += "".join(draw(BLANK) + option for option in draw(st.permutations(options)))
    words += draw(st.sampled_from(["", " ", " #", "\t# x = y", " # \u00a0"]))
    return words, source, Destination(name, dest_tag or ""), tuple(sorted(platforms))


@pytest.mark.exhaustive
@FIXED
@given(spelled_lines())
def test_line_in_any_spelling_means_what_was_meant(
    spelled: tuple[str, ImageRef, Destination, tuple[Platform, ...]],
) -> None:
    line, source, dest, platforms = spelled
    entry = only(line)
    assert (entry.source, entry.dest, entry.platforms) == (source, dest, platforms)
    assert "#" not in entry.text.replace("name=ä#", "")


@pytest.mark.exhaustive
@FIXED
@given(
    st.lists(spelled_lines(), max_size=5, unique_by=lambda spelled: spelled[2]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)
def test_failed_list_of_a_list_means_the_same(
    spelled: list[tuple[str, ImageRef, Destination, tuple[Platform, ...]]], newline: str, bom: str
) -> None:
    images = parsed(bom + newline.join(line for line, *_ in spelled))
    assert len(images.entries) == len(spelled)
    again = parsed(failed_list(images.entries))
    assert again == ImageList(name="images.list", entries=images.entries, notes=images.notes)


@FIXED
@given(
    st.binary(max_size=80)
    | st.text(alphabet="aB1:/@.-_=>,# \t\r\n\x00é\u00a0\ufeff", max_size=60).map(str.encode)
    | st.lists(
        st.sampled_from(
            ["a", "r.io/b:1", "=>", "->", "=", " ", "\t", "platform=", "name=", "all", ",", "#", "\n", "docker://", AT]
        ),
        max_size=14,
    ).map(lambda parts: "".join(parts).encode())
)
@example(b"\xff\xfe")
@example(b"=")
@example(b",")
@example(b">")
@example(b"a==>b")
@pytest.mark.exhaustive
def test_any_bytes_are_a_list_or_a_usage_error(data: bytes) -> None:
    try:
        images = parsed(data)
    except UsageError:
        return
    for entry in images.entries:
        assert entry.source.tag or entry.source.digest
        assert entry.dest.tag
    assert [it.source for it in parsed(failed_list(images.entries)).entries] == [it.source for it in images.entries]


def test_of_several_bad_lines_each_stands_on_a_line_of_its_own_below_their_number() -> None:
    with pytest.raises(UsageError) as caught:
        parsed("a:1,\nb:1\nC:1\n")
    first, *lines, hint = error_text(caught.value).split("\n")
    assert first == "regwrap: images.list: 2 problems"
    assert [line.partition(": ")[0] for line in lines] == ["  images.list:1:4", "  images.list:3:1"]
    assert hint.startswith("  -> a line is: ")


def test_a_digest_without_a_tag_gets_a_tag_made_of_it_and_one_note() -> None:
    images = parsed(f"r.io/a{AT}\nr.io/b{AT}  name=x\nr.io/c{AT} d:1\n")
    assert [str(entry.dest) for entry in images.entries] == [
        f"a:sha256-{HEX}.untagged",
        f"b:sha256-{HEX}.untagged",
        "d:1",
    ]
    untagged = "a digest without a tag is kept under the tag sha256-….untagged (and in 1 other line)"
    assert images.notes[0] == f"images.list:1: {untagged}"
    assert parsed(failed_list(images.entries)).entries == images.entries


@pytest.mark.parametrize("option", ["--platform=linux/amd64", "--platform linux/amd64"])
def test_the_platform_may_stand_in_front_as_docker_has_it(option: str) -> None:
    line = f"{option} r.io/team/alpine:3.20 # base"
    assert only(line) == an_entry("r.io/team/alpine:3.20", "team/alpine:3.20", AMD, text=line.removesuffix(" # base"))
    assert only(f"{option},linux/arm64 a:1 b:1").platforms == (AMD, ARM)


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("--platform=linux/amd64", 1, "the image is missing after --platform"),
        ("--platform=linux a:1", 12, "expected a platform such as linux/amd64, got 'linux'"),
        ("--platform=linux/amd64 a:1 platform=all", 28, "platform= is given twice"),
        ("--all a:1", 1, "'--all' is not an image; a list has references, not options"),
        ("acme/api v1.0.0", 10, "a tag follows a colon: write 'acme/api:v1.0.0'"),
        ("r.io:5000/api 16-alpine platform=all", 15, "a tag follows a colon: write 'r.io:5000/api:16-alpine'"),
        ("acme/api stable", 10, "a tag follows a colon: write 'acme/api:stable'"),
        ("acme/api 1.0_beta", 10, "a tag follows a colon: write 'acme/api:1.0_beta'"),
        ("acme/api:", 9, "the tag is missing after the colon"),
        ("r.io/tool:{{ .Values.tool.version }}", 11, "a template ({{) is not expanded: render the list first"),
        ("{{ .Values.image }}", 1, "a template ({{) is not expanded"),
        ("r.io/tool:${VERSION}", 11, "a variable (${) is not expanded"),
        ("$REGISTRY/tool:1", 1, "a variable ($R) is not expanded"),
        ("r.io/team/*", 11, "'r.io/team/*' is a pattern; it goes under images: in the configuration, for regwrap lock"),
        ("r.io/team/app:v1.?", 18, "'r.io/team/app:v1.?' is a pattern"),
    ],
)  # fmt: skip
def test_what_stands_in_others_lists_is_refused_with_the_word_that_helps(text: str, column: int, said: str) -> None:
    (problem,) = refused(f"# first\n{text}\n")
    assert problem.startswith(f"images.list:2:{column}: {said}")


def test_a_name_alone_is_still_a_name() -> None:
    assert [str(entry.dest) for entry in parsed("a:1 v2\nacme/api => v1.0.0\nacme/web web\n").entries] == [
        "v2:1", "v1.0.0:latest", "web:latest",
    ]  # fmt: skip


@pytest.mark.parametrize("first", ["team/app:", "r.io:5000/team/app:", "app:"])
def test_a_first_line_whose_tag_is_missing_is_no_yaml(first: str) -> None:
    (problem,) = refused(f"{first}\nr.io/b:1\n")
    assert problem == f"images.list:1:{len(first)}: the tag is missing after the colon"
    assert [entry.line for entry in parsed(f"{first}\n  - x.io/app:1\n".replace("app:\n", "app:1:\n")).entries] == [2]


def test_errors_of_one_kind_are_ten_and_the_number_of_the_others() -> None:
    text = "".join(f"r.io/team{number}/*\n" for number in range(30)) + "B:1\n"
    with pytest.raises(UsageError, match=r"^images\.list: 31 problems$"):
        parsed(text)
    problems = refused(text)
    assert len(problems) == 12
    assert problems[10] == "images.list:11:13: and 20 more of this kind"
    assert problems[11].startswith("images.list:31:1: upper case")


@pytest.mark.exhaustive
def test_a_list_has_a_hundred_thousand_images_and_no_more() -> None:
    """The line of the error tells that each one before it was taken."""
    with pytest.raises(UsageError, match=r":100001: more than 100000 images"):
        parsed("".join(f"a:{number}\n" for number in range(100_001)))


@pytest.mark.parametrize(
    ("text", "url", "dest"),
    [
        ("docker-archive:vendor.tar => third-party/db:9", "docker-archive:vendor.tar", "third-party/db:9"),
        ("docker-archive:/x/vendor.tar:acme/db:9", "docker-archive:/x/vendor.tar:acme/db:9", "acme/db:9"),
        ("docker-archive:v.tar:r.io/acme/db:9 db", "docker-archive:v.tar:r.io/acme/db:9", "db:9"),
        ("oci-archive:m.tar:v2=third-party/m", "oci-archive:m.tar:v2", "third-party/m:v2"),
        ("oci:layout:v1 -> r.io/x/tool:v3", "oci:layout:v1", "x/tool:v3"),
        ("dir:tree/app:v1 => app:v1", "dir:tree/app:v1", "app:v1"),
    ],
)
@pytest.mark.parametrize("digest", ["", AT])
def test_an_archive_is_a_source(text: str, url: str, dest: str, digest: str) -> None:
    entry = only(text.replace(url, f"{url}{digest}", 1))
    assert (str(entry.source), str(entry.dest)) == (f"{url}{digest}", dest)
    assert need_source(parsed(text)) == ()
    assert parsed(failed_list((entry,))).entries == (entry,)


def test_archives_of_one_name_in_a_list_are_two_sources() -> None:
    problems = refused("docker-archive:a.tar => db:9\ndocker-archive:b.tar => db:9\n")
    assert problems == ["images.list:2:25: db:9 is already the destination of line 1, with another source"]
    prefixed = parse_images(b"docker-archive:a.tar:r.io/acme/db:9", "f", Rewrite(prefix="mirror/", keep_host=True))
    assert str(prefixed.entries[0].dest) == "mirror/r.io/acme/db:9"


def test_an_archive_without_its_path_is_an_error_of_its_line() -> None:
    assert refused("a:1\noci-archive: => db:9\n") == [
        "images.list:2:13: expected oci-archive:PATH, the path is missing"
    ]


def test_a_word_of_eighty_characters_is_shown_whole() -> None:
    word = "-" + "x" * 79
    (problem,) = refused(word)
    assert f"'{word}' is not an image" in problem
    (problem,) = refused(f"{word}x")
    assert f"'{word}…' is not an image" in problem


@pytest.mark.parametrize(("length", "shown"), [(80, "x" * 80), (81, "x" * 80 + "…")])
def test_a_path_of_eighty_characters_is_shown_whole(length: int, shown: str) -> None:
    with pytest.raises(UsageError, match=rf"^cannot read the list of images '{shown}': No such file"):
        read_images("x" * length, io.BytesIO())


def test_a_list_that_is_written_says_where_an_image_without_a_tag_goes_and_of_others_nothing() -> None:
    """A destination that stands there is never rewritten."""
    images = [ImageRef.parse(f"r.io/{text}") for text in ("a:1", f"b:1{AT}", f"c{AT}", "d")]
    assert list_text(images, "all").splitlines() == [
        "# all",
        "r.io/a:1",
        f"r.io/b:1{AT}",
        f"r.io/c{AT} => c:sha256-{HEX}.untagged",
        "r.io/d",
    ]


def test_images_of_an_archive_have_the_names_that_they_got_there() -> None:
    text = b"docker.io/library/redis:7 => cache/redis:7.0 platform=linux/amd64\nteam/app@sha256:" + b"a" * 64 + b"\n"
    redis, app = as_archived(parse_images(text, "images.list")).entries
    assert (f"{redis.source}", redis.platforms) == ("cache/redis:7.0", (AMD,))
    assert f"{app.source}" == f"team/app:sha256-{'a' * 64}.untagged@sha256:{'a' * 64}"
