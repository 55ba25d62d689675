"""What is about the images of a list: cosign's signatures and attestations, SBOMs, other referrers, and what is about
those. They become entries of the list, so they travel as images do.

A registry without an API for referrers has them as tags (`sha256-HEX`, and cosign's `sha256-HEX.sig`). Where a registry
has the API, an index of what it lists is made, which gets the tag that registries without it look for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import ImageSource, StorageSource
from regwrap.core.closure import closure_of
from regwrap.core.errors import RegwrapError
from regwrap.core.listener import counted_by, telling
from regwrap.core.manifest import OCI_INDEX
from regwrap.core.model import Digest, subject_of_tag
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.transfer.observe import source_digest
from regwrap.transfer.plan import Unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.core.listener import Listener
    from regwrap.lists.imagelist import ImageEntry, ImageList
    from regwrap.storage.store import Storage
    from regwrap.transfer.endpoints import Endpoints


def with_referrers(endpoints: Endpoints, images: ImageList) -> tuple[ImageList, tuple[Unseen, ...]]:
    """The list, and what is about its images at their sources. An image whose referrers cannot be listed is not in it,
    but among the others; that an image itself cannot be had is said when it is to be copied."""
    job, finder = endpoints.job, _Finder()

    def find(entry: ImageEntry) -> tuple[ImageEntry, ...] | Unseen:
        try:
            source = endpoints.source_of(entry)
            digest = job.retry.call(lambda: source_digest(source, entry))
        except RegwrapError:
            return ()
        try:
            return job.retry.call(lambda: tuple(finder.referrers_of(source, entry, entry.source.repository, digest)))
        except RegwrapError as error:
            return Unseen(entry=entry, error=f"its referrers cannot be listed: {error}", hint=error.hint)

    job.listener.count("look", "images asked for referrers", len(images.entries))
    found = job.ask(telling(job.listener, find), images.entries)
    failed = tuple(item for item in found if isinstance(item, Unseen))
    lost = {item.entry.dest for item in failed}
    seen = replace(images, entries=tuple(entry for entry in images.entries if entry.dest not in lost))
    return _joined(seen, tuple(item for item in found if not isinstance(item, Unseen))), failed


def with_referrers_there(storage: Storage, images: ImageList, listener: Listener) -> ImageList:
    """The list, and what is about its images in the storage that holds them already."""
    finder, end = _Finder(), StorageSource(name=f"{storage.root}", storage=storage)
    found: list[tuple[ImageEntry, ...]] = []
    listener.count("look", "images asked for referrers", len(images.entries))
    for entry in counted_by(listener, images.entries):
        digest = storage.resolve(entry.dest.repository, entry.dest.tag)
        found.append(tuple(finder.referrers_of(end, entry, entry.dest.repository, digest)) if digest else ())
    return _joined(images, tuple(found))


def _joined(images: ImageList, found: tuple[tuple[ImageEntry, ...], ...]) -> ImageList:
    entries = {entry.dest: entry for entry in images.entries}
    for entry in (entry for group in found for entry in group):
        entries.setdefault(entry.dest, entry)
    return replace(images, entries=tuple(entries.values()))


@dataclass(slots=True)
class _Finder:
    """Tags of a repository are asked for once, and the API of a registry that has none too."""

    _tags: dict[tuple[str, str], dict[Digest, list[str]]] = field(default_factory=dict)
    _without: set[str] = field(default_factory=set)
    _asking: dict[tuple[str, str], Lock] = field(default_factory=dict)

    def referrers_of(
        self, end: ImageSource, entry: ImageEntry, repository: str, digest: Digest
    ) -> Iterator[ImageEntry]:
        """Entries for all that is about the image, directly or not. Raises RegwrapError."""
        tags = self._tags_of(end, repository)
        pending, seen = [digest], set[Digest]()
        chosen = entry.platforms
        while pending:
            top = pending.pop()
            for subject in _manifests(end, repository, top, entry if chosen and top == digest else None):
                if subject in seen:
                    continue
                seen.add(subject)
                index = f"sha256-{subject.hex}"  # what stands for the API where there is none
                has_api, made = self._made(end, repository, subject)
                for tag in (tag for tag in tags.get(subject, ()) if not (has_api and tag == index)):
                    if (there := end.resolve(repository, tag)) is not None:
                        yield _entry(entry, tag, None)
                        pending.append(there)
                if made is not None:
                    yield _entry(entry, index, made)
                    pending.append(made)

    def _tags_of(self, end: ImageSource, repository: str) -> dict[Digest, list[str]]:
        key = (end.name, repository)
        with self._asking.setdefault(key, Lock()):  # a repository with many images is listed once
            if key not in self._tags:
                known: dict[Digest, list[str]] = {}
                for tag in end.tags(repository):
                    if (subject := subject_of_tag(tag)) is not None:
                        known.setdefault(subject, []).append(tag)
                self._tags[key] = known
            return self._tags[key]

    def _made(self, end: ImageSource, repository: str, subject: Digest) -> tuple[bool, Digest | None]:
        """Whether the registry has an API for referrers; and an index of what it lists, made here."""
        if not isinstance(end, RegistryEndpoint) or end.name in self._without:
            return False, None
        listed = end.referrers(repository, subject)
        if listed is None:
            self._without.add(end.name)
        if not listed:
            return listed is not None, None
        manifests = sorted(listed, key=lambda descriptor: str(descriptor.get("digest")))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        raw = json.dumps(index, sort_keys=True, separators=(",", ":")).encode()
        end.made[Digest.of(raw)] = raw
        return True, Digest.of(raw)


def _manifests(end: ImageSource, repository: str, top: Digest, chosen: ImageEntry | None) -> tuple[Digest, ...]:
    """All manifests of an image, the top as well; of `chosen` only its platforms. Those that are gone do not count."""
    closure = closure_of(top, lambda digest: end.manifest(repository, digest), chosen.platforms if chosen else ())
    return tuple(manifest.digest for manifest in closure.manifests) if closure else ()


def _entry(subject: ImageEntry, tag: str, made: Digest | None) -> ImageEntry:
    source = replace(subject.source, tag=None if made else tag, digest=made)
    dest = replace(subject.dest, tag=tag)
    # what is made anew each time can only be had with its subject again
    text = subject.text if made else f"{source} => {dest}"
    return replace(subject, source=source, dest=dest, platforms=(), text=text, locked=False)
