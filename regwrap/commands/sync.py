"""Bring a list's images to one place: look at both ends, plan, carry. `sync` is that, and so is an overlay's upper."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import ImageSource, StorageSource
from regwrap.core.errors import UsageError
from regwrap.core.pool import map_in_order
from regwrap.storage.lock import mark_own
from regwrap.storage.stage import remove_stage, sync_stage
from regwrap.storage.store import SoundBlobs
from regwrap.transfer.carriers import Target, check_way
from regwrap.transfer.ends import Ends
from regwrap.transfer.observe import Observer, tag_moved
from regwrap.transfer.plan import Moved, Plan, choose_way, make_plan
from regwrap.transfer.referrers import with_referrers
from regwrap.transfer.run import Copied, SyncReport, nothing_copied, run_plan

if TYPE_CHECKING:
    from regwrap.lists.imagelist import ImageList
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    plan: Plan
    report: SyncReport | None


def sync_images(job: Job, images: ImageList, *, hashed: bool, dry_run: bool, referrers: bool = False) -> SyncResult:
    """Bring the listed images to the archive; with `dry_run` only say what would be done.

    `hashed` reads every blob of a local archive, so that rot is found and sent again. With `referrers` what is about
    the images comes too: signatures, SBOMs.
    """
    with ExitStack() as stack:
        ends = Ends(job=job, stack=stack)
        ends.check_sources(images)
        dest = ends.of(job.archive)
        descriptor = _lock_dest(job, dest, stack, dry_run=dry_run)
        for storage in ends.storages():
            if storage != dest:
                stack.enter_context(job.locked(storage.storage.root, exclusive=False))
        images = with_referrers(ends, images) if referrers else images
        return bring_images(Target(dest=dest, ends=ends, descriptor=descriptor), images, hashed=hashed, dry_run=dry_run)


def bring_images(target: Target, images: ImageList, *, hashed: bool, dry_run: bool = False) -> SyncResult:
    """Look at both ends, plan, and carry the plan out. The locks are the caller's. Call from the main thread."""
    started, job, dest = time.monotonic(), target.ends.job, target.dest
    sound = SoundBlobs(storage=dest.storage, hashed=hashed) if isinstance(dest, StorageSource) else None
    observer = Observer(
        source_of=target.ends.source_of, dest=dest, retry=job.retry, sound=sound, gave_up=target.ends.limiters.gave_up
    )
    way = choose_way(job.engine, to_storage=isinstance(dest, StorageSource))
    check_way(target, way)
    plan = replace(make_plan(observer.observe_images(images.entries, job.jobs)), way=way)
    if dry_run:
        return SyncResult(plan=plan, report=None)
    job.listener.expect("sync", plan.bytes_missing)
    report = _carried(target, plan, hashed=hashed)
    # nobody hears of it from a package, in which every image counts as copied
    meanwhile = _moved_meanwhile(target.ends, report.copied) if target.upper is None else ()
    moved = (*plan.moved, *meanwhile)
    return SyncResult(plan=plan, report=replace(report, moved=moved, seconds=time.monotonic() - started))


def _carried(target: Target, plan: Plan, *, hashed: bool) -> SyncReport:
    if not plan.copies:
        if isinstance(target.dest, StorageSource) and target.upper is None:
            remove_stage(sync_stage(target.dest.storage.root))  # a killed run's
        return nothing_copied(plan)
    from regwrap.transfer.carriers import make_carrier  # brings all that carries, and most runs copy nothing

    job = target.ends.job
    with ExitStack() as stack:
        carrier = make_carrier(target, stack, plan, hashed=hashed)
        job.listener.watch(carrier.bytes_under_way)
        return run_plan(
            plan, carrier, jobs=job.jobs, retry=job.retry, events=job.listener, gave_up=target.ends.limiters.gave_up
        )


def _moved_meanwhile(ends: Ends, copied: tuple[Copied, ...]) -> tuple[Moved, ...]:
    """The tags that another image has got while they were copied: one more HEAD for each image that was copied."""

    def look(item: Copied) -> Moved | None:
        entry = item.copy.entry
        return None if entry.locked else tag_moved(ends.source_of(entry), entry, item.copy.digest)

    job = ends.job
    found = map_in_order(look, copied, workers=job.jobs, name="look", stopping=job.retry.stopping)
    return tuple(sorted((item for item in found if item), key=lambda item: item.entry.dest))


def _lock_dest(job: Job, dest: ImageSource, stack: ExitStack, *, dry_run: bool) -> int | None:
    if not isinstance(dest, StorageSource):
        return None
    if dry_run:
        return None  # looks only, and must not make the archive
    root = dest.storage.root
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the archive {root} can't be made: {error.strerror}") from error
    descriptor = stack.enter_context(job.locked(root, exclusive=True))
    if job.archive.registry is None and not os.path.lexists(root / "docker"):
        mark_own(root)
    return descriptor
