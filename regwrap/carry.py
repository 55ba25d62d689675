"""Carry out one Copy: bring what is missing, prove it by hashing, make it visible. One class for each kind of end.

Into a storage no registry stands in the way: a Fetcher brings the blobs of each leaf manifest into a stage, hashed, and
`storage.commit` moves them in. That also brings what skopeo can't push: docker lists with their digest kept, nested
indexes, some platforms of an index. Into any other registry skopeo copies registry to registry, blobs that another
repository there got before are mounted first, and the result is asked for and hashed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.errors import ImagesFailedError, IntegrityError, ToolError
from regwrap.fetch import Fetcher, Stage, damaged_on_the_way
from regwrap.model import Descriptor, Digest, Index, Manifest
from regwrap.observe import End, RegistryEnd, StorageEnd
from regwrap.storage.commit import Additions, GroupCommit
from regwrap.storage.store import SoundBlobs, Storage, regular_size
from regwrap.tools.credentials import UnsureError
from regwrap.tools.skopeo import Remote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.imagelist import ImageEntry
    from regwrap.plan import Copy
    from regwrap.tools.access import Registry

_CHUNK: Final = 64 * 1024 * 1024


class Carrier(Protocol):
    """Brings one image to the destination; the same call again is harmless."""

    exclusive_repositories: bool
    """Whether two copies into one repository must not run at the same time."""

    def carry(self, copy: Copy) -> int:
        """Returns the bytes that travelled. Raises ToolError, IntegrityError or ImagesFailedError."""

    def bytes_under_way(self) -> int:
        """Bytes of unfinished copies so far, for the progress line."""


@dataclass(slots=True, kw_only=True)
class StorageCarrier:
    """Into a storage directory. `stage` lies on the storage's file system and is this run's alone (the lock); blobs of
    an earlier run that was killed may be in it: they count once they are hashed. `fetcher` is for registries."""

    storage: Storage
    stage: Stage
    source_of: Callable[[ImageEntry], End]
    fetcher: Fetcher
    commit: GroupCommit
    sound: SoundBlobs
    exclusive_repositories: bool = False

    def carry(self, copy: Copy) -> int:
        try:
            brought = sum(self._bring(copy, leaf) for leaf in copy.closure.leaves)
            self._commit(copy)
        except FileNotFoundError as error:
            # another copy that found the same damage has moved the blob in meanwhile
            raise ToolError(f"{copy.entry.dest}: a staged file is gone", detail=str(error), transient=True) from error
        if self.storage.resolve(copy.entry.dest.repository, copy.entry.dest.tag or "") != copy.digest:
            raise IntegrityError(f"{copy.entry.dest} does not point to {copy.digest} after the copy")
        return brought

    def bytes_under_way(self) -> int:
        return self.fetcher.bytes_under_way()

    def _bring(self, copy: Copy, leaf: Manifest) -> int:
        blobs = {blob.digest: blob for blob in leaf.blobs}.values()
        absent = [blob for blob in blobs if not self.sound.has(blob) and not self.stage.has(blob)]
        if not absent:
            return 0
        source, repository = self.source_of(copy.entry), copy.entry.source.repository
        if isinstance(source, StorageEnd):
            for blob in absent:
                self._copy_file(source, blob)
        elif isinstance(source, RegistryEnd):
            remote = Remote(registry=source.registry, repository=repository, reference=leaf.digest)
            self.fetcher.fetch(remote, leaf, absent)
        return sum(blob.size for blob in absent)

    def _copy_file(self, source: StorageEnd, blob: Descriptor) -> None:
        path = source.storage.blob_path(blob.digest)
        if regular_size(path) != blob.size:
            raise IntegrityError(
                f"blob {blob.digest.short} is absent or damaged in {source.name}", hint=f"regwrap verify {source.name}"
            )
        copy_file(path, self.stage.blob(blob.digest))
        if not self.stage.has(blob):
            raise damaged_on_the_way(source.name, blob, blob.size)

    def _commit(self, copy: Copy) -> None:
        repository, tag = copy.entry.dest.repository, copy.entry.dest.tag or ""
        closure = copy.closure
        manifests = [m for m in closure.manifests if not self.sound.has(_descriptor(m))]
        for manifest in manifests:
            self.stage.blob(manifest.digest).write_bytes(manifest.raw)
        fresh = [*(b.digest for b in closure.blobs if not self.sound.has(b)), *(m.digest for m in manifests)]
        self.commit.add(
            Additions(
                blobs=tuple((digest, self.stage.blob(digest)) for digest in dict.fromkeys(fresh)),
                layers=tuple((repository, blob.digest) for blob in closure.blobs),
                revisions=tuple((repository, manifest.digest) for manifest in closure.manifests),
                tags=((repository, tag, copy.digest),),
            )
        )
        for digest in fresh:
            self.sound.add(digest)


def _descriptor(manifest: Manifest | Index) -> Descriptor:
    return Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.raw))


def copy_file(source: Path, dest: Path) -> None:
    """Copy bytes in the kernel; a reflink where the file system has them (btrfs, xfs do it by themselves)."""
    with source.open("rb") as reader, dest.open("wb") as writer:
        while os.copy_file_range(reader.fileno(), writer.fileno(), _CHUNK):
            pass


@dataclass(slots=True, kw_only=True)
class RegistryCarrier:
    """Into a registry. `served` says which registry skopeo reads an entry from: a storage is served on loopback.

    docker-registry rewrites link files in place, so two pushes into one repository disturb each other.
    """

    dest: RegistryEnd
    served: Callable[[ImageEntry], Registry]
    exclusive_repositories: bool = True
    _homes: dict[Digest, str] = field(default_factory=dict)

    def carry(self, copy: Copy) -> int:
        _refuse_what_skopeo_cannot_push(copy)
        entry, dest = copy.entry, copy.entry.dest
        source = Remote(registry=self.served(entry), repository=entry.source.repository, reference=copy.digest)
        target = Remote(registry=self.dest.registry, repository=dest.repository, reference=dest.tag or "")
        sent = [blob for blob in copy.missing if not self._mount(blob, dest.repository)]
        self.dest.skopeo.copy(source, target)
        self.prove(copy)
        self._homes |= {blob.digest: dest.repository for blob in copy.closure.blobs}
        return sum({blob.digest: blob.size for blob in sent}.values())

    def arrived(self, copy: Copy) -> int:
        """Count an image that something else has brought: the bytes that no other image had brought before."""
        new = {blob.digest: blob.size for blob in copy.missing if blob.digest not in self._homes}
        self._homes |= {blob.digest: copy.entry.dest.repository for blob in copy.closure.blobs}
        return sum(new.values())

    def _mount(self, blob: Descriptor, repository: str) -> bool:
        """Whether the blob is in the repository without being sent, because this run has brought it to another."""
        home = self._homes.get(blob.digest)
        return home is not None and (home == repository or self.dest.mounted(repository, blob.digest, home))

    def bytes_under_way(self) -> int:
        return 0

    def prove(self, copy: Copy) -> None:
        """Ask for what was pushed and hash it; compare the sizes of the blobs. Exit 0 proves nothing."""
        repository, tag = copy.entry.dest.repository, copy.entry.dest.tag or ""
        name = f"{self.dest.name}/{copy.entry.dest}"
        raw = self.dest.tagged_manifest(repository, tag)
        found = None if raw is None else Digest.of(raw)
        if found != copy.digest:
            raise IntegrityError(f"{name} is {found or 'absent'} after the copy, and should be {copy.digest}")
        try:
            broken = self.dest.lacking(repository, copy.closure.blobs)
        except UnsureError:
            return  # that registry does not say; pulling everything back would double the work
        if broken:
            raise IntegrityError(
                f"{name}: the registry keeps blob {broken[0].digest.short} damaged, and a push does not mend it",
                hint="remove that blob's file in the registry's storage, or give the storage in the configuration",
            )


def _refuse_what_skopeo_cannot_push(copy: Copy) -> None:
    top = copy.closure.top
    nested = any(isinstance(m, Index) and m is not top for m in copy.closure.manifests)
    if nested or copy.closure.omitted:
        what = "an index inside an index" if nested else "a part of an index (platform=…)"
        raise ImagesFailedError(
            f"{what} can't be pushed into a registry by skopeo",
            hint="sync into a storage directory instead (the embedded archive, or a registry with storage: set)",
        )
