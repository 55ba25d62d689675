"""The paths of distribution's v2 layout (registry/storage/paths.go). Pure; paths are relative to the root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from regwrap.core.model import Digest

V2: Final = "docker/registry/v2"
BLOBS: Final = f"{V2}/blobs/sha256"
REPOSITORIES: Final = f"{V2}/repositories"
LINK_BYTES: Final = 71  # "sha256:" + 64 hex digits, no newline: the registry answers 500 to anything else


def blob_path(digest: Digest) -> str:
    return f"{BLOBS}/{digest.hex[:2]}/{digest.hex}/data"


def repository_path(repository: str) -> str:
    return f"{REPOSITORIES}/{repository}"


def layer_link(repository: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{repository}/_layers/sha256/{digest.hex}/link"


def revision_link(repository: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{repository}/_manifests/revisions/sha256/{digest.hex}/link"


def tag_path(repository: str, tag: str) -> str:
    """The directory of a tag: a registry lists the tag as soon as it is there."""
    return f"{REPOSITORIES}/{repository}/_manifests/tags/{tag}"


def tag_index_link(repository: str, tag: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{repository}/_manifests/tags/{tag}/index/sha256/{digest.hex}/link"


def tag_link(repository: str, tag: str) -> str:
    """The link that says what a tag is now."""
    return f"{REPOSITORIES}/{repository}/_manifests/tags/{tag}/current/link"
