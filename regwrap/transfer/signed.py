"""Images that have to be signed, by the configuration: looked at before they are copied, and copied with signatures.

The digest that was found signed is the one that is copied. An image whose tag moves meanwhile fails, as any that is
pinned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regwrap.core.errors import RegwrapError
from regwrap.core.listener import telling
from regwrap.core.pool import map_in_order
from regwrap.tools.openssl import Openssl, need_key
from regwrap.transfer.cosign import check_signed, is_about_another
from regwrap.transfer.observe import source_digest
from regwrap.transfer.plan import Unseen
from regwrap.transfer.referrers import with_referrers, with_referrers_there

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.lists.imagelist import ImageEntry, ImageList
    from regwrap.storage.store import Storage
    from regwrap.transfer.endpoints import Endpoints
    from regwrap.transfer.job import Job


def only_signed(endpoints: Endpoints, images: ImageList) -> tuple[ImageList, tuple[Unseen, ...]]:
    """The list by the digests that are signed, and the images that are not. What is about an image that the source has
    needs no signature. Raises UsageError for what is no key."""
    job = endpoints.job
    for rule in job.signed:
        for key in rule.keys:
            need_key(key)
    openssl = Openssl(job.runner)

    def look(entry: ImageEntry) -> ImageEntry | Unseen:
        keys = _keys(job, entry)
        if not keys:
            return entry
        try:
            source, repository = endpoints.source_of(entry), entry.source.repository
            digest = job.retry.call(lambda: source_digest(source, entry))
            if not job.retry.call(lambda: is_about_another(source, repository, entry.dest.tag, digest)):
                job.retry.call(lambda: check_signed(openssl, keys, source, repository, digest))
        except RegwrapError as error:
            return Unseen(entry=entry, error=str(error), hint=error.hint)
        return replace(entry, source=replace(entry.source, digest=digest))

    job.listener.count("look", "images with their signatures", len(images.entries))
    told = telling(job.listener, look)
    found = map_in_order(told, images.entries, workers=job.jobs, name="signed", stopping=job.stopping)
    entries = tuple(item for item in found if not isinstance(item, Unseen))
    return replace(images, entries=entries), tuple(item for item in found if isinstance(item, Unseen))


def _keys(job: Job, entry: ImageEntry) -> tuple[Path, ...]:
    """Who may have signed the image; nobody where it need not be signed."""
    names = (entry.dest.repository, entry.source.repository, entry.source.name)
    return tuple(dict.fromkeys(key for rule in job.signed if rule.concerns(*names) for key in rule.keys))


def with_their_signatures(endpoints: Endpoints, images: ImageList) -> tuple[ImageList, tuple[Unseen, ...]]:
    """The list, and what is about those of its images that have to be signed."""
    if not endpoints.job.signed:
        return images, ()
    chosen = _concerned(endpoints.job, images)
    found, lost = with_referrers(endpoints, chosen)
    return _merged(images, chosen, found), lost


def with_their_signatures_there(job: Job, storage: Storage, images: ImageList) -> ImageList:
    """The same in the storage that has them already."""
    if not job.signed:
        return images
    chosen = _concerned(job, images)
    return _merged(images, chosen, with_referrers_there(storage, chosen, job.listener))


def _concerned(job: Job, images: ImageList) -> ImageList:
    return replace(images, entries=tuple(entry for entry in images.entries if _keys(job, entry)))


def _merged(images: ImageList, chosen: ImageList, found: ImageList) -> ImageList:
    gone = {entry.dest for entry in chosen.entries} - {entry.dest for entry in found.entries}
    entries = {entry.dest: entry for entry in images.entries if entry.dest not in gone}
    for entry in found.entries:
        entries.setdefault(entry.dest, entry)
    return replace(images, entries=tuple(entries.values()))
