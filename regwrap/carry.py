"""Carry out one Copy: bring what is missing, prove it by hashing, make it visible. One class for each kind of end.

Into a storage no registry stands in the way: skopeo copies each leaf manifest into a private OCI layout whose blobs
are shared, what came is hashed, and `storage.commit` moves it in. That also brings what skopeo can't push: docker
lists with their digest kept, nested indexes, some platforms of an index. Into any other registry skopeo copies
registry to registry, blobs that another repository there got before are mounted first, and the result is asked for and
hashed.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

from regwrap.errors import ImagesFailedError, IntegrityError, ToolError
from regwrap.imagelist import ImageEntry
from regwrap.model import Descriptor, Digest, Index, Manifest
from regwrap.observe import End, RegistryEnd, StorageEnd
from regwrap.plan import Copy
from regwrap.storage.commit import Additions, GroupCommit
from regwrap.storage.store import SoundBlobs, Storage, hash_file, regular_size
from regwrap.tools.access import Registry
from regwrap.tools.credentials import UnsureError
from regwrap.tools.skopeo import Remote, Skopeo

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
    """Into a storage directory. `stage` lies on the storage's file system and is this run's alone (the lock);
    `stage/blobs/sha256` may hold blobs of an earlier run that was killed: they count once they are hashed."""

    storage: Storage
    stage: Path
    source_of: Callable[[ImageEntry], End]
    skopeo: Skopeo
    commit: GroupCommit
    sound: SoundBlobs
    inherit: tuple[int, ...]
    exclusive_repositories: bool = False
    _number: int = 0
    _lock: Lock = field(default_factory=Lock)

    @property
    def _shared(self) -> Path:
        return self.stage / "blobs"

    def _staged(self, digest: Digest) -> Path:
        return self._shared / "sha256" / digest.hex

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
        total = 0
        with suppress(OSError):
            for layout in os.scandir(self.stage / "copies"):
                with suppress(OSError):
                    total += sum(f.stat().st_size for f in os.scandir(layout) if f.name.startswith("oci-put"))
        return total

    def _bring(self, copy: Copy, leaf: Manifest) -> int:
        absent = [blob for blob in leaf.blobs if not self.sound.has(blob) and not self._is_staged(blob)]
        if not absent:
            return 0
        source, repository = self.source_of(copy.entry), copy.entry.source.repository
        if isinstance(source, StorageEnd):
            for blob in absent:
                self._copy_file(source, blob)
        elif isinstance(source, RegistryEnd):
            self._fetch(Remote(registry=source.registry, repository=repository, reference=leaf.digest), leaf)
        for blob in absent:
            self._prove(blob, copy.entry)
        return sum({blob.digest: blob.size for blob in absent}.values())

    def _is_staged(self, blob: Descriptor) -> bool:
        path = self._staged(blob.digest)
        if _is_right(path, blob):
            return True
        path.unlink(missing_ok=True)
        return False

    def _fetch(self, remote: Remote, leaf: Manifest) -> None:
        for blob in leaf.blobs:
            if self.sound.has(blob):
                # skopeo fetches no blob whose file is there; a hard link would change the blob's own ctime, and tar
                # takes that for a change of the file
                with suppress(FileExistsError):
                    self._staged(blob.digest).symlink_to(self.storage.blob_path(blob.digest).absolute())
        layout = self._new_layout()
        try:
            self.skopeo.copy_to_layout(remote, layout, self._shared, inherit=self.inherit)
        finally:
            shutil.rmtree(layout, ignore_errors=True)

    def _new_layout(self) -> Path:
        with self._lock:
            self._number += 1
            layout = self.stage / "copies" / str(self._number)
        layout.mkdir(parents=True)
        return layout

    def _copy_file(self, source: StorageEnd, blob: Descriptor) -> None:
        path = source.storage.blob_path(blob.digest)
        if regular_size(path) != blob.size:
            raise IntegrityError(
                f"blob {blob.digest.short} is absent or damaged in {source.name}", hint=f"regwrap verify {source.name}"
            )
        copy_file(path, self._staged(blob.digest))

    def _prove(self, blob: Descriptor, entry: ImageEntry) -> None:
        path = self._staged(blob.digest)
        if self.sound.has(blob) or _is_right(path, blob):
            return
        size = regular_size(path)
        path.unlink(missing_ok=True)
        what = "did not arrive" if size is None else f"arrived damaged ({size} of {blob.size} bytes, or other ones)"
        raise ToolError(f"{entry.source}: blob {blob.digest.short} {what}", transient=True)

    def _commit(self, copy: Copy) -> None:
        repository, tag = copy.entry.dest.repository, copy.entry.dest.tag or ""
        closure = copy.closure
        manifests = [m for m in closure.manifests if not self.sound.has(_descriptor(m))]
        for manifest in manifests:
            self._staged(manifest.digest).write_bytes(manifest.raw)
        fresh = [*(b.digest for b in closure.blobs if not self.sound.has(b)), *(m.digest for m in manifests)]
        self.commit.add(
            Additions(
                blobs=tuple((digest, self._staged(digest)) for digest in dict.fromkeys(fresh)),
                layers=tuple((repository, blob.digest) for blob in closure.blobs),
                revisions=tuple((repository, manifest.digest) for manifest in closure.manifests),
                tags=((repository, tag, copy.digest),),
            )
        )
        for digest in fresh:
            self.sound.add(digest)


def _descriptor(manifest: Manifest | Index) -> Descriptor:
    return Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.raw))


def _is_right(path: Path, blob: Descriptor) -> bool:
    return regular_size(path) == blob.size and hash_file(path) == blob.digest


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
