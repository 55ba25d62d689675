"""Bring a list's images to one place: look at both ends, plan, carry. `sync` is that, and so is an overlay's upper."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from regwrap.carry import Carrier, RegistryCarrier, StorageCarrier
from regwrap.errors import ToolError, UsageError
from regwrap.fetch import Stage, StreamFetcher
from regwrap.imagelist import ImageList
from regwrap.observe import End, Observer, RegistryEnd, StorageEnd, tag_moved
from regwrap.pipeline.ends import Ends
from regwrap.pipeline.job import Job
from regwrap.plan import Moved, Plan, make_plan
from regwrap.storage.commit import Additions, GroupCommit, Owner, RealFiles, commit, put_increment
from regwrap.storage.lock import OWN_DIR, mark_own
from regwrap.storage.store import SoundBlobs
from regwrap.sync import Copied, SyncReport, run_plan
from regwrap.tools.imageproxy import ImageProxies


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    plan: Plan
    report: SyncReport | None


def sync_images(job: Job, images: ImageList, *, hashed: bool, dry_run: bool) -> SyncResult:
    """Bring the listed images to the archive; with `dry_run` only say what would be done.

    `hashed` reads every blob of a local archive, so that rot is found and sent again.
    """
    with ExitStack() as stack:
        ends = Ends(job=job, stack=stack)
        ends.check_sources(images)
        dest = ends.of(job.archive)
        descriptor = _lock_dest(job, dest, stack, dry_run=dry_run)
        for storage in ends.storages():
            if storage != dest:
                stack.enter_context(job.locked(storage.storage.root, exclusive=False))
        return bring_images(Target(dest=dest, ends=ends, descriptor=descriptor), images, hashed=hashed, dry_run=dry_run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where images go. `descriptor` of the lock that writers inherit."""

    dest: RegistryEnd | StorageEnd
    ends: Ends
    descriptor: int | None = None
    increment: "Increment | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Increment:
    """What is added to a storage that is only read, for one run: blobs go to `blobs`, links to the storage's root.

    A crash throws it away, so nothing has to be on the disk early, and no order has to be kept. Blobs that are there
    count by their size, since what is made of them is hashed as a whole.
    """

    blobs: Path


def bring_images(target: Target, images: ImageList, *, hashed: bool, dry_run: bool = False) -> SyncResult:
    """Look at both ends, plan, and carry the plan out. The locks are the caller's. Call from the main thread."""
    started, job, dest = time.monotonic(), target.ends.job, target.dest
    retry = replace(job.retry, on_give_up=target.ends.gates.gave_up)
    sound = SoundBlobs(storage=dest.storage, hashed=hashed) if isinstance(dest, StorageEnd) else None
    observer = Observer(source_of=target.ends.source_of, dest=dest, retry=retry, sound=sound)
    plan = make_plan(observer.observe_images(images.entries, job.jobs))
    if dry_run:
        return SyncResult(plan=plan, report=None)
    job.listener.expect("sync", plan.bytes_missing)
    with ExitStack() as stack:
        carrier = _carrier(target, stack, plan, hashed=hashed)
        job.listener.watch(carrier.bytes_under_way)
        report = run_plan(plan, carrier, jobs=job.jobs, retry=retry, events=job.listener.events)
    # nobody hears of it from a package, in which every image counts as copied
    meanwhile = _moved_meanwhile(target.ends, report.copied) if target.increment is None else ()
    moved = (*plan.moved, *meanwhile)
    return SyncResult(plan=plan, report=replace(report, moved=moved, seconds=time.monotonic() - started))


def _moved_meanwhile(ends: Ends, copied: tuple[Copied, ...]) -> tuple[Moved, ...]:
    """The tags that another image has got while they were copied: one more HEAD for each image that was copied."""

    def look(item: Copied) -> Moved | None:
        entry = item.copy.entry
        return None if entry.locked else tag_moved(ends.source_of(entry), entry, item.copy.digest)

    with ThreadPoolExecutor(ends.job.jobs, thread_name_prefix="look") as pool:
        found = tuple(pool.map(look, copied))
    return tuple(sorted((item for item in found if item), key=lambda item: item.entry.dest))


def _lock_dest(job: Job, dest: End, stack: ExitStack, *, dry_run: bool) -> int | None:
    if not isinstance(dest, StorageEnd):
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


def _carrier(target: Target, stack: ExitStack, plan: Plan, *, hashed: bool) -> Carrier:
    dest, ends = target.dest, target.ends
    if isinstance(dest, RegistryEnd):
        ends.serve_storages(plan)
        return RegistryCarrier(dest=dest, served=ends.served)
    links, increment = dest.storage.root, target.increment
    root = links if increment is None else increment.blobs
    stage = Stage(stack.enter_context(_stage(root)))
    _check_space(root, plan)
    files = RealFiles(Owner.of(root))

    def write(additions: Additions) -> None:
        if increment is None:
            commit(root, additions, stage=stage.root, files=files)
        else:
            put_increment(additions, blobs=root, links=links)

    sound = SoundBlobs(storage=dest.storage, hashed=hashed or increment is None)
    return StorageCarrier(
        storage=dest.storage,
        stage=stage,
        source_of=ends.source_of,
        fetcher=StreamFetcher(stage=stage, proxies=_proxies(ends, stack, plan)),
        commit=GroupCommit(write),
        sound=sound,
    )


def _proxies(ends: Ends, stack: ExitStack, plan: Plan) -> ImageProxies:
    repositories: dict[str, set[str]] = {}
    for copy in plan.copies:
        source = ends.source_of(copy.entry)
        if isinstance(source, RegistryEnd):
            repositories.setdefault(source.registry.host, set()).add(copy.entry.source.repository)
    named = {host: sorted(names) for host, names in repositories.items()}
    proxies = ImageProxies(skopeo=ends.skopeo(), repositories=named)
    stack.callback(proxies.close)
    return proxies


@contextmanager
def _stage(root: Path) -> Iterator[Path]:
    """The archive's stage. Blobs that a killed run left in it are kept: they are hashed before they count."""
    stage = root / OWN_DIR / "sync"
    for name in ("copies", "links"):
        shutil.rmtree(stage / name, ignore_errors=True)
    (stage / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (stage / "copies").mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _check_space(root: Path, plan: Plan) -> None:
    status = os.statvfs(root)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and free < plan.bytes_missing:
        raise ToolError(
            f"not enough space in {root}: {plan.bytes_missing:,} bytes have to come, {free:,} are free",
            hint="free space there, or choose another archive (archive: in the configuration, or --archive)",
        )
