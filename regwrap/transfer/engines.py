"""Who runs a plan: by the kind of destination, and by the engine."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.counts import counted
from regwrap.core.errors import UsageError
from regwrap.core.location import Engine
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.storage.commit import Additions, GroupCommit, Owner, RealFiles, commit, put_unordered
from regwrap.storage.own import own_tree
from regwrap.storage.space import free_space, need_space
from regwrap.storage.stage import SYNC, remove_stage
from regwrap.storage.store import ValidBlobs
from regwrap.storage.tree import Tree
from regwrap.tools.curl import Curl
from regwrap.transfer.at_worker import mark_stage, unmark_stage
from regwrap.transfer.blob_index import BlobIndex, index_of
from regwrap.transfer.blob_work import BlobWork
from regwrap.transfer.by_curl import BlobFetcher
from regwrap.transfer.by_skopeo import BatchCopier, RegistryCopier, make_batches
from regwrap.transfer.fetch import BLOBS, COPIES, LINKS, PARTS, LayoutFetcher, Stage
from regwrap.transfer.into_bundle import BundleDestination
from regwrap.transfer.into_registry import BlobSender, RegistryDestination, SendingFetcher, targets_of
from regwrap.transfer.into_storage import StorageDestination
from regwrap.transfer.orders import SharedFiles
from regwrap.transfer.plan import Plan
from regwrap.transfer.run import report_of, run_plan
from regwrap.transfer.run_blobs import BlobRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from regwrap.bundle.in_place import BundleInPlace
    from regwrap.core.model import Destination, Digest
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.transfer.blob_work import BlobDestination, Here
    from regwrap.transfer.by_curl import BlobSource, Fetcher, PartFiles
    from regwrap.transfer.endpoints import Endpoints, Writing
    from regwrap.transfer.job import Job
    from regwrap.transfer.run import ImageCopier, SyncReport
    from regwrap.transfer.workers import Workers


def transfer_images(
    plan: Plan, dest: RegistryEndpoint | StorageSource, *, endpoints: Endpoints, writing: Writing
) -> SyncReport:
    """Copy what the plan says by its engine. Call from the main thread."""
    with ExitStack() as stack:
        if isinstance(dest, RegistryEndpoint):
            return _into_registry(plan, dest, endpoints)
        copier = _to_storage(dest, writing, endpoints, stack, plan)
        if _engine(plan) is Engine.COPY:
            return _run_images(plan, copier, endpoints)
        with _marked(copier.stage, endpoints.job):
            work = _work(copier, _fetcher(copier, endpoints), endpoints, here=copier)
            return _run_blobs(plan, work, copier, endpoints)


def _engine(plan: Plan) -> Engine:
    return plan.way.engine if plan.way else Engine.AUTO


def _run_images(plan: Plan, copier: ImageCopier, endpoints: Endpoints) -> SyncReport:
    job = endpoints.job
    gave_up = endpoints.limiters.gave_up
    return run_plan(plan, copier, jobs=job.jobs, retry=job.retry, events=job.listener, gave_up=gave_up)


@dataclass(frozen=True, slots=True)
class Filling:
    """A bundle's file, and the archive that has blobs for it; `hashed=False` believes it. `in_order`: blobs are wanted
    as they lie in the file, since it is read meanwhile."""

    file: BundleInPlace
    archive: StorageSource
    _: KW_ONLY
    hashed: bool
    in_order: bool


def fill_bundle(plan: Plan, filling: Filling, *, endpoints: Endpoints) -> SyncReport:
    """Fetch the blobs of all the plan's copies into a bundle's file."""
    archive = filling.archive
    with tempfile.TemporaryDirectory(dir=endpoints.job.scratch) as scratch:
        stage, valid = Stage(Tree(Path(scratch))), ValidBlobs(storage=archive.storage, hashed=False)
        for name in (BLOBS, COPIES):
            stage.tree.make_directories(name)
        fetcher = LayoutFetcher(
            stage=stage, storage=archive.storage, valid=valid, skopeo=endpoints.skopeo(), inherit=()
        )
        copier = BundleDestination(
            file=filling.file,
            archive=archive,
            source_of=endpoints.source_of,
            hashed=filling.hashed,
            stage=stage,
            fetcher=fetcher,
        )
        work = _work(copier, _curl(copier, endpoints.job), endpoints, here=copier)
        return _run_blobs(plan, replace(work, in_order=filling.in_order), copier, endpoints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What a run of blobs into the registry `dest` needs. `index` is what it has before, `by_skopeo` copies what only
    skopeo can ask for, `shared` says what of this machine a cluster's workers have by the same path."""

    dest: RegistryEndpoint
    source_of: Callable[[ImageEntry], BlobSource]
    index: BlobIndex
    by_skopeo: RegistryCopier
    shared: Callable[[BlobSource], SharedFiles | None]


def send_images(plan: Plan, sending: Sending, *, endpoints: Endpoints) -> SyncReport:
    """Each blob of the plan's copies once, and their manifests. Call from the main thread."""
    job, dest, targets = endpoints.job, sending.dest, targets_of(plan.copies)
    sender = BlobSender(
        dest=dest, index=sending.index, limiters=endpoints.limiters, timeouts=job.timeouts, stopping=job.stopping
    )
    fetcher: Fetcher = SendingFetcher(sender=sender, targets=targets, jobs=job.jobs, retry=job.retry)
    if job.workers is not None:
        fetcher = _by_workers(fetcher, sending, targets, job.workers, endpoints)
    into = RegistryDestination(dest=dest, source_of=sending.source_of)
    return _run_blobs(plan, _work(into, fetcher, endpoints), sending.by_skopeo, endpoints)


def _by_workers(
    here: Fetcher,
    sending: Sending,
    targets: Mapping[Digest, Sequence[Destination]],
    workers: Workers,
    endpoints: Endpoints,
) -> Fetcher:
    """What was unpacked here is sent from here."""
    from regwrap.transfer.by_cluster import ClusterFetcher, IntoRegistry  # seldom asked for

    orders = IntoRegistry(
        workers=workers,
        endpoints=endpoints,
        dest=sending.dest,
        index=sending.index,
        targets=targets,
        shared=sending.shared,
    )

    def own(end: BlobSource) -> Fetcher | None:
        return None if isinstance(end, RegistryEndpoint) or sending.shared(end) is not None else here

    return ClusterFetcher(
        workers=workers, limiters=endpoints.limiters, orders=orders, retry=endpoints.job.retry, own=own
    )


def _work(dest: BlobDestination, fetcher: Fetcher, endpoints: Endpoints, here: Here | None = None) -> BlobWork:
    return BlobWork(
        dest=dest,
        here=here,
        fetcher=fetcher,
        jobs=endpoints.job.jobs,
        retry=endpoints.job.retry,
        events=endpoints.job.listener,
        gave_up=endpoints.limiters.gave_up,
    )


def _run_blobs(plan: Plan, work: BlobWork, by_skopeo: ImageCopier, endpoints: Endpoints) -> SyncReport:
    """Blob by blob; then, image by image, what only skopeo can ask for."""
    started = time.monotonic()
    report = BlobRun(work=work).run(plan.copies)
    outcomes = report.outcomes
    if report.left:
        left = Plan(copies=report.left, skips=(), unseen=())
        endpoints.job.listener.expect("skopeo", left.bytes_missing)
        rest = _run_images(left, by_skopeo, endpoints)
        copied = (replace(one, sent=one.sent + report.sent[one.copy.entry.dest]) for one in rest.copied)
        failed = (replace(one, sent=one.sent + report.sent[one.entry.dest]) for one in rest.failed)
        outcomes = (*outcomes, *copied, *failed)
    return report_of(plan, outcomes, time.monotonic() - started)


def _fetcher(copier: StorageDestination, endpoints: Endpoints) -> Fetcher:
    job = endpoints.job
    if job.workers is not None:
        from regwrap.transfer.by_cluster import ClusterFetcher, IntoStage  # seldom asked for

        orders = IntoStage(workers=job.workers, endpoints=endpoints, root=copier.storage.root)
        return ClusterFetcher(workers=job.workers, limiters=endpoints.limiters, orders=orders, retry=job.retry)
    return _curl(copier.stage, job)


def _curl(parts: PartFiles, job: Job) -> BlobFetcher:
    curl = Curl(runner=job.runner, scratch=job.scratch, timeouts=job.timeouts)
    return BlobFetcher(curl=curl, parts=parts, scratch=job.scratch, retry=job.retry)


@contextmanager
def _marked(stage: Stage, job: Job) -> Iterator[None]:
    """The stage, so that workers see that theirs is the same."""
    if job.workers is None:
        yield
        return
    mark_stage(stage, job.workers.run)
    try:
        yield
    finally:
        unmark_stage(stage, job.workers.run)


def _into_registry(plan: Plan, dest: RegistryEndpoint, endpoints: Endpoints) -> SyncReport:
    index = _index(dest, endpoints, plan)
    by_skopeo = RegistryCopier(dest=dest, served=endpoints.served, index=index)
    match _engine(plan):
        case Engine.COPY:
            return _run_images(plan, by_skopeo, endpoints)
        case Engine.SYNC:
            batched = BatchCopier(registry=by_skopeo, stopping=endpoints.job.stopping)
            batches = make_batches(plan.copies, endpoints.served)
            images = counted(sum(len(batch.copies) for batch in batches), "image")
            endpoints.job.listener.log(f"skopeo sync: {counted(len(batches), 'batch', 'batches')} of {images}")
            batched.run(batches, endpoints.job.jobs)
            return _run_images(plan, batched, endpoints)
        case _:
            sending = Sending(
                dest=dest, source_of=endpoints.source_of, index=index, by_skopeo=by_skopeo, shared=_shared
            )
            return send_images(plan, sending, endpoints=endpoints)


def _shared(end: BlobSource) -> SharedFiles | None:
    """What of this machine workers have too: all but what was unpacked here."""
    return SharedFiles(f"{end.storage.root}") if isinstance(end, StorageSource) else None


def _index(dest: RegistryEndpoint, endpoints: Endpoints, plan: Plan) -> BlobIndex:
    """What is at the destination before anything is copied; it has the images that come from it, too."""
    index = index_of(plan.copies)
    for copy in plan.copies:
        if endpoints.source_of(copy.entry) is dest:
            index.add(copy.entry.source.repository, (blob.digest for blob in copy.closure.blobs))
    return index


def _to_storage(
    dest: StorageSource, writing: Writing, endpoints: Endpoints, stack: ExitStack, plan: Plan
) -> StorageDestination:
    links = dest.storage.tree
    tree = links if writing.upper is None else Tree(writing.upper)
    _check_programs(plan, tree)
    stage = stack.enter_context(_stage(own_tree(tree)))
    stage.is_wanted = bool(plan.unseen)  # an earlier run may have left blobs of them
    _check_space(tree, plan)
    files = RealFiles(Owner.of(tree))

    def write(additions: Additions) -> None:
        if writing.upper is None:
            commit(tree, additions, stage=stage.tree, files=files)
        else:
            put_unordered(additions, stage=stage.tree, blobs=tree, links=links)

    valid = ValidBlobs(storage=dest.storage, hashed=writing.hashed)
    inherit = () if writing.descriptor is None else (writing.descriptor,)
    fetcher = LayoutFetcher(stage=stage, storage=dest.storage, valid=valid, skopeo=endpoints.skopeo(), inherit=inherit)
    return StorageDestination(
        storage=dest.storage,
        stage=stage,
        source_of=endpoints.source_of,
        fetcher=fetcher,
        commit=GroupCommit(write),
        valid=valid,
    )


@contextmanager
def _stage(own: Tree) -> Iterator[Stage]:
    """The archive's stage. Blobs that an earlier run left in it are kept: they are hashed before they count. Those of
    images that were not finished stay for the next run."""
    for name in (COPIES, LINKS):
        remove_stage(own, f"{SYNC}/{name}")
    own.make_directories(f"{SYNC}/{BLOBS}")
    own.make_directories(f"{SYNC}/{PARTS}")
    own.make_directory(f"{SYNC}/{COPIES}")
    stage = Stage(own.inner(SYNC))
    try:
        yield stage
    finally:
        for name in (f"{SYNC}/{COPIES}", f"{SYNC}/{LINKS}") if stage.is_wanted else (SYNC,):
            remove_stage(own, name)


def _check_programs(plan: Plan, tree: Tree) -> None:
    """skopeo takes paths, and would follow what the storage's owner puts there."""
    if _engine(plan) is Engine.COPY and tree.uid != os.geteuid():
        raise UsageError(
            f"--engine copy lets skopeo write into {tree.root} as root, and uid {tree.uid} owns it",
            hint="use another engine, or run regwrap as the owner",
        )


def _check_space(tree: Tree, plan: Plan) -> None:
    """An image that alone has no room, by what its registry says of it, keeps no other from being copied."""
    free = free_space(tree.descriptor)
    fitting = tuple(copy for copy in plan.copies if free.has(copy.bytes_missing))
    needed = replace(plan, copies=fitting or plan.copies).bytes_missing
    hint = "free space there, or choose another archive (archive: in the configuration, or --archive)"
    need_space(tree.root, needed, at=tree.descriptor, hint=hint)
