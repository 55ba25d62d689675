"""What is served, by repository: a bundle through its index of members, or a storage as it is at the moment.

A repository gives what it links to and nothing else, as every registry does. Manifests are hashed before they are
given; a blob's bytes are the client's to hash, and clients do.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

from regwrap.bundle.contents import BundleRepository, Member
from regwrap.bundle.read import Bundle, Located, hash_range
from regwrap.core.model import Descriptor, Digest

if TYPE_CHECKING:
    from regwrap.storage.store import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A blob's bytes: `size` of them from `offset` on in `file`, which whoever takes the piece has to close."""

    file: BinaryIO
    offset: int
    size: int

    def digest(self) -> Digest:
        """Of the bytes themselves. Raises IntegrityError if they were cut off."""
        member = Member(path="", size=self.size, digest=Digest(""))
        return hash_range(self.file.fileno(), Located(member=member, offset=self.offset))


class Contents(Protocol):
    """What a server serves. Names and digests that come in are well-formed."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def repositories(self) -> tuple[str, ...]:
        """Those with a tag, sorted."""

    def tags(self, repository: str) -> tuple[str, ...]:
        """Sorted; empty where there is no such repository."""

    def resolve(self, repository: str, tag: str) -> Digest | None: ...

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        """A manifest of the repository, hashed; None where it is absent or damaged."""

    def config(self, repository: str, blob: Descriptor) -> bytes: ...

    def blob(self, repository: str, digest: Digest) -> Piece | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContents:
    """An open bundle."""

    bundle: Bundle
    _tags: dict[str, dict[str, Digest]] = field(default_factory=dict)
    _links: dict[str, BundleRepository] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._links.update({repository.name: repository for repository in self.bundle.contents.repositories})
        for image in self.bundle.contents.images:
            self._tags.setdefault(image.repository, {})[image.tag] = image.digest

    @property
    def name(self) -> str:
        return str(self.bundle.path)

    def repositories(self) -> tuple[str, ...]:
        return tuple(sorted(self._tags))

    def tags(self, repository: str) -> tuple[str, ...]:
        return tuple(sorted(self._tags.get(repository, ())))

    def resolve(self, repository: str, tag: str) -> Digest | None:
        return self._tags.get(repository, {}).get(tag)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        links = self._links.get(repository)
        raw = self.bundle.read(digest) if links is not None and digest in links.manifests else None
        return raw if raw is not None and Digest.of(raw) == digest else None

    def config(self, repository: str, blob: Descriptor) -> bytes:
        links = self._links.get(repository)
        raw = self.bundle.read(blob.digest) if links is not None and blob.digest in links.layers else None
        return raw if raw is not None and Digest.of(raw) == blob.digest else b""

    def blob(self, repository: str, digest: Digest) -> Piece | None:
        links, located = self._links.get(repository), self.bundle.blobs.get(digest)
        if links is None or located is None or digest not in links.layers:
            return None
        # the very file whose structure was checked, also when another one has its name meanwhile
        descriptor = os.open(f"/proc/self/fd/{self.bundle.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        file = os.fdopen(descriptor, "rb", buffering=0)
        return Piece(file=file, offset=located.offset, size=located.member.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageContents:
    """A storage; what is linked wrongly, or lies there as no regular file, is absent."""

    storage: Storage

    @property
    def name(self) -> str:
        return str(self.storage.root)

    def repositories(self) -> tuple[str, ...]:
        return tuple(name for name in self.storage.repositories() if self.tags(name))

    def tags(self, repository: str) -> tuple[str, ...]:
        return tuple(tag for tag in self.storage.tags(repository) if self.resolve(repository, tag) is not None)

    def resolve(self, repository: str, tag: str) -> Digest | None:
        digest = self.storage.resolve(repository, tag)
        return digest if digest is not None and self.manifest(repository, digest) is not None else None

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        raw = self.storage.read_blob(digest) if self.storage.has_revision(repository, digest) else None
        return raw if raw is not None and Digest.of(raw) == digest else None

    def config(self, repository: str, blob: Descriptor) -> bytes:
        return self.storage.read_config(blob) if self.storage.has_layer(repository, blob.digest) else b""

    def blob(self, repository: str, digest: Digest) -> Piece | None:
        if not self.storage.has_layer(repository, digest):
            return None
        try:
            # a fifo or a symbolic link in a blob's place must neither hang nor lead away
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(self.storage.blob_path(digest), flags)
        except OSError:
            return None
        file, status = os.fdopen(descriptor, "rb", buffering=0), os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return Piece(file=file, offset=0, size=status.st_size)
        file.close()
        return None


class End(Protocol):
    """One end of a sync, as far as it is only looked at."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def resolve(self, repository: str, tag: str) -> Digest | None: ...

    def manifest(self, repository: str, digest: Digest) -> bytes | None: ...

    def config(self, repository: str, blob: Descriptor) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageEnd:
    """A storage directory: tag links and files are read directly, no server is asked."""

    name: str
    storage: Storage

    def resolve(self, repository: str, tag: str) -> Digest | None:
        return self.storage.resolve(repository, tag)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        return self.storage.read_blob(digest) if self.storage.has_revision(repository, digest) else None

    def tags(self, repository: str) -> tuple[str, ...]:
        return self.storage.tags(repository)

    def repositories(self) -> tuple[str, ...]:
        return tuple(self.storage.repositories())

    def config(self, repository: str, blob: Descriptor) -> bytes:
        return self.storage.read_config(blob)
