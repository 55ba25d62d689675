"""An image in a supplier's file is named as skopeo names it, and by nothing else."""

import pytest

from regwrap.core.archive_ref import ArchiveRef, is_archive
from regwrap.core.model import Destination, Digest, ParseError

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "url", "name", "tag"),
    [
        ("docker-archive:a.tar", "docker-archive:a.tar", None, None),
        ("docker-archive:a.tar:r.io/team/app:1", "docker-archive:a.tar:r.io/team/app:1", "team/app:1", "1"),
        ("oci-archive:/a/b.tar:v1", "oci-archive:/a/b.tar:v1", None, "v1"),
        ("oci:dir:team/app", "oci:dir:team/app", None, None),
        ("oci:dir:-", "oci:dir:-", None, None),
        ("dir:a:b", "dir:a:b", None, None),
    ],
)
@pytest.mark.parametrize("digest", [None, DIGEST])
def test_an_archive_is_what_it_was_read_from(
    text: str, url: str, name: str | None, tag: str | None, digest: Digest | None
) -> None:
    text = f"{text}@{digest}" if digest else text
    archive = ArchiveRef.parse(text)
    assert (archive.url, archive.name, f"{archive}", archive.digest) == (url, url, text, digest)
    own = archive.own_name
    assert (None if own is None else f"{own}") == name
    assert own is None or isinstance(own, Destination)
    assert archive.own_tag == tag
    assert is_archive(text)


@pytest.mark.parametrize(("text", "offset"), [("oci:", 4), ("dir:", 4), ("docker-archive::v1", 15)])
def test_an_archive_without_a_path_says_where_it_is_missing(text: str, offset: int) -> None:
    with pytest.raises(ParseError, match="the path is missing") as raised:
        ArchiveRef.parse(text)
    assert raised.value.offset == offset


def test_what_is_called_like_a_transport_is_no_archive() -> None:
    assert not is_archive("dir/app:1")
    assert not is_archive("my-oci:1")


def test_archives_are_told_in_the_order_of_their_names() -> None:
    texts = [f"{kind}:{path}" for kind in ("dir", "oci") for path in ("a", "b", f"b@{DIGEST}")]
    assert [f"{archive}" for archive in sorted(map(ArchiveRef.parse, reversed(texts)))] == texts
