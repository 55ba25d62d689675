"""Which files an export has: decided as a value before anything is written. Pure.

`dir` has a directory REPOSITORY:TAG for each image, as `skopeo sync` names them: a plain REPOSITORY/TAG would put the
images of a repository `app/v1` into the directory of the image `app:v1`. `oci` is one layout with all images.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from regwrap.bundle.discovery import MANIFEST, VERSION, VERSION_BYTES, child_manifest
from regwrap.core import ocilayout
from regwrap.core.closure import Closure, Fetch, closure_of
from regwrap.core.errors import IntegrityError
from regwrap.core.hosts import DOCKER_HUB
from regwrap.core.model import Digest
from regwrap.core.ocilayout import LayoutEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.contents import BundleContents, BundleImage


class Form(StrEnum):
    """How an export looks."""

    DIR = "dir"
    OCI = "oci"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFile:
    """A file: a blob of the image set or, where `data` is set, that."""

    path: str
    digest: Digest
    size: int
    data: bytes | None = None


def tree_files(contents: BundleContents, fetch: Fetch, form: Form) -> tuple[TreeFile, ...]:
    """The export's files, sorted by path. Raises IntegrityError where a manifest is damaged."""
    make = _dir_files if form is Form.DIR else _layout_files
    return tuple(sorted(make(contents, fetch), key=lambda file: file.path))


def _dir_files(contents: BundleContents, fetch: Fetch) -> Iterator[TreeFile]:
    for image in contents.images:
        closure = _closure(image, fetch)
        yield _own(f"{image.name}/{VERSION}", VERSION_BYTES)
        for manifest in closure.manifests:
            name = MANIFEST if manifest.digest == image.digest else child_manifest(manifest.digest)
            yield TreeFile(path=f"{image.name}/{name}", digest=manifest.digest, size=len(manifest.raw))
        for blob in closure.blobs:
            yield TreeFile(path=f"{image.name}/{blob.digest.hex}", digest=blob.digest, size=blob.size)


def _closure(image: BundleImage, fetch: Fetch) -> Closure:
    left_out = set(image.omitted)
    closure = closure_of(image.digest, lambda digest: None if digest in left_out else fetch(digest))
    if closure is None:
        raise IntegrityError(f"{image.name}: its manifest {image.digest} is missing")
    return closure


def _layout_files(contents: BundleContents, _fetch: Fetch) -> Iterator[TreeFile]:
    sizes = dict(contents.blobs)
    entries = tuple(
        LayoutEntry(
            name=image.name,
            media_type=image.media_type,
            digest=image.digest,
            size=sizes[image.digest],
            containerd=containerd_name(image.name),
        )
        for image in contents.images
    )
    yield _own(ocilayout.MARK, ocilayout.MARK_BYTES)
    yield _own(ocilayout.INDEX, ocilayout.index_bytes(entries))
    for digest, size in contents.blobs:
        yield TreeFile(path=ocilayout.blob_path(digest), digest=digest, size=size)


def containerd_name(name: str) -> str:
    """What containerd calls an image: with the registry that its name begins with, else Docker Hub, which is what a
    reference without one means to it."""
    first, slash, _rest = name.partition("/")
    if slash and ("." in first or first == "localhost"):
        host, _, port = first.partition("_")  # as keep_host writes a port
        return f"{host}:{port}{name[len(first) :]}" if port.isdigit() else name
    return f"{DOCKER_HUB}/{'' if slash else 'library/'}{name}"


def _own(path: str, data: bytes) -> TreeFile:
    return TreeFile(path=path, digest=Digest.of(data), size=len(data), data=data)
