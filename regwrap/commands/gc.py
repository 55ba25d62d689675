"""Collect the garbage of a storage: lock, decide, remove, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.bundle.releases import read_releases
from regwrap.commands.gc_releases import NO_RELEASES, GcReleaseReport, KeptReleases, choose_releases, release_reports
from regwrap.core.errors import UsageError
from regwrap.storage.gc import DroppedImage, Garbage, Keep, RepositoryGarbage, find_garbage
from regwrap.storage.lock import locked_storage
from regwrap.storage.own import is_own
from regwrap.storage.store import need_storage
from regwrap.storage.sweep import Disk, remove_garbage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.lists.imagelist import ImageEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """`offline`: the user says that nothing else writes. `lock_timeout` in seconds. `releases` are kept too.
    `for_good`: root is the storage's owner until the process ends."""

    dry_run: bool
    offline: bool
    lock_timeout: float
    releases: KeptReleases = NO_RELEASES
    for_good: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryReport:
    """`bytes`: blobs that only links of this kind need, so those of two repositories may count in both; and uploads."""

    name: str
    tags: int
    manifests: int
    layers: int
    bytes: int
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What went, or with `dry_run` would go. `bytes` counts each blob once, and the leftovers of uploads.
    `kept` are tags, `pinned` images that are kept by their digest alone."""

    dry_run: bool
    kept: int
    pinned: int
    images: tuple[DroppedImage, ...]
    repositories: tuple[RepositoryReport, ...]
    blobs: int
    bytes: int
    notes: tuple[str, ...]
    releases: tuple[GcReleaseReport, ...] = ()


def keep_of(images: Iterable[ImageEntry] | None, last: int | None) -> Keep:
    """What the lists and --keep-last keep; None: no list was given. Where a line has a digest, that image is kept, and
    the tag too, whatever it is by now: whoever listed it did not ask to lose it."""
    if images is None:
        return Keep(names=None, last=last)
    dests = [(entry.dest, entry.source.digest) for entry in images]
    return Keep(
        names=frozenset(f"{dest}" for dest, _digest in dests),
        last=last,
        digests=frozenset((dest.repository, digest) for dest, digest in dests if digest is not None),
    )


def collect_garbage(root: Path, keep: Keep, options: GcOptions, listener: Listener, disk: Disk) -> GcReport:
    """Remove from the storage at `root` what nothing needs that is to be kept.

    Raises UsageError where nothing would be left, or where somebody else may be writing. `disk` is the seam at which
    tests let file operations fail.
    """
    storage = need_storage(root)
    if not options.dry_run and not options.offline and not is_own(storage.tree):
        raise UsageError(
            f"{root} is not regwrap's own: an image pushed during gc could be lost",
            hint="stop its registry or make it read-only, then give --offline",
        )
    if options.for_good and not options.dry_run:
        storage.tree.become_owner()
    exclusive = not options.dry_run
    with locked_storage(storage.tree, exclusive=exclusive, timeout=options.lock_timeout, on_wait=listener.log):
        found = read_releases(storage.tree, listener)
        choice = choose_releases(storage, found, options.releases, keep)
        garbage = find_garbage(storage, choice.keep, listener)
        left: tuple[str, ...] = ()
        if not options.dry_run:
            listener.expect("gc", garbage.blob_bytes)
            left = remove_garbage(storage.tree, garbage, disk, listener.on_bytes)
    notes = (*found.notes, *filter(None, (choice.note,)), *garbage.notes, *_left_notes(left))
    return _report(garbage, notes, release_reports(found, choice.kept, garbage), dry_run=options.dry_run)


def _left_notes(left: tuple[str, ...]) -> Iterator[str]:
    for path in left:
        yield f"{path} has something unknown in it; left alone"


def _report(
    garbage: Garbage, notes: tuple[str, ...], releases: tuple[GcReleaseReport, ...], *, dry_run: bool
) -> GcReport:
    return GcReport(
        dry_run=dry_run,
        kept=garbage.kept,
        pinned=garbage.pinned,
        images=garbage.images,
        repositories=tuple(_repository_report(r) for r in garbage.repositories if not _is_bare(r)),
        blobs=len(garbage.blobs),
        bytes=garbage.blob_bytes + sum(r.uploads or 0 for r in garbage.repositories),
        notes=notes,
        releases=releases,
    )


def _is_bare(repository: RepositoryGarbage) -> bool:
    """A directory of which nothing is left but itself."""
    return not (repository.tags or repository.history or repository.revisions or repository.layers) and not (
        repository.uploads
    )


def _repository_report(repository: RepositoryGarbage) -> RepositoryReport:
    return RepositoryReport(
        name=repository.name,
        tags=len(repository.tags),
        manifests=len(repository.revisions),
        layers=len(repository.layers),
        bytes=repository.bytes,
        gone=repository.gone,
    )
