"""A release is a list as well: its images with their digests, from a bundle, its bundle.json, or a receipt."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from regwrap.bundle.contents import BUNDLE_JSON, MAX_BUNDLE_JSON_BYTES, BundleContents, BundleImage, parse_contents
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.receipt import MAX_RECEIPT_BYTES, RECEIPT_HEAD, parse_receipt
from regwrap.bundle.write import MAGIC
from regwrap.core.errors import IntegrityError
from regwrap.core.model import Destination, ImageRef
from regwrap.core.writing import is_there, named_on_error
from regwrap.lists.imagelist import HOST_IS_DROPPED, ImageEntry, ImageList, Rewrite, read_images
from regwrap.lists.lock import LockedImage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regwrap.bundle.read import Bundle
    from regwrap.core.model import Digest

_HEAD_BYTES: Final = 512
_BUNDLE_HEAD: Final = f"{BUNDLE_JSON}\0".encode()
_JSON_HEAD: Final = b'{\n "blobs": ['  # its form is canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a file that says images says beyond them: `contents` of a release, its `bundle`, open as long as the block;
    `blobs` with their sizes. None where it is no such file."""

    images: ImageList
    contents: BundleContents | None = None
    bundle: Bundle | None = None
    blobs: Mapping[Digest, int] | None = None


@contextmanager
def opened_listing(path: str, stdin: BinaryIO, rewrite: Rewrite = HOST_IS_DROPPED) -> Iterator[Listing]:
    """All that the file says, for the block. Raises as `read_listing` does."""
    head = b"" if path == "-" else _head_of(path)
    if head.startswith(RECEIPT_HEAD):
        images, blobs = _of_receipt(path)
        yield Listing(images=images, blobs=blobs)
    elif head.startswith(_BUNDLE_HEAD) and head[257:265] == MAGIC:
        with opened_bundle(Path(path)) as bundle:
            yield _listing(path, bundle.contents, bundle)
    elif head.startswith(_JSON_HEAD):
        yield _listing(path, _of_json(Path(path)), None)
    else:
        yield Listing(images=read_images(path, stdin, rewrite))


def _listing(path: str, contents: BundleContents, bundle: Bundle | None) -> Listing:
    return Listing(images=listing_of(contents, path), contents=contents, bundle=bundle, blobs=contents.sizes)


def read_listing(path: str, stdin: BinaryIO, rewrite: Rewrite = HOST_IS_DROPPED) -> ImageList:
    """The images that the file `path` names: a list, a lock, a bundle, its bundle.json or a receipt; `-` is a list on
    standard input. `rewrite` does not concern a release, whose names are what they are. Raises UsageError,
    IntegrityError."""
    with opened_listing(path, stdin, rewrite) as listing:
        return listing.images


def listing_of(contents: BundleContents, name: str) -> ImageList:
    return ImageList(name=name, entries=tuple(map(_entry, contents.images)), notes=(), release=contents.release)


def _head_of(path: str) -> bytes:
    """How the file begins; empty where it can't be opened, which the reader of lists says better."""
    try:
        file_path = Path(path)
        if not is_there(file_path):
            file_path = _first_volume(file_path)
        if not file_path.is_file():  # a list may come through a pipe, of which nothing must be taken away
            return b""
        with file_path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return b""


def _first_volume(path: Path) -> Path:
    """Where a bundle is there in volumes; the path itself where it is not. Raises UsageError where some are missing."""
    from regwrap.bundle.volumes import found_volumes, missing_volumes  # most lists are files

    volumes = found_volumes(path)
    if volumes is not None and volumes.missing:
        raise missing_volumes(volumes)
    return path if volumes is None else volumes.places[volumes.volumes[0].name]


def _of_receipt(path: str) -> tuple[ImageList, dict[Digest, int]]:
    with named_on_error(Path(path).open("rb")) as file:
        return parse_receipt(file.read(MAX_RECEIPT_BYTES + 1), path)


def _of_json(path: Path) -> BundleContents:
    with named_on_error(path.open("rb")) as file:
        data = file.read(MAX_BUNDLE_JSON_BYTES + 1)
    try:
        return parse_contents(data)
    except IntegrityError as error:
        hint = error.hint or "take bundle.json out of the bundle again, or give the bundle itself"
        raise IntegrityError(f"{path}: {error.message}", detail=error.detail, hint=hint) from error


def _entry(image: BundleImage) -> ImageEntry:
    source = ImageRef(registry=None, repository=image.repository, tag=image.tag, digest=image.digest)
    dest = Destination(image.repository, image.tag)
    platforms = image.platforms if image.omitted else ()
    line = LockedImage(source=source, dest=dest, chosen=platforms, platforms=platforms, size=None).line
    return ImageEntry(source=source, dest=dest, platforms=platforms, line=0, text=line, locked=True)
