"""What is in a bundle: its images with their platforms and sizes, and what each alone needs."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap.bundle.base import BASE_HINT, Base, based
from regwrap.bundle.examine import needs_of
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import known_checksum
from regwrap.bundle.structure import unseen_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents, BundleImage
    from regwrap.bundle.image_set import ImageSet
    from regwrap.core.closure import Closure
    from regwrap.core.model import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedImage:
    """`size` is all that the image needs, `alone` what only this image needs: dropping it saves that much. Bytes.
    `blobs` are all of it, manifests too, with their sizes."""

    image: str
    digest: str
    kind: str
    platforms: tuple[str, ...]
    omitted: int
    size: int
    alone: int
    blobs: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is in a bundle. `name` and `id` are the release's; `sha256` is what the checksum file beside it says. Of
    bytes `blob_bytes` counts each blob once, `file_bytes` is the tar's size. Of a delta `required` of the blobs are not
    in the tar; `since` are the releases that have them, `unseen` images whose manifests are there too, so that nothing
    is known of their sizes."""

    path: str
    name: str
    id: str
    images: tuple[InspectedImage, ...]
    blobs: int
    blob_bytes: int
    file_bytes: int
    required: int = 0
    required_bytes: int = 0
    since: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    sha256: str = ""


def inspect_bundle(path: Path, bases: Sequence[Base] = ()) -> Inspection:
    """What is in a bundle, from bundle.json and the manifests; blobs are not read. `bases` have what a delta
    requires."""
    with opened_bundle(path) as alone:
        bundle = based(alone, bases, hint=BASE_HINT) if bases else alone
        return replace(_inspected(path, bundle.contents, bundle.closure), unseen=unseen_images(bundle))


def inspect_opened(path: Path, image_set: ImageSet) -> Inspection:
    """The same of a bundle that is open, with what its bases have."""
    return _inspected(path, image_set.contents, image_set.closure)


def _inspected(path: Path, contents: BundleContents, closure: Callable[[BundleImage], Closure | None]) -> Inspection:
    sizes = contents.sizes
    needs = {image.name: needs_of(sizes, closure(image)) for image in contents.images}
    users = Counter(digest for found in needs.values() for digest in found)
    return Inspection(
        path=os.fspath(path),
        name=contents.name,
        id=str(contents.id),
        images=tuple(_image(image, needs[image.name], users) for image in contents.images),
        blobs=len(contents.whole.blobs),
        blob_bytes=contents.whole.blob_bytes,
        file_bytes=contents.tar_bytes,
        required=len(contents.required),
        required_bytes=contents.required_bytes,
        since=tuple(sorted({blob.release for blob in contents.required if blob.release})),
        sha256=known_checksum(path),
    )


def _image(image: BundleImage, needs: Mapping[Digest, int], users: Mapping[Digest, int]) -> InspectedImage:
    return InspectedImage(
        image=image.name,
        digest=str(image.digest),
        kind=_kind(image.media_type),
        platforms=tuple(map(str, image.platforms)),
        omitted=len(image.omitted),
        size=sum(needs.values()),
        alone=sum(size for digest, size in needs.items() if users[digest] == 1),
        blobs={str(digest): size for digest, size in needs.items()},
    )


def _kind(media_type: str) -> str:
    family = "docker" if "docker" in media_type else "OCI"
    return f"{family} index" if "index" in media_type or "list" in media_type else f"{family} image"
