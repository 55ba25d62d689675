"""Mirrors of a registry: the list keeps naming the registry, the bytes come from the first mirror that has the image.

A mirror that cannot be asked is passed by with a note, and at the end the registry itself is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from regwrap.core.archive_ref import ArchiveRef
from regwrap.core.errors import RegwrapError
from regwrap.core.listener import telling

if TYPE_CHECKING:
    from regwrap.bundle.by_repository import StorageSource
    from regwrap.core.location import Mirror
    from regwrap.core.model import ImageRef
    from regwrap.lists.imagelist import ImageEntry, ImageList
    from regwrap.registry.endpoint import RegistryEndpoint
    from regwrap.transfer.endpoints import Endpoints
    from regwrap.transfer.job import Job


def through_mirrors(endpoints: Endpoints, images: ImageList) -> ImageList:
    """The list with the sources that the bytes come from. Call from the main thread."""
    job, mirrors = endpoints.job, Mirrors.of(endpoints, images.entries)
    if not mirrors.endpoints:
        return images
    job.listener.count("look", "images at mirrors", len(images.entries))
    return replace(images, entries=job.ask(telling(job.listener, mirrors.seen), images.entries))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """`endpoints` are the mirrors' by their hosts; `passed_by` are hosts that were told."""

    job: Job
    endpoints: dict[str, RegistryEndpoint | StorageSource]
    passed_by: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, endpoints: Endpoints, entries: tuple[ImageEntry, ...]) -> Mirrors:
        """All mirrors of the entries' registries. Call from the main thread."""
        job = endpoints.job
        hosts = {mirror.host for entry in entries for mirror in _mirrors(job, entry)}
        return cls(job=job, endpoints={host: endpoints.of(job.location_of(host)) for host in sorted(hosts)})

    def seen(self, entry: ImageEntry) -> ImageEntry:
        """The entry at the first mirror that has it, or as it is."""
        image = entry.source
        if isinstance(image, ArchiveRef):
            return entry
        for mirror in _mirrors(self.job, entry):
            if self._has(mirror, image):
                there = replace(image, registry=mirror.host, repository=mirror.repository(image.repository))
                return replace(entry, source=there)
        return entry

    def _has(self, mirror: Mirror, image: ImageRef) -> bool:
        end, name = self.endpoints[mirror.host], mirror.repository(image.repository)
        try:
            if image.digest is not None:
                return end.manifest(name, image.digest) is not None
            return end.resolve(name, image.tag or "") is not None
        except RegwrapError as error:
            if mirror.host not in self.passed_by:
                self.passed_by.add(mirror.host)
                self.job.listener.log(f"note: skipping the mirror {mirror.host} for {image} and others: {error}")
            return False


def _mirrors(job: Job, entry: ImageEntry) -> tuple[Mirror, ...]:
    if isinstance(entry.source, ArchiveRef):
        return ()
    location = job.source if entry.source.registry is None else job.location_of(entry.source.registry)
    return location.mirrors if location else ()
