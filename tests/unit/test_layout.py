"""Every path the layout makes is read back as what it was, and nothing else is taken for one."""

import pytest

from regwrap.model import Digest
from regwrap.storage.layout import (
    LINK_BYTES,
    BlobFile,
    Entry,
    LayerLink,
    RevisionLink,
    TagIndexLink,
    TagLink,
    blob_path,
    layer_link,
    parse_path,
    repository_path,
    revision_link,
    tag_index_link,
    tag_link,
)

DIGEST = Digest.of(b"x")
HEX = DIGEST.hex
V2 = "docker/registry/v2"
REPOSITORIES = ["a", "a/b/c", "tags/list", "a/blobs", "x/blobs/uploads", "current/link", "library/a-b.c__d"]


def test_paths_are_those_of_distribution() -> None:
    assert blob_path(DIGEST) == f"{V2}/blobs/sha256/{HEX[:2]}/{HEX}/data"
    assert repository_path("a/b") == f"{V2}/repositories/a/b"
    assert layer_link("a/b", DIGEST) == f"{V2}/repositories/a/b/_layers/sha256/{HEX}/link"
    assert revision_link("a/b", DIGEST) == f"{V2}/repositories/a/b/_manifests/revisions/sha256/{HEX}/link"
    assert tag_link("a/b", "1") == f"{V2}/repositories/a/b/_manifests/tags/1/current/link"
    assert tag_index_link("a/b", "1", DIGEST) == f"{V2}/repositories/a/b/_manifests/tags/1/index/sha256/{HEX}/link"


def test_a_link_has_the_length_of_a_digest() -> None:
    assert len(str(DIGEST)) == LINK_BYTES


@pytest.mark.parametrize("repository", REPOSITORIES)
@pytest.mark.parametrize("tag", ["1", "latest", "index", "current", "v1.0-rc_1"])
def test_parsing_is_the_way_back(repository: str, tag: str) -> None:
    pairs: list[tuple[str, Entry]] = [
        (blob_path(DIGEST), BlobFile(DIGEST)),
        (layer_link(repository, DIGEST), LayerLink(repository, DIGEST)),
        (revision_link(repository, DIGEST), RevisionLink(repository, DIGEST)),
        (tag_link(repository, tag), TagLink(repository, tag)),
        (tag_index_link(repository, tag, DIGEST), TagIndexLink(repository, tag, DIGEST)),
    ]
    assert [parse_path(path) for path, _ in pairs] == [entry for _, entry in pairs]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/" + blob_path(DIGEST),
        blob_path(DIGEST) + "\n",
        blob_path(DIGEST).removesuffix("/data"),
        f"{V2}/blobs/sha256/zz/{HEX}/data",
        f"{V2}/blobs/sha256/{'0' if HEX[0] != '0' else '1'}{HEX[1]}/{HEX}/data",
        blob_path(DIGEST).upper(),
        layer_link("A", DIGEST),
        layer_link("../a", DIGEST),
        layer_link("a//b", DIGEST),
        layer_link("a/_layers", DIGEST),
        layer_link("a\nb", DIGEST),
        layer_link("a" * 256, DIGEST),
        layer_link("a", DIGEST).replace("link", "data"),
        revision_link("a/.b", DIGEST),
        tag_link("a", ".nfs0001"),
        tag_link("a", "bad tag"),
        tag_link("a", "t" * 129),
        tag_link("a", "..") ,
        tag_index_link("_a", "1", DIGEST),
        f"{V2}/repositories/a/_uploads/0/data",
        f"{V2}/repositories/a/_manifests/tags/current/link",
    ],
)  # fmt: skip
def test_other_paths_mean_nothing(path: str) -> None:
    assert parse_path(path) is None
