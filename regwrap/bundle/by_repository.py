"""Images with their bytes somewhere, asked by repository: what every kind of source can do, and a living storage.

A repository gives what it links to and nothing else, as every registry does. Bytes are not verified here: who takes
them hashes them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from regwrap.core.errors import IntegrityError, LostBlobError
from regwrap.core.model import Digest
from regwrap.core.writing import status_of
from regwrap.storage.hashing import hash_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.core.manifest import Descriptor
    from regwrap.storage.store import Storage


class ImageSource(Protocol):
    """Images to look at. Names and digests that come in are well-formed."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def repositories(self) -> tuple[str, ...]:
        """Sorted."""

    def tags(self, repository: str) -> tuple[str, ...]:
        """Sorted; empty where there is no such repository."""

    def resolve(self, repository: str, tag: str) -> Digest | None: ...

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        """A manifest of the repository, not verified."""

    def config(self, repository: str, manifest: Digest, blob: Descriptor, /) -> bytes:
        """The bytes of a manifest's config, verified; empty where it is not there."""


class LocalSource(ImageSource, Protocol):
    """Images whose blobs lie in files of this machine."""

    def repositories_after(self, last: str) -> Iterator[str]:
        """Those whose names are behind `last`, sorted, found one by one: a page costs what it shows."""

    def tags_after(self, repository: str, last: str) -> Iterator[str]:
        """The same for the tags of a repository."""

    def blob(self, repository: str, digest: Digest) -> Piece | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A blob's bytes: `size` of them from `offset` on in `file`, which whoever takes the piece has to close."""

    file: BinaryIO
    offset: int
    size: int

    def digest(self) -> Digest:
        """Of the bytes themselves. Raises IntegrityError if they were cut off."""
        return hash_at(self.file.fileno(), self.offset, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSource:
    """A storage as it is at the moment: links and files are read directly, no server is asked. What is linked wrongly,
    or lies there as no regular file, is absent."""

    name: str
    storage: Storage

    def repositories(self) -> tuple[str, ...]:
        return tuple(self.repositories_after(""))

    def tags(self, repository: str) -> tuple[str, ...]:
        return tuple(self.tags_after(repository, ""))

    def repositories_after(self, last: str) -> Iterator[str]:
        names = (name for name in self.storage.repositories() if name > last)
        return (name for name in names if any(self.tags_after(name, "")))

    def tags_after(self, repository: str, last: str) -> Iterator[str]:
        return (tag for tag in self.storage.tags(repository, last) if self._has_manifest(repository, tag))

    def _has_manifest(self, repository: str, tag: str) -> bool:
        digest = self.resolve(repository, tag)
        try:
            raw = None if digest is None else self.manifest(repository, digest)
        except LostBlobError:
            return True  # whoever asks for it is told
        except IntegrityError:  # too large for one
            return False
        return raw is not None and Digest.of(raw) == digest

    def resolve(self, repository: str, tag: str) -> Digest | None:
        return self.storage.resolve(repository, tag)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        return self.storage.read_blob(digest) if self.storage.has_revision(repository, digest) else None

    def config(self, repository: str, _manifest: Digest, blob: Descriptor, /) -> bytes:
        return self.storage.read_config(blob) if self.storage.has_layer(repository, blob.digest) else b""

    def blob(self, repository: str, digest: Digest) -> Piece | None:
        if not self.storage.has_layer(repository, digest):
            return None
        try:
            descriptor = self.storage.open_blob(digest)
        except OSError:
            return None
        status = status_of(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return None
        return Piece(file=os.fdopen(descriptor, "rb", buffering=0), offset=0, size=status.st_size)
