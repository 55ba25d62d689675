"""The releases that a site remembers, and what is left of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import (
    SiteRelease,
    known_checksum,
    missing_images,
    moves_to,
    read_releases,
    release_now,
    write_release,
)
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError
from regwrap.storage.commit import Files, Owner, RealFiles
from regwrap.storage.lock import locked_storage
from regwrap.storage.own import own_tree
from regwrap.storage.stage import remove_stage, temporary_stage
from regwrap.storage.store import Storage, need_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.bundle.contents import BundleImage
    from regwrap.core.listener import Listener

_STAGE: Final = "adopt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseState:
    """`replaced` are tags that are another image now, or gone; `missing` images with what is not there of each."""

    name: str
    id: str
    deployed: str
    sha256: str
    images: int
    bytes: int
    state: str
    replaced: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasesReport:
    """In the order in which they came."""

    path: Path
    releases: tuple[ReleaseState, ...]
    notes: tuple[str, ...]


def list_releases(root: Path, *, lock_timeout: float, listener: Listener) -> ReleasesReport:
    """Raises UsageError where `root` is no storage."""
    storage = need_storage(root)
    with locked_storage(storage.tree, exclusive=False, timeout=lock_timeout, on_wait=listener.say, untouched=True):
        found = read_releases(storage.tree)
        known: dict[BundleImage, str] = {}
        states = tuple(_state(storage, release, known) for release in found.releases)
    return ReleasesReport(path=root, releases=states, notes=found.notes)


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
    with opened_bundle(bundle) as opened:
        contents = opened.contents.whole
    with locked_storage(storage.tree, exclusive=True, timeout=lock_timeout, on_wait=listener.say):
        missing = missing_images(storage, contents)
        if missing:
            raise ImagesFailedError(
                f"{root} lacks {len(missing)} of {counted(len(contents.images), 'image')} of {bundle};"
                " nothing was noted",
                detail="\n".join(missing),
                hint="deploy the bundle: it brings what is missing, and is remembered",
            )
        own = own_tree(storage.tree)
        remove_stage(own, _STAGE)
        with temporary_stage(own, _STAGE) as stage:
            release = release_now(contents, known_checksum(bundle))
            write_release(storage.tree, release, stage=stage, files=files_for(Owner.of(storage.tree)))


def _state(storage: Storage, release: SiteRelease, known: dict[BundleImage, str]) -> ReleaseState:
    contents = release.contents
    missing = missing_images(storage, contents, known)
    replaced = tuple(move.image for move in moves_to(storage, contents))
    return ReleaseState(
        name=contents.name,
        id=str(contents.id),
        deployed=release.deployed,
        sha256=release.checksum,
        images=len(contents.images),
        bytes=contents.blob_bytes,
        state="incomplete" if missing else "partly replaced" if replaced else "current",
        replaced=replaced,
        missing=missing,
    )
