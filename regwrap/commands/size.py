"""What a bundle will have, before its first byte: images and bytes, what each alone adds, what is new since another."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from regwrap.bundle.delta import older_of, since
from regwrap.bundle.gather import Gathering
from regwrap.bundle.select import select_images
from regwrap.commands.package import PackageOptions, Strategy
from regwrap.commands.sync import SyncOptions, sync_images
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, IntegrityError
from regwrap.core.listener import counted_by
from regwrap.core.model import Digest
from regwrap.core.release_id import ReleaseId
from regwrap.core.text import human_bytes
from regwrap.lists.imagelist import need_source
from regwrap.storage.store import Storage, real_root

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from regwrap.bundle.as_list import Listing
    from regwrap.bundle.contents import BundleContents
    from regwrap.core.closure import Closure
    from regwrap.lists.imagelist import ImageEntry, ImageList
    from regwrap.transfer.job import Job

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedImage:
    """`size` is all that the image needs, `alone` what only this image needs, `new` what the older release does not
    have; None without one. Bytes."""

    image: str
    digest: Digest
    size: int
    alone: int
    new: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePlan:
    """`release` is what it will be, without an id while images are still to be fetched. `file_bytes` is the tar's size:
    a delta's, where `since` says which blobs a site has. `fetched_bytes` of the blobs are not in the archive yet.
    `new_bytes` are not in `since`; None without it."""

    release: ReleaseId
    images: tuple[PlannedImage, ...]
    blobs: int
    blob_bytes: int
    file_bytes: int
    fetched_bytes: int
    since: str
    new_bytes: int | None

    def largest(self) -> tuple[PlannedImage, ...]:
        """By what they add: to the older release, or else to the bundle."""
        return tuple(sorted(self.images, key=lambda i: (-(i.alone if i.new is None else i.new), -i.size, i.image)))


def plan_bundle(job: Job, images: ImageList, options: PackageOptions, since: Sequence[Listing] = ()) -> BundlePlan:
    """Look at the archive, and at the sources of what is missing there; nothing is copied or written.

    Raises ImagesFailedError where an image cannot be had.
    """
    if job.archive.image is None:
        return _plan_bundle(job, images, options, since)
    from regwrap.commands.history import history_in_place  # images are seldom the history

    with history_in_place(job, job.archive.image, options.upper) as placed:
        return _plan_bundle(placed, images, options, since)


def _plan_bundle(job: Job, images: ImageList, options: PackageOptions, since: Sequence[Listing] = ()) -> BundlePlan:
    if options.strategy is Strategy.DIRECT and (job.archive.storage is None or not options.from_archive):
        job, _empty = job.without_archive()
    root = job.archive_directory("set its storage: in the configuration, or give --archive DIR")
    storage = Storage(real_root(root))
    if options.referrers:
        from regwrap.transfer.referrers import with_referrers_there  # knows registries too

        images = with_referrers_there(storage, images, job.listener)
    elif job.signed:
        from regwrap.transfer.signed import with_their_signatures_there

        images = with_their_signatures_there(job, storage, images)
    closures = _closures(job, images, storage, options)
    gathering = Gathering()
    for entry, closure in closures:
        repository, tag = entry.dest.repository, entry.dest.tag
        gathering.add(repository, tag, closure, omitted=closure.omitted, read_config=storage.read_config)
    contents = replace(gathering.contents(), name=options.name)
    older = set().union(*(known_blobs(item, storage) for item in since)) if since else None
    sizes = {f"{entry.dest}": sizes_of(closure) for entry, closure in closures}
    fetched = sum(size for digest, size in contents.blobs if storage.blob_size(digest) is None)
    return BundlePlan(
        # the id hangs on configs too, which are not at hand before they are fetched
        release=ReleaseId(contents.name, None if fetched else contents.id),
        images=_images(contents, sizes, older),
        blobs=len(contents.blobs),
        blob_bytes=contents.blob_bytes,
        file_bytes=_written(contents, since).tar_bytes,
        fetched_bytes=fetched,
        since=", ".join(item.images.name for item in since),
        new_bytes=None if older is None else _new(contents.sizes, older),
    )


def _written(contents: BundleContents, listings: Sequence[Listing]) -> BundleContents:
    """What package writes: of lists only the new bytes are shown, they don't say what a site has."""
    if any(item.blobs is None for item in listings):
        return contents
    return since(contents, tuple(older_of(item) for item in listings))


def _images(
    contents: BundleContents, sizes: Mapping[str, Mapping[Digest, int]], older: set[Digest] | None
) -> tuple[PlannedImage, ...]:
    users = Counter(digest for found in sizes.values() for digest in found)
    return tuple(
        PlannedImage(
            image=image.name,
            digest=image.digest,
            size=sum(sizes[image.name].values()),
            alone=sum(size for digest, size in sizes[image.name].items() if users[digest] == 1),
            new=None if older is None else _new(sizes[image.name], older),
        )
        for image in contents.images
    )


def refuse_larger(plan: BundlePlan, limit: int) -> None:
    """Raises ImagesFailedError where the bundle would be larger, with the images that add most."""
    if plan.file_bytes <= limit:
        return
    shown = plan.largest()[:_SHOWN]
    rows = (f"{i.image}: {human_bytes(i.size)}, {human_bytes(i.alone)} of it alone{_since(i)}" for i in shown)
    raise ImagesFailedError(
        f"the bundle would have {human_bytes(plan.file_bytes)}, more than the {human_bytes(limit)} of --max-size;"
        " nothing was written",
        detail="\n".join(rows),
        hint="drop images or platforms (platform=…), or raise the limit; regwrap package --dry-run shows all images",
    )


def _since(image: PlannedImage) -> str:
    return "" if image.new is None else f", {human_bytes(image.new)} new"


def _closures(
    job: Job, images: ImageList, storage: Storage, options: PackageOptions
) -> list[tuple[ImageEntry, Closure]]:
    """All of each image: as the archive has it, or else as its source does, with its referrers there."""
    ask = options.strategy is not Strategy.SELECT
    job.listener.count("select", "images read", len(images.entries))
    told = counted_by(job.listener, images.entries)
    there = {entry.dest: closure for entry in told if (closure := _closure_there(storage, entry))}
    missing = replace(images, entries=tuple(entry for entry in images.entries if entry.dest not in there))
    if missing.entries and not (ask and (job.source or not need_source(missing))):
        select_images(storage, images.entries)  # raises, and says of each why
    found = [(entry, there[entry.dest]) for entry in images.entries if entry.dest in there]
    return [*found, *(_closures_at_source(job, missing, storage, options) if missing.entries else ())]


def _closure_there(storage: Storage, entry: ImageEntry) -> Closure | None:
    """All of the image, if the archive has it as it is listed."""
    repository, digest = entry.dest.repository, storage.resolve(entry.dest.repository, entry.dest.tag)
    if digest is None or entry.source.digest not in {None, digest}:
        return None
    with suppress(ImagesFailedError, IntegrityError):
        closure = storage.closure(repository, digest, entry.platforms)
        if closure and not closure.missing and all(storage.is_valid(blob, hashed=False) for blob in closure.blobs):
            return closure
    return None


def _closures_at_source(
    job: Job, images: ImageList, storage: Storage, options: PackageOptions
) -> list[tuple[ImageEntry, Closure]]:
    plan = sync_images(job, images, SyncOptions(dry_run=True, referrers=options.referrers)).plan
    found = [(copy.entry, copy.closure) for copy in plan.copies]
    failed = [f"{item.entry.dest}: {item.error}" for item in plan.unseen]
    for skip in plan.skips:  # came meanwhile
        closure = storage.closure(skip.entry.dest.repository, skip.digest, skip.entry.platforms)
        if closure is not None:
            found.append((skip.entry, closure))
    if failed:
        raise ImagesFailedError(
            f"{len(failed)} of {counted(len(images.entries), 'image')} that the archive lacks"
            " cannot be read from their sources",
            detail="\n".join(failed),
            hint="fix these lines or their registry, or drop them, and rerun",
        )
    return found


def sizes_of(closure: Closure) -> dict[Digest, int]:
    """Every manifest and blob with its bytes."""
    manifests = {manifest.digest: len(manifest.raw) for manifest in closure.manifests}
    return {**manifests, **{blob.digest: blob.size for blob in closure.blobs}}


def known_blobs(since: Listing, storage: Storage) -> set[Digest]:
    """What the older release holds: as it says, or as the archive has its images."""
    if since.blobs is not None:
        return set(since.blobs)
    found = set[Digest]()
    for entry in since.images.entries:
        digest = entry.source.digest or storage.resolve(entry.dest.repository, entry.dest.tag)
        closure = storage.closure(entry.dest.repository, digest, entry.platforms) if digest else None
        if closure is None:
            raise ImagesFailedError(
                f"{since.images.name}: {entry.dest} is not in the archive, so its size is not known",
                hint="give the older release's bundle, bundle.json or receipt",
            )
        found |= set(sizes_of(closure))
    return found


def _new(sizes: Mapping[Digest, int], older: set[Digest]) -> int:
    return sum(size for digest, size in sizes.items() if digest not in older)
