"""The releases that a site remembers, and what is left of each."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import (
    HeldAlone,
    SiteRelease,
    SiteReleases,
    held_alone,
    known_checksum,
    look_at,
    missing_images,
    moves_to,
    read_releases,
    refuse_missing,
    release_now,
    write_release,
)
from regwrap.commands.gc_releases import release_in_use
from regwrap.core.listener import counted_by
from regwrap.storage.commit import Files, Owner, RealFiles
from regwrap.storage.lock import locked_storage
from regwrap.storage.own import own_tree
from regwrap.storage.stage import remove_stage, temporary_stage
from regwrap.storage.store import Storage, need_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from regwrap.bundle.contents import BundleImage
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest

_STAGE: Final = "adopt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseState:
    """`replaced` are tags that are another image now, or gone; `missing` images with what is not there of each.
    `alone_images` and `alone_bytes` are in no other release here."""

    name: str
    id: str
    deployed: str
    sha256: str
    images: int
    bytes: int
    alone_images: int
    alone_bytes: int
    state: str
    replaced: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasesReport:
    """In the order in which they came."""

    path: Path
    releases: tuple[ReleaseState, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteImage:
    """A tag of a site, what it is now, and the releases that say so."""

    image: str
    digest: str
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """`in_use` is the release most of whose tags are what it says; empty where there is none. `bytes` are those of all
    releases together, each blob once."""

    releases: ReleasesReport
    in_use: str
    bytes: int
    images: tuple[SiteImage, ...]


def list_releases(root: Path, *, lock_timeout: float, listener: Listener) -> ReleasesReport:
    """Raises UsageError where `root` is no storage."""
    with _read(root, lock_timeout, listener) as storage:
        return _releases(storage, root, read_releases(storage.tree, listener), listener)


def look_at_site(root: Path, *, lock_timeout: float, listener: Listener) -> SiteReport:
    """The releases, and every tag. Raises UsageError where `root` is no storage."""
    with _read(root, lock_timeout, listener) as storage:
        found = read_releases(storage.tree, listener)
        used = release_in_use(storage, found)
        blobs = {digest: size for release in found.releases for digest, size in release.contents.blobs}
        releases = _releases(storage, root, found, listener)
        listener.count("read", "tags")
        images = counted_by(listener, site_images(StorageSource(name=f"{root}", storage=storage), found))
        return SiteReport(
            releases=releases,
            in_use=used.label if used else "",
            bytes=sum(blobs.values()),
            images=tuple(images),
        )


@contextmanager
def _read(root: Path, lock_timeout: float, listener: Listener) -> Iterator[Storage]:
    storage = need_storage(root)
    with locked_storage(storage.tree, exclusive=False, timeout=lock_timeout, on_wait=listener.log, untouched=True):
        yield storage


def _releases(storage: Storage, root: Path, found: SiteReleases, listener: Listener) -> ReleasesReport:
    """Releases share most of their images, of which each is looked at once."""
    images = (image for release in found.releases for image in release.contents.images)
    known, alone = look_at(storage, images, listener), held_alone(found.releases)
    listener.count("look", "releases compared with the tags", len(found.releases))
    releases = counted_by(listener, found.releases)
    states = tuple(_state(storage, release, alone[release.contents.id], known) for release in releases)
    return ReleasesReport(path=root, releases=states, notes=found.notes)


def site_images(source: StorageSource, found: SiteReleases) -> Iterator[SiteImage]:
    """Every tag that leads to a manifest, by name."""
    users: dict[tuple[str, Digest], list[str]] = {}
    for release in found.releases:
        for image in release.contents.images:
            users.setdefault((image.name, image.digest), []).append(release.label)
    tags = ((repository, tag) for repository in source.repositories_after("") for tag in source.tags(repository))
    there = ((f"{repository}:{tag}", source.resolve(repository, tag)) for repository, tag in tags)
    for name, digest in there:
        if digest is not None:
            yield SiteImage(image=name, digest=f"{digest}", releases=tuple(users.get((name, digest), ())))


def adopt_release(
    bundle: Path,
    root: Path,
    *,
    lock_timeout: float,
    listener: Listener,
    files_for: Callable[[Owner], Files] = RealFiles,
) -> None:
    """Remember the release of a bundle that came another way. Raises ImagesFailedError where not all of it is there."""
    storage = need_storage(root)
    with opened_bundle(bundle, listener=listener) as opened:
        contents = opened.contents.whole
    with locked_storage(storage.tree, exclusive=True, timeout=lock_timeout, on_wait=listener.log):
        hint = "deploy the bundle: it adds what is missing, and is recorded"
        refuse_missing(storage, contents, f"{bundle}", hint=hint, listener=listener)
        own = own_tree(storage.tree)
        remove_stage(own, _STAGE)
        with temporary_stage(own, _STAGE) as stage:
            release = release_now(contents, known_checksum(bundle))
            write_release(storage.tree, release, stage=stage, files=files_for(Owner.of(storage.tree)))


def _state(storage: Storage, release: SiteRelease, alone: HeldAlone, known: Mapping[BundleImage, str]) -> ReleaseState:
    contents = release.contents
    missing = missing_images(contents, known)
    replaced = tuple(move.image for move in moves_to(storage, contents))
    return ReleaseState(
        name=contents.name,
        id=str(contents.id),
        deployed=release.deployed,
        sha256=release.checksum,
        images=len(contents.images),
        bytes=contents.blob_bytes,
        alone_images=alone.images,
        alone_bytes=alone.bytes,
        state="incomplete" if missing else "partly replaced" if replaced else "current",
        replaced=replaced,
        missing=missing,
    )
