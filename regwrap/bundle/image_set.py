"""Images that are known beforehand, with their bytes: those of a bundle, of a directory's trees, of a layout, or what a
storage has at one moment.

Nothing here is verified but sizes: who copies a blob hashes what is copied.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.by_repository import Piece
from regwrap.bundle.files import Located, read_small
from regwrap.bundle.structure import structure_problems
from regwrap.core.errors import IntegrityError
from regwrap.core.manifest import MAX_MANIFEST_BYTES, Descriptor
from regwrap.core.model import Digest
from regwrap.core.writing import read_file, status_of
from regwrap.storage.hashing import hash_problem, hashed, pieces_at, reading
from regwrap.storage.store import regular_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents, BundleImage
    from regwrap.bundle.merge import Staging
    from regwrap.bundle.read import Bundle
    from regwrap.core.closure import Closure
    from regwrap.core.release_id import ReleaseId

_OR_BASE: Final = "; what it requires may be damaged too: regwrap verify tells where"


@dataclass(frozen=True, kw_only=True)  # no slots: what follows from it is worked out once
class ImageSet:
    """`name` is for messages, `release` what it is, if it is a bundle. `opened(D)` gives a descriptor and where in that
    file the blob's bytes are. `stage_blobs` stages all of them in an order of its own, because they come only once;
    without it each is opened when it is wanted."""

    name: str
    contents: BundleContents
    opened: Callable[[Digest], AbstractContextManager[tuple[int, Located]]]
    release: ReleaseId | None = None
    stage_blobs: Callable[[Staging, Callable[[int], None]], tuple[Digest, ...]] | None = None

    def copy(self, digest: Digest, write: Callable[[memoryview], object] | None = None) -> bool:
        """Whether the blob's bytes are those of the digest; `write` is given them. Safe from several threads."""
        with reading(digest), self.opened(digest) as (descriptor, located):
            return hashed(pieces_at(descriptor, located.offset, located.size), write) == digest

    def read(self, digest: Digest) -> bytes:
        """A small blob, not verified."""
        with reading(digest), self.opened(digest) as (descriptor, located):
            return read_small(descriptor, located, digest)

    def closure(self, image: BundleImage) -> Closure | None:
        """What belongs to one of the images. Raises IntegrityError where its manifests are damaged."""
        return image.closure(self.read)

    @cached_property
    def _tags(self) -> dict[str, dict[str, Digest]]:
        tags: dict[str, dict[str, Digest]] = {}
        for image in self.contents.images:
            tags.setdefault(image.repository, {})[image.tag] = image.digest
        return tags

    @cached_property
    def _manifests(self) -> dict[str, frozenset[Digest]]:
        return {repository.name: frozenset(repository.manifests) for repository in self.contents.repositories}

    @cached_property
    def _layers(self) -> dict[str, frozenset[Digest]]:
        return {repository.name: frozenset(repository.layers) for repository in self.contents.repositories}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self._tags))

    def repositories(self) -> tuple[str, ...]:
        return self._names

    def tags(self, repository: str) -> tuple[str, ...]:
        return tuple(sorted(self._tags.get(repository, ())))

    def repositories_after(self, last: str) -> Iterator[str]:
        return iter(self._names[bisect_right(self._names, last) :])

    def tags_after(self, repository: str, last: str) -> Iterator[str]:
        return (tag for tag in self.tags(repository) if tag > last)

    def resolve(self, repository: str, tag: str) -> Digest | None:
        return self._tags.get(repository, {}).get(tag)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        return self.read(digest) if digest in self._manifests.get(repository, ()) else None

    def config(self, repository: str, _manifest: Digest, blob: Descriptor, /) -> bytes:
        raw = self.read(blob.digest) if blob.digest in self._layers.get(repository, ()) else b""
        return raw if Digest.of(raw) == blob.digest else b""

    def blob(self, repository: str, digest: Digest) -> Piece | None:
        if digest not in self._layers.get(repository, ()):
            return None
        with reading(digest), self.opened(digest) as (opened, located):
            # the very file that was checked, also when another one has its name meanwhile
            descriptor = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY)
            file = os.fdopen(descriptor, "rb", buffering=0)
            return Piece(file=file, offset=located.offset, size=located.size)


def valid_image_set(bundle: Bundle) -> ImageSet:
    """Raises IntegrityError where the bundle is inconsistent."""
    problems = structure_problems(bundle)
    if problems:
        raise IntegrityError(
            f"{bundle.path} is inconsistent",
            problems=tuple(problems),
            hint="copy the bundle again and check it against its .sha256" + _OR_BASE * bool(bundle.base),
        )
    return image_set_of(bundle)


def image_set_of(bundle: Bundle) -> ImageSet:
    return ImageSet(name=bundle.name, contents=bundle.contents, opened=bundle.opened, release=bundle.contents.release)


class BlobFiles(Protocol):
    """Where each blob is a file of its own: in a storage, in a directory of skopeo's, in a layout."""

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a regular file; None for anything else."""

    def open_blob(self, digest: Digest) -> int:
        """A descriptor, which the caller closes. Raises OSError."""

    def read_blob(self, digest: Digest) -> bytes | None:
        """A small one, not verified. Raises IntegrityError where it is too large."""


@dataclass(frozen=True, slots=True)
class PlainFiles:
    """At paths of the user's."""

    path_of: Callable[[Digest], Path]

    def blob_size(self, digest: Digest) -> int | None:
        return regular_size(self.path_of(digest))

    def open_blob(self, digest: Digest) -> int:
        return os.open(self.path_of(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)

    def read_blob(self, digest: Digest) -> bytes | None:
        size = self.blob_size(digest)
        return read_file(self.path_of(digest)) if size is not None and size <= MAX_MANIFEST_BYTES else None


def file_image_set(name: str, contents: BundleContents, files_of: Callable[[Digest], BlobFiles]) -> ImageSet:
    """An image set in which each blob is a file of its own."""

    @contextmanager
    def opened(digest: Digest) -> Iterator[tuple[int, Located]]:
        size = contents.sizes[digest]
        with opened_file(files_of(digest), size, digest) as descriptor:
            yield descriptor, Located(0, size)

    return ImageSet(name=name, contents=contents, opened=opened)


@contextmanager
def opened_file(files: BlobFiles, size: int, digest: Digest) -> Iterator[int]:
    """Raises IntegrityError where there is no regular file of that size."""
    try:
        descriptor = files.open_blob(digest)
    except OSError as error:
        raise IntegrityError(f"blob {digest} cannot be read: {error}") from error
    try:
        status = status_of(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise IntegrityError(f"blob {digest} is not a file of {size} bytes")
        yield descriptor
    finally:
        os.close(descriptor)


def damaged(image_set: ImageSet, wrong: Mapping[Digest, str]) -> IntegrityError:
    return IntegrityError(
        f"{image_set.name} is damaged; nothing was changed",
        problems=tuple(hash_problem(digest, unread=why) for digest, why in wrong.items()),
        hint="copy or build it again; regwrap verify lists all damage",
    )
