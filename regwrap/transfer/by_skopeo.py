"""Registry to registry by `skopeo sync`: one start for all images that one directory of names there gets from here.

It keeps only the last part of a name, takes tags and no digests, and its exit code says little. So only images that
keep their tag and the last part of their name go this way, each is asked for afterwards, and what did not come, or came
as another image because its tag has moved, is copied by its digest.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ImagesFailedError, IntegrityError, ToolError
from regwrap.core.manifest import Descriptor, Index
from regwrap.core.model import Digest
from regwrap.core.pool import map_in_order
from regwrap.registry.credentials import UnsureError
from regwrap.tools.skopeo import Remote
from regwrap.transfer.blob_index import BlobIndex
from regwrap.transfer.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from threading import Event

    from regwrap.core.location import Registry
    from regwrap.core.model import Destination
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.registry.endpoint import RegistryEndpoint
    from regwrap.transfer.plan import Copy

_FEW: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images of one source that get below one `prefix` at the destination (empty: at its top)."""

    source: Registry
    prefix: str
    copies: tuple[Copy, ...]

    @property
    def images(self) -> dict[str, list[str]]:
        """Repositories of the source, with the tags to take."""
        images: dict[str, list[str]] = defaultdict(list)
        for copy in self.copies:
            images[copy.entry.source.repository].append(copy.entry.source.tag or "")
        return images


def make_batches(copies: Sequence[Copy], served: Callable[[ImageEntry], Registry]) -> tuple[Batch, ...]:
    """What can go together; the rest is in none."""
    together: dict[tuple[Registry, str], list[Copy]] = defaultdict(list)
    for copy in copies:
        source, dest = copy.entry.source, copy.entry.dest
        prefix, _, name = dest.repository.rpartition("/")
        kept = source.tag == dest.tag and source.repository.rpartition("/")[2] == name
        if kept and source.tag and not copy.entry.platforms:
            together[served(copy.entry), prefix].append(copy)
    return tuple(
        Batch(source=source, prefix=prefix, copies=tuple(group))
        for (source, prefix), group in together.items()
        if len(group) >= _FEW
    )


@dataclass(slots=True, kw_only=True)
class BatchCopier:
    """`registry` copies what no batch has copied. Call `run` first."""

    registry: RegistryCopier
    stopping: Event
    exclusive_repositories: bool = True
    _tried: set[Destination] = field(default_factory=set)

    def run(self, batches: Sequence[Batch], jobs: int) -> None:
        """All batches, those of one prefix one after the other: they may write into the same repository. What a batch
        fails with is left to the images that it did not copy."""
        prefixes: dict[str, list[Batch]] = defaultdict(list)
        for batch in batches:
            prefixes[batch.prefix].append(batch)
            self._tried |= {copy.entry.dest for copy in batch.copies}
        map_in_order(self._run_all, prefixes.values(), workers=jobs, name="batch", stopping=self.stopping)

    def _run_all(self, batches: Sequence[Batch]) -> None:
        dest = self.registry.dest
        for batch in batches:
            try:
                dest.skopeo.sync(batch.source, batch.images, dest.registry, batch.prefix)
            except ToolError:
                if self.stopping.is_set():
                    raise

    def copy_image(self, copy: Copy) -> None:
        if copy.entry.dest in self._tried:
            try:
                prove(self.registry.dest, copy)
            except (IntegrityError, ToolError):
                pass
            else:
                self.registry.arrived(copy)
                return
        self.registry.copy_image(copy)

    def sent(self, copy: Copy) -> int:
        return self.registry.sent(copy)

    def bytes_under_way(self) -> int:
        return 0


@dataclass(slots=True, kw_only=True)
class RegistryCopier:
    """Into a registry. `served` says which registry skopeo reads an entry from: a storage is served on loopback.

    docker-registry rewrites link files in place, so two pushes into one repository disturb each other.
    """

    dest: RegistryEndpoint
    served: Callable[[ImageEntry], Registry]
    index: BlobIndex = field(default_factory=BlobIndex)
    exclusive_repositories: bool = True
    _meter: Meter = field(default_factory=Meter)

    def copy_image(self, copy: Copy) -> None:
        _refuse_what_skopeo_cannot_push(copy)
        entry, dest = copy.entry, copy.entry.dest
        source = Remote(registry=self.served(entry), repository=entry.source.repository, reference=copy.digest)
        target = Remote(registry=self.dest.registry, repository=dest.repository, reference=dest.tag)
        new = tuple(blob for blob in copy.missing if not self._is_there(blob, dest.repository))
        try:
            self.dest.skopeo.copy(source, target)
        except ToolError as error:
            if not error.outage:
                self._count(copy, self._arrived(dest.repository, new))
            raise
        self._count(copy, new)
        prove(self.dest, copy)
        self.index.add(dest.repository, (blob.digest for blob in copy.closure.blobs))

    def sent(self, copy: Copy) -> int:
        return self._meter.of(copy)

    def arrived(self, copy: Copy) -> None:
        """Count an image that something else has copied: the bytes that no other image had copied before."""
        self._meter.add(copy, _size_of(blob for blob in copy.missing if not self.index.knows(blob.digest)))
        self.index.add(copy.entry.dest.repository, (blob.digest for blob in copy.closure.blobs))

    def _count(self, copy: Copy, blobs: tuple[Descriptor, ...]) -> None:
        self._meter.add(copy, _size_of(blobs))
        self.index.add(copy.entry.dest.repository, (blob.digest for blob in blobs))

    def _arrived(self, repository: str, blobs: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        """Those that a copy has sent before it failed; skopeo itself says nothing of it."""
        with suppress(ToolError, UnsureError):
            missing = self.dest.missing(repository, blobs)
            return tuple(blob for blob in blobs if blob not in missing)
        return ()

    def _is_there(self, blob: Descriptor, repository: str) -> bool:
        """Whether the blob is in the repository without being sent: it was copied there, or to another one."""
        if self.index.has(repository, blob.digest):
            return True
        other = self.index.other(repository, blob.digest)
        return other is not None and self.dest.mounted(repository, blob.digest, other)

    def bytes_under_way(self) -> int:
        return 0


def _size_of(blobs: Iterable[Descriptor]) -> int:
    return sum({blob.digest: blob.size for blob in blobs}.values())


def prove(dest: RegistryEndpoint, copy: Copy, blobs: tuple[Descriptor, ...] | None = None) -> None:
    """Ask for what was pushed and hash it; compare the sizes of its `blobs`, which are all. Exit 0 proves nothing."""
    repository, tag = copy.entry.dest.repository, copy.entry.dest.tag
    name = f"{dest.name}/{copy.entry.dest}"
    raw = dest.tagged_manifest(repository, tag)
    found = None if raw is None else Digest.of(raw)
    if found != copy.digest:
        raise IntegrityError(f"{name} is {found or 'absent'} after the copy, expected {copy.digest}")
    try:
        broken = dest.missing(repository, copy.closure.blobs if blobs is None else blobs)
    except UnsureError:
        return  # that registry does not say; pulling everything back would double the work
    if broken:
        raise IntegrityError(
            f"{name}: blob {broken[0].digest.short} is damaged in the registry, and a push does not repair it",
            hint="delete the blob's file in the registry's storage, or set storage: in the configuration",
        )


def _refuse_what_skopeo_cannot_push(copy: Copy) -> None:
    top = copy.closure.top
    nested = any(isinstance(m, Index) and m is not top for m in copy.closure.manifests)
    if nested or copy.closure.omitted:
        what = "an index inside an index" if nested else "a part of an index (platform=…)"
        raise ImagesFailedError(
            f"{what} cannot be pushed to a registry by skopeo",
            hint="sync into a storage directory instead (the embedded archive, or a registry with storage: set)",
        )
