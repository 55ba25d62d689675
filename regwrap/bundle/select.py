"""Selection: read the archive's storage directly, tag -> manifests -> blobs. No registry, no copies.

Costs what the list costs, not what the archive holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.bundle.gather import Gathering
from regwrap.core.closure import check_platform, check_sizes
from regwrap.core.counts import counted
from regwrap.core.errors import BrokenBlobError, ImagesFailedError, IntegrityError, RegwrapError
from regwrap.core.listener import SILENT, counted_by

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.storage.store import Storage


REPAIR_HINT: Final = "repair it: regwrap sync --hash with the same list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What goes into a bundle. The bytes of blob D lie at `storage.blob_path(D)`; `users` names an image of each."""

    storage: Storage
    contents: BundleContents
    users: dict[Digest, str]

    def path(self, digest: Digest) -> Path:
        return self.storage.blob_path(digest)


def select_images(storage: Storage, entries: tuple[ImageEntry, ...], listener: Listener = SILENT) -> Selection:
    """Find exactly the listed images. Everything that is wrong is found before the error is raised:
    ImagesFailedError for what is not there, BrokenBlobError for what is damaged."""
    found = _Found(storage=storage)
    listener.count("select", "images read", len(entries))
    for entry in counted_by(listener, entries):
        found.add(entry)
    if found.broken:
        raise BrokenBlobError(f"the archive {storage.root} is damaged", problems=tuple(found.broken), hint=REPAIR_HINT)
    if found.absent:
        raise ImagesFailedError(
            f"{len(found.absent)} of {counted(len(entries), 'listed image')} cannot be packed from {storage.root}",
            detail="\n".join(found.absent),
            hint="copy them into the archive: regwrap sync with the same list",
        )
    return Selection(storage=storage, contents=found.gathering.contents(), users=found.gathering.users)


@dataclass(slots=True, kw_only=True)
class _Found:
    storage: Storage
    gathering: Gathering = field(default_factory=Gathering)
    absent: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, entry: ImageEntry) -> None:
        try:
            self._add(entry)
        except ImagesFailedError as error:
            self.absent.append(f"{entry.where}: {error}")
        except RegwrapError as error:
            self.broken.append(f"{entry.where}: {error}")

    def _add(self, entry: ImageEntry) -> None:
        repository, tag = entry.dest.repository, entry.dest.tag
        top = self.storage.resolve(repository, tag)
        if top is None:
            raise ImagesFailedError("is missing in the archive")
        if entry.source.digest is not None and top != entry.source.digest:
            raise ImagesFailedError(f"the archive has {top}, the list says {entry.source.digest}")
        closure = self.storage.closure(repository, top, entry.platforms)
        if closure is None:
            raise IntegrityError(f"its manifest {top} is missing")
        if closure.missing:
            absent = ", ".join(str(child.platform or child.digest.short) for child in closure.missing)
            raise ImagesFailedError(f"the archive has no {absent} of its index (select with platform=…, or sync again)")
        check_platform(closure, entry.platforms, self.storage.read_config)
        check_sizes(closure, self.storage.blob_size)
        read_config = self.storage.read_config
        self.gathering.add(repository, tag, closure, omitted=closure.omitted, read_config=read_config)
