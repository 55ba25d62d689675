"""Every path is where distribution looks for it."""

from regwrap.core.model import Digest
from regwrap.storage.layout import (
    LINK_BYTES,
    blob_path,
    layer_link,
    repository_path,
    revision_link,
    tag_index_link,
    tag_link,
    tag_path,
)

DIGEST = Digest.of(b"x")
HEX = DIGEST.hex
V2 = "docker/registry/v2"


def test_paths_are_those_of_distribution() -> None:
    assert blob_path(DIGEST) == f"{V2}/blobs/sha256/{HEX[:2]}/{HEX}/data"
    assert repository_path("a/b") == f"{V2}/repositories/a/b"
    assert layer_link("a/b", DIGEST) == f"{V2}/repositories/a/b/_layers/sha256/{HEX}/link"
    assert revision_link("a/b", DIGEST) == f"{V2}/repositories/a/b/_manifests/revisions/sha256/{HEX}/link"
    assert tag_path("a/b", "1") == f"{V2}/repositories/a/b/_manifests/tags/1"
    assert tag_link("a/b", "1") == f"{V2}/repositories/a/b/_manifests/tags/1/current/link"
    assert tag_index_link("a/b", "1", DIGEST) == f"{V2}/repositories/a/b/_manifests/tags/1/index/sha256/{HEX}/link"


def test_a_link_has_the_length_of_a_digest() -> None:
    assert len(str(DIGEST)) == LINK_BYTES
