"""Path <-> meaning in distribution's v2 layout (registry/storage/paths.go). Pure; paths are relative to the root."""

import re
from dataclasses import dataclass
from typing import Final

from regwrap.model import Digest, is_repository, is_tag

V2: Final = "docker/registry/v2"
BLOBS: Final = f"{V2}/blobs/sha256"
REPOSITORIES: Final = f"{V2}/repositories"
LINK_BYTES: Final = 71  # "sha256:" + 64 hex digits, no newline: the registry answers 500 to anything else

_BLOB: Final = re.compile(rf"{BLOBS}/([0-9a-f]{{2}})/([0-9a-f]{{64}})/data")
_LAYER: Final = re.compile(rf"{REPOSITORIES}/(.+)/_layers/sha256/([0-9a-f]{{64}})/link")
_REVISION: Final = re.compile(rf"{REPOSITORIES}/(.+)/_manifests/revisions/sha256/([0-9a-f]{{64}})/link")
_TAG: Final = re.compile(rf"{REPOSITORIES}/(.+)/_manifests/tags/([^/]+)/current/link")
_TAG_INDEX: Final = re.compile(rf"{REPOSITORIES}/(.+)/_manifests/tags/([^/]+)/index/sha256/([0-9a-f]{{64}})/link")


@dataclass(frozen=True, slots=True)
class BlobFile:
    digest: Digest


@dataclass(frozen=True, slots=True)
class LayerLink:
    repository: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class RevisionLink:
    repository: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagLink:
    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class TagIndexLink:
    repository: str
    tag: str
    digest: Digest


Entry = BlobFile | LayerLink | RevisionLink | TagLink | TagIndexLink


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


def parse_path(path: str) -> Entry | None:
    """What a path means, or None where the layout has no such file."""
    if match := _BLOB.fullmatch(path):
        return BlobFile(Digest(match[2])) if match[2].startswith(match[1]) else None
    for pattern, kind in ((_LAYER, LayerLink), (_REVISION, RevisionLink)):
        if match := pattern.fullmatch(path):
            return kind(match[1], Digest(match[2])) if is_repository(match[1]) else None
    if match := _TAG.fullmatch(path):
        return TagLink(match[1], match[2]) if is_repository(match[1]) and is_tag(match[2]) else None
    if match := _TAG_INDEX.fullmatch(path):
        named = is_repository(match[1]) and is_tag(match[2])
        return TagIndexLink(match[1], match[2], Digest(match[3])) if named else None
    return None
