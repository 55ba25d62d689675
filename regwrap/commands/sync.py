"""Copy a list's images to one place: look at both ends, plan, copy. `sync` is that, and so is an overlay's upper."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.errors import UsageError
from regwrap.core.listener import telling
from regwrap.core.location import Engine
from regwrap.storage.own import mark_own, own_tree
from regwrap.storage.stage import SYNC, remove_stage
from regwrap.storage.store import ValidBlobs
from regwrap.transfer.endpoints import Endpoints, Writing
from regwrap.transfer.mirrors import through_mirrors
from regwrap.transfer.observe import Observer, drift_of
from regwrap.transfer.plan import Drifted, Plan, choose_engine, make_plan
from regwrap.transfer.referrers import with_referrers
from regwrap.transfer.run import Copied, SyncReport, nothing_copied
from regwrap.transfer.signed import only_signed, with_their_signatures

if TYPE_CHECKING:
    from regwrap.lists.imagelist import ImageList
    from regwrap.registry.endpoint import RegistryEndpoint
    from regwrap.transfer.job import Job
    from regwrap.transfer.plan import Unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What was to be done, and what came of it: `report` is None after a dry run."""

    plan: Plan
    report: SyncReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """`hashed` reads every blob of a local archive, so that rot is found and copied again. `dry_run` only says what
    would be done. `referrers`: with the images' referrers, signatures and SBOMs; `lost`: those whose referrers are
    unknown."""

    hashed: bool = False
    dry_run: bool = False
    referrers: bool = False
    lost: tuple[Unseen, ...] = ()


def sync_images(job: Job, images: ImageList, options: SyncOptions) -> SyncResult:
    """Copy the listed images to the archive, or say what would be done."""
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        endpoints.check_sources(images)
        dest = endpoints.of(job.archive)
        writing = Writing(descriptor=None if options.dry_run else _lock_dest(job, dest, stack))
        for storage in endpoints.storages():
            if storage != dest:
                stack.enter_context(job.locked(storage.storage.tree, exclusive=False))
        images, lost = to_copy(endpoints, images, referrers=options.referrers)
        return copy_images(endpoints, dest, images, options=replace(options, lost=lost), writing=writing)


def to_copy(endpoints: Endpoints, images: ImageList, *, referrers: bool) -> tuple[ImageList, tuple[Unseen, ...]]:
    """The list as it is copied: from mirrors, and with what belongs to its images; and those whose referrers are
    unknown."""
    find = with_referrers if referrers else with_their_signatures
    return find(endpoints, through_mirrors(endpoints, images))


def plan_images(
    endpoints: Endpoints, dest: RegistryEndpoint | StorageSource, images: ImageList, options: SyncOptions
) -> Plan:
    """Look at both ends of each image, and decide. Call from the main thread."""
    job = endpoints.job
    storage = dest if isinstance(dest, StorageSource) else None
    unsigned: tuple[Unseen, ...] = ()
    if job.signed:
        images, unsigned = only_signed(endpoints, images)
    choice = choose_engine(job.engine, storage.name if storage else None)
    observer = Observer(
        source_of=endpoints.source_of,
        dest=dest,
        retry=job.retry,
        valid=ValidBlobs(storage=storage.storage, hashed=options.hashed) if storage else None,
        gave_up=endpoints.limiters.gave_up,
        is_immutable=job.archive.is_immutable,
        brief=choice.engine is Engine.STREAM and not options.dry_run,
    )
    observed = (*observer.observe_images(images.entries, job), *options.lost, *unsigned)
    return replace(make_plan(observed), way=choice)


def copy_images(
    endpoints: Endpoints,
    dest: RegistryEndpoint | StorageSource,
    images: ImageList,
    *,
    options: SyncOptions,
    writing: Writing,
) -> SyncResult:
    """Look at both ends, plan, and copy what is missing. The locks are the caller's. Call from the main thread."""
    started, job = time.monotonic(), endpoints.job
    plan = plan_images(endpoints, dest, images, options)
    if options.dry_run:
        return SyncResult(plan=plan, report=None)
    job.listener.expect("sync", plan.bytes_missing)
    report = _copied(endpoints, dest, plan, writing)
    # nobody hears of it from a package, in which every image counts as copied
    meanwhile = _drifted_meanwhile(endpoints, report.copied) if writing.upper is None else ()
    moved = (*plan.moved, *meanwhile)
    report = replace(report, moved=moved, release=images.release, workers=job.workers.shares if job.workers else ())
    return SyncResult(plan=plan, report=replace(report, seconds=time.monotonic() - started))


def _copied(endpoints: Endpoints, dest: RegistryEndpoint | StorageSource, plan: Plan, writing: Writing) -> SyncReport:
    if not plan.copies:
        if isinstance(dest, StorageSource) and writing.upper is None and not plan.unseen:
            remove_stage(own_tree(dest.storage.tree), SYNC)  # a killed run's
        return nothing_copied(plan)
    from regwrap.transfer.engines import transfer_images  # imports all that copies, and most runs copy nothing

    return transfer_images(plan, dest, endpoints=endpoints, writing=writing)


def _drifted_meanwhile(endpoints: Endpoints, copied: tuple[Copied, ...]) -> tuple[Drifted, ...]:
    """The tags that another image has got while they were copied: one more HEAD for each image that was copied."""

    def look(item: Copied) -> Drifted | None:
        entry = item.copy.entry
        return None if entry.locked else drift_of(endpoints.source_of(entry), entry, item.copy.digest)

    job = endpoints.job
    job.listener.count("look", "tags that were copied", len(copied))
    found = job.ask(telling(job.listener, look), copied)
    return tuple(sorted((item for item in found if item), key=lambda item: item.entry.dest))


def _lock_dest(job: Job, dest: RegistryEndpoint | StorageSource, stack: ExitStack) -> int | None:
    """A storage is made and locked; whoever only looks must do neither."""
    if not isinstance(dest, StorageSource):
        return None
    root = dest.storage.root
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the archive {root} cannot be created: {error.strerror}") from error
    tree = dest.storage.tree
    descriptor = stack.enter_context(job.locked(tree, exclusive=True))
    if job.archive.registry is None and tree.stat("docker") is None:
        mark_own(tree)
    return descriptor
