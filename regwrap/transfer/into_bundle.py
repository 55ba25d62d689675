"""Copy images straight into a bundle's file: each blob from its source to its place there, hashed before it counts.

What an archive has is copied in the kernel; what only skopeo can ask for comes by way of a small stage.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.image_set import ImageSet
from regwrap.core.errors import IntegrityError
from regwrap.core.writing import UnreadableError, write_all_at
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.storage.hashing import reading
from regwrap.tools.skopeo import Remote
from regwrap.transfer.fetch import damaged_on_the_way
from regwrap.transfer.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from regwrap.bundle.in_place import BundleInPlace
    from regwrap.core.manifest import Descriptor
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.transfer.by_curl import BlobSource
    from regwrap.transfer.fetch import ImageFetcher, Stage
    from regwrap.transfer.needs import Need
    from regwrap.transfer.plan import Copy


@dataclass(slots=True, kw_only=True)
class BundleDestination:
    """`archive` has blobs already; `hashed=False` believes it. `fetcher` fetches into `stage` what only skopeo can."""

    file: BundleInPlace
    archive: StorageSource
    source_of: Callable[[ImageEntry], BlobSource]
    hashed: bool
    stage: Stage
    fetcher: ImageFetcher
    exclusive_repositories: bool = False
    alone: bool = False
    _meter: Meter = field(default_factory=Meter)

    # --- as the destination of a run of blobs

    def keep(self) -> None:
        """The file itself is what is kept, by who writes it."""

    def wanted(self, copy: Copy) -> Sequence[Descriptor]:
        return copy.closure.blobs

    def lane(self, _copy: Copy, /) -> str:
        return ""

    def sources_of(self, need: Need) -> Iterator[tuple[BlobSource, str]]:
        if self.archive.storage.blob_size(need.blob.digest) == need.blob.size:
            yield self.archive, ""
        for copy in need.copies:
            yield self.source_of(copy.entry), copy.entry.source.repository

    def check_room(self, copy: Copy) -> None:
        """There is room for all, or nothing was begun."""

    def may_have(self, need: Need) -> bool:
        digest = need.blob.digest
        if digest not in self.file.places:  # a delta leaves it out
            return True
        return digest in self.file.proved or self.file.arrived.get(digest, 0) == need.blob.size

    def has(self, need: Need) -> bool:
        digest = need.blob.digest
        if digest not in self.file.places or digest in self.file.proved:
            return True
        with suppress(UnreadableError):  # of what an earlier run has left: it comes once more
            return self.file.is_valid(digest)
        self.forget(need.blob)
        return False

    def accept(self, blob: Descriptor) -> bool:
        return self.file.is_valid(blob.digest)

    def copy_here(self, source: BlobSource, blob: Descriptor) -> int:
        """What the archive has is not sent. Raises ToolError and IntegrityError."""
        if isinstance(source, StorageSource):
            self._copy_file(source, blob)
        elif isinstance(source, ImageSet):
            self._copy_hashed(source, blob)
        if source is not self.archive:
            return blob.size
        self.file.reused += blob.size
        return 0

    def finish(self, copies: Sequence[Copy]) -> None:
        """Links are in the file from the start; it has no name before all blobs are there."""

    def prove(self, copy: Copy) -> None:
        """Each blob was."""

    # --- as what curl writes to

    def arrived(self, blob: Descriptor) -> int:
        return self.file.arrived.get(blob.digest, 0)

    def place(self, blob: Descriptor) -> int:
        return self.file.places[blob.digest].offset

    def open_part(self, _blob: Descriptor, /) -> int:
        return os.open(self.file.part.opened, os.O_WRONLY)

    def came(self, blob: Descriptor, count: int) -> None:
        self.file.arrived[blob.digest] = self.arrived(blob) + count

    def forget(self, blob: Descriptor) -> None:
        self.file.arrived[blob.digest] = 0

    # --- image by image, what only skopeo can ask for

    def copy_image(self, copy: Copy) -> None:
        for blob in copy.closure.blobs:
            if blob.digest in self.file.places:
                self._meter.add(copy, self._copy_blob(copy, blob))

    def sent(self, copy: Copy) -> int:
        return self._meter.of(copy)

    def bytes_under_way(self) -> int:
        return self.fetcher.bytes_under_way()

    def _copy_blob(self, copy: Copy, blob: Descriptor) -> int:
        if blob.digest in self.file.proved:
            return 0
        source = self.source_of(copy.entry)
        if not isinstance(source, RegistryEndpoint):
            return self.copy_here(source, blob)
        leaf = next(leaf for leaf in copy.closure.leaves if blob in leaf.blobs)
        missing = [one for one in leaf.blobs if one.digest in self.file.places and one.digest not in self.file.proved]
        remote = Remote(registry=source.registry, repository=copy.entry.source.repository, reference=leaf.digest)
        self.fetcher.fetch(remote, leaf, missing)
        for one in missing:
            self._copy_staged(one)
        return sum(one.size for one in missing)

    def _copy_staged(self, blob: Descriptor) -> None:
        name = self.stage.blob(blob.digest)
        descriptor = self.stage.tree.open(name)
        try:
            self.file.copy(blob.digest, descriptor, 0)
        finally:
            os.close(descriptor)
        self.stage.remove(name)
        self.file.trust(blob.digest)

    def _copy_file(self, source: StorageSource, blob: Descriptor) -> None:
        descriptor = source.storage.open_blob(blob.digest)
        try:
            with reading(blob.digest):
                self.file.copy(blob.digest, descriptor, 0)
        finally:
            os.close(descriptor)
        if not self.hashed and source is self.archive:
            self.file.trust(blob.digest)
        elif not self.file.is_valid(blob.digest):
            raise IntegrityError(
                f"blob {blob.digest.short} is damaged in {source.name}", hint=f"regwrap verify {source.name}"
            )

    def _copy_hashed(self, source: ImageSet, blob: Descriptor) -> None:
        position = self.file.places[blob.digest].offset

        def write(piece: memoryview) -> None:
            nonlocal position
            write_all_at(self.file.part.descriptor, piece, position)
            position += len(piece)

        if not source.copy(blob.digest, write):
            raise damaged_on_the_way(source.name, blob, blob.size)
        self.file.trust(blob.digest)
