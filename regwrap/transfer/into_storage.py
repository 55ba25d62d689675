"""Run one Copy into a storage: fetch missing blobs, prove them by hashing, make the image visible.

No registry stands in the way: blobs come into a stage and are hashed there; `storage.commit` moves them in. That also
copies what skopeo cannot push: docker lists with their digest kept, nested indexes, some platforms of an index. Copies
into a registry are in `into_registry` and `by_skopeo`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.image_set import ImageSet
from regwrap.core.errors import IntegrityError, ToolError
from regwrap.core.manifest import Descriptor, Index, Manifest
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.storage.commit import Additions, GroupCommit
from regwrap.storage.hashing import copy_range, reading, write_all
from regwrap.storage.space import need_space
from regwrap.tools.skopeo import Remote
from regwrap.transfer.fetch import ImageFetcher, Stage, damaged_on_the_way
from regwrap.transfer.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from regwrap.lists.imagelist import ImageEntry
    from regwrap.storage.store import Storage, ValidBlobs
    from regwrap.transfer.by_curl import BlobSource
    from regwrap.transfer.needs import Need
    from regwrap.transfer.plan import Copy

_SHOWN: Final = 3


@dataclass(slots=True, kw_only=True)
class StorageDestination:
    """Into a storage directory. `stage` lies on the storage's file system and is this run's alone (the lock); blobs of
    an earlier run that was killed may be in it: they count once they are hashed. `fetcher` is for registries."""

    storage: Storage
    stage: Stage
    source_of: Callable[[ImageEntry], BlobSource]
    fetcher: ImageFetcher
    commit: GroupCommit
    valid: ValidBlobs
    exclusive_repositories: bool = False
    alone: bool = False
    _meter: Meter = field(default_factory=Meter)

    def copy_image(self, copy: Copy) -> None:
        self.check_room(copy)
        try:
            for leaf in copy.closure.leaves:
                self._copy_blobs(copy, leaf)
            self.finish((copy,))
        except BaseException:
            self.stage.is_wanted = True
            raise
        self.prove(copy)

    def sent(self, copy: Copy) -> int:
        return self._meter.of(copy)

    def finish(self, copies: Sequence[Copy]) -> None:
        """Make images visible whose blobs are all in the storage or in the stage. Raises ToolError, IntegrityError."""
        try:
            self._commit(copies)
        except FileNotFoundError as error:
            # another copy that found the same damage has moved the blob in meanwhile
            names = ", ".join(f"{copy.entry.dest}" for copy in copies[:_SHOWN])
            raise ToolError(f"{names}: a staged file disappeared", detail=str(error), transient=True) from error

    def prove(self, copy: Copy) -> None:
        """Raises IntegrityError where the image is not what its tag shows."""
        if self.storage.resolve(copy.entry.dest.repository, copy.entry.dest.tag) != copy.digest:
            raise IntegrityError(f"{copy.entry.dest} does not point to {copy.digest} after the copy")

    def keep(self) -> None:
        self.stage.is_wanted = True

    def wanted(self, copy: Copy) -> Sequence[Descriptor]:
        """All: what is there already is looked at."""
        return copy.closure.blobs

    def lane(self, _copy: Copy, /) -> str:
        """One commit at a time."""
        return ""

    def sources_of(self, need: Need) -> Iterator[tuple[BlobSource, str]]:
        return ((self.source_of(copy.entry), copy.entry.source.repository) for copy in need.copies)

    def check_room(self, copy: Copy) -> None:
        """Raises ToolError where what is missing of the image has none."""
        need_space(self.stage.tree.root, copy.bytes_missing, at=self.stage.tree.descriptor)

    def may_have(self, need: Need) -> bool:
        return need.is_there or self.stage.tree.stat(self.stage.blob(need.blob.digest)) is not None

    def has(self, need: Need) -> bool:
        return self.valid.has(need.blob) if need.is_there else self.stage.has(need.blob)

    def accept(self, blob: Descriptor) -> bool:
        return self.stage.accept_part(blob)

    def bytes_under_way(self) -> int:
        return self.fetcher.bytes_under_way()

    def _copy_blobs(self, copy: Copy, leaf: Manifest) -> None:
        blobs = {blob.digest: blob for blob in leaf.blobs}.values()
        absent = [blob for blob in blobs if not self.valid.has(blob) and not self.stage.has(blob)]
        if not absent:
            return
        source, repository = self.source_of(copy.entry), copy.entry.source.repository
        try:
            if isinstance(source, RegistryEndpoint):
                remote = Remote(registry=source.registry, repository=repository, reference=leaf.digest)
                self.fetcher.fetch(remote, leaf, absent)
            else:
                for blob in absent:
                    self.copy_here(source, blob)
        finally:
            self._meter.add(copy, sum(blob.size for blob in absent if self._is_staged(blob)))

    def _is_staged(self, blob: Descriptor) -> bool:
        return self.stage.tree.size(self.stage.blob(blob.digest)) == blob.size

    def copy_here(self, source: BlobSource, blob: Descriptor) -> int:
        """From what lies on this machine into the stage; its bytes. Raises ToolError and IntegrityError."""
        if isinstance(source, StorageSource):
            self._copy_file(source, blob)
        elif isinstance(source, ImageSet):
            self._copy_hashed(source, blob)
        return blob.size

    def _copy_file(self, source: StorageSource, blob: Descriptor) -> None:
        if source.storage.blob_size(blob.digest) != blob.size:
            raise IntegrityError(
                f"blob {blob.digest.short} is absent or damaged in {source.name}", hint=f"regwrap verify {source.name}"
            )
        with (
            os.fdopen(source.storage.open_blob(blob.digest), "rb") as reader,
            self._new_file(blob) as writer,
            reading(blob.digest),
        ):
            copy_range(reader.fileno(), 0, blob.size, writer.fileno(), 0)
        if not self.stage.has(blob):
            raise damaged_on_the_way(source.name, blob, blob.size)

    def _copy_hashed(self, source: ImageSet, blob: Descriptor) -> None:
        with self._new_file(blob) as file:
            is_valid = source.copy(blob.digest, lambda piece: write_all(file, piece))
        if not is_valid:
            raise damaged_on_the_way(source.name, blob, blob.size)

    def _new_file(self, blob: Descriptor) -> BinaryIO:
        """In the place of what is there, which was looked at and is wrong."""
        self.stage.remove(self.stage.blob(blob.digest))
        return self.stage.create(self.stage.blob(blob.digest))

    def _commit(self, copies: Sequence[Copy]) -> None:
        manifests = {
            m.digest: m for copy in copies for m in copy.closure.manifests if not self.valid.has(_descriptor(m))
        }
        for manifest in manifests.values():
            with self._new_file(_descriptor(manifest)) as file:
                write_all(file, manifest.raw)
        blobs = {blob.digest: blob for copy in copies for blob in copy.closure.blobs}
        fresh = [*(blob.digest for blob in blobs.values() if not self.valid.has(blob)), *manifests]
        names = [(copy.entry.dest.repository, copy) for copy in copies]
        self.commit.add(
            Additions(
                blobs=tuple((digest, self.stage.blob(digest)) for digest in dict.fromkeys(fresh)),
                layers=tuple((name, blob.digest) for name, copy in names for blob in copy.closure.blobs),
                revisions=tuple((name, manifest.digest) for name, copy in names for manifest in copy.closure.manifests),
                tags=tuple((name, copy.entry.dest.tag, copy.digest) for name, copy in names),
            )
        )
        for digest in fresh:
            self.valid.add(digest)


def _descriptor(manifest: Manifest | Index) -> Descriptor:
    return Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.raw))
