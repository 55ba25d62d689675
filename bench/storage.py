"""A docker-registry storage directory on disk, as far as the benchmark writes and reads it.

Link files hold exactly `sha256:HEX`, without a newline: the registry answers 500 to anything else.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from content import Blob, blob_of

_V2: Final = PurePosixPath("docker/registry/v2")


def blob_path(hex_digest: str) -> PurePosixPath:
    """Relative to the storage's root."""
    return _V2 / "blobs/sha256" / hex_digest[:2] / hex_digest / "data"


def add_blob(root: Path, data: bytes) -> Blob:
    blob = blob_of(data)
    path = root / blob_path(blob.hex)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return blob


def link_layers(root: Path, repository: str, blobs: Iterable[Blob]) -> None:
    for blob in blobs:
        _link(_repository(root, repository) / "_layers/sha256" / blob.hex, blob)


def link_manifest(root: Path, repository: str, manifest: Blob) -> None:
    revisions = _repository(root, repository) / "_manifests/revisions/sha256"
    _link(revisions / manifest.hex, manifest)


def set_tag(root: Path, repository: str, tag: str, manifest: Blob) -> None:
    tags = _repository(root, repository) / "_manifests/tags" / tag
    _link(tags / "index/sha256" / manifest.hex, manifest)
    _link(tags / "current", manifest)


def tag_path(repository: str, tag: str) -> PurePosixPath:
    """Relative to the storage's root: the link that says which manifest the tag is now."""
    return _V2 / "repositories" / repository / "_manifests/tags" / tag / "current/link"


def tag_digest(root: Path, repository: str, tag: str) -> str | None:
    path = root / tag_path(repository, tag)
    return path.read_text() if path.is_file() else None


def copy_part(source: Path, blobs: Iterable[str], dest: Path) -> None:
    """A storage of these blobs, hard-linked, and of all links to them."""
    kept = set()
    for path in blobs:
        kept.add(f"sha256:{PurePosixPath(path).parent.name}")
        (dest / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(source / path, dest / path)
    for link in (source / _V2 / "repositories").rglob("link"):
        if (text := link.read_text()) in kept:
            copy = dest / link.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text)


def absent_blobs(root: Path, paths: Iterable[str], source: Path) -> Iterator[str]:
    """The blobs of `source` that `root` does not hold with the same size."""
    for path in paths:
        there = root / path
        if not there.is_file() or there.stat().st_size != (source / path).stat().st_size:
            yield path


def _repository(root: Path, repository: str) -> Path:
    return root / _V2 / "repositories" / repository


def _link(directory: Path, blob: Blob) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "link").write_text(f"sha256:{blob.hex}")
