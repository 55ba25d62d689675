"""Push a bundle, or a storage, into any registry: compared, sent. Nothing is unpacked."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from regwrap.bundle.base import partly_based
from regwrap.bundle.by_repository import LocalSource, StorageSource
from regwrap.bundle.merge import refuse_moves
from regwrap.bundle.opened import check_bytes, opened_bases, opened_contents, whole_of
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.volume_places import named_directories
from regwrap.commands.push_delta import DeltaSource
from regwrap.commands.sync import SyncResult
from regwrap.core.closure import closure_of, shipped_platforms
from regwrap.core.counts import counted
from regwrap.core.errors import RegwrapError, UsageError
from regwrap.core.listener import counted_by
from regwrap.core.moves import Existing, PlatformIndex, TagMove
from regwrap.lists.naming import Naming, entry_of, renamed
from regwrap.registry.credentials import UnsureError
from regwrap.registry.harbor import Harbor
from regwrap.storage.store import Storage, real_root
from regwrap.storage.tree import Tree
from regwrap.transfer.blob_index import BlobIndex, index_of
from regwrap.transfer.by_skopeo import RegistryCopier
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.engines import Sending, send_images
from regwrap.transfer.into_registry import PARTIAL_HINT, partial_refusal
from regwrap.transfer.observe import Observer
from regwrap.transfer.orders import SharedFiles
from regwrap.transfer.plan import Lacking, Unseen, make_plan
from regwrap.transfer.rewritten import rewrite_indexes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from regwrap.bundle.image_set import ImageSet
    from regwrap.bundle.signature import Trust
    from regwrap.core.listener import Listener
    from regwrap.core.location import Location
    from regwrap.core.model import Digest, Platform
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.registry.endpoint import RegistryEndpoint
    from regwrap.transfer.job import Job
    from regwrap.transfer.plan import Observation, Plan, Skip
    from regwrap.transfer.run import SyncReport

_NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """`create_projects`: in Harbor. `existing`: what happens to a tag that is another image there. `hashed`: read every
    blob of the source before anything else. `bases` have of what a delta requires what the registry lacks. `trust` is
    asked for the release."""

    naming: Naming
    existing: Existing
    create_projects: bool
    hashed: bool
    dry_run: bool
    platform_index: PlatformIndex = PlatformIndex.KEEP
    bases: tuple[Path, ...] = ()
    trust: Trust | None = None


def push_images(job: Job, source: Path, location: Location, options: PushOptions) -> SyncResult:
    """Push all images of `source`; with `dry_run` only say what would be done. Call from the main thread.

    Raises UsageError where names or projects do not fit, and where tags would move: nothing was sent then.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        end = endpoints.registry(location)
        contents = _opened(job, source, stack, end, options)
        source_of_all, entries = _as_asked(
            job, contents, renamed(_entries(contents, job.listener), options.naming), options
        )
        absent = job.retry.call(lambda: _prepare_projects(job, end, entries, options))
        pushing = _Pushing(
            endpoints=endpoints,
            contents=source_of_all,
            dest=end,
            location=location,
            shared=_shared(source, contents) if not options.bases else None,
            brief=not options.dry_run and not isinstance(contents, DeltaSource),
        )
        observations = pushing.observe(entries, absent)
        if options.existing is Existing.FAIL:
            refuse_moves(_moves(observations), end.name, f"{source}")
        elsewhere = contents.elsewhere(observations) if isinstance(contents, DeltaSource) else {}
        plan = make_plan(observations, keep_tags=options.existing is Existing.SKIP)
        plan = _with_refusals(job, end, plan, dry_run=options.dry_run)
        if options.dry_run:
            return SyncResult(plan=plan, report=None)
        report = pushing.send(plan, elsewhere)
        release = None if isinstance(contents, StorageSource) else contents.contents.release
        report = replace(report, release=release, workers=job.workers.shares if job.workers else ())
        return SyncResult(plan=plan, report=replace(report, seconds=time.monotonic() - started))


def _opened(
    job: Job, source: Path, stack: ExitStack, end: RegistryEndpoint, options: PushOptions
) -> ImageSet | StorageSource | DeltaSource:
    if source.is_dir():
        stack.enter_context(job.locked(Tree(real_root(source)), exclusive=False, untouched=True))
        opened = opened_contents(source, hashed=options.hashed, listener=job.listener, bases=options.bases)
        return stack.enter_context(opened)
    bundle = stack.enter_context(opened_bundle(source, options.trust, job.listener))
    bases = stack.enter_context(opened_bases(options.bases, lock_timeout=job.timeouts.lock, listener=job.listener))
    bundle = partly_based(bundle, bases)
    image_set = whole_of(bundle)
    if options.hashed:
        check_bytes(image_set, bundle.held, job.listener)
    if not bundle.contents.required:
        return image_set
    return DeltaSource(bundle=bundle, image_set=image_set, end=end, naming=options.naming, bases=bases)


def _as_asked(
    job: Job, contents: LocalSource, entries: tuple[ImageEntry, ...], options: PushOptions
) -> tuple[LocalSource, tuple[ImageEntry, ...]]:
    """With the indexes that are asked for; each that gets another digest is told."""
    if options.platform_index is PlatformIndex.KEEP:
        return contents, entries
    rewriting = rewrite_indexes(contents, entries)
    for move in rewriting.moves:
        job.listener.log(
            f"note: {move.image}: its index is REWRITTEN for the platforms that are there: {move.old} -> {move.new};"
            " signatures of the old digest do not count for it"
        )
    return rewriting.source, rewriting.entries


def _with_refusals(job: Job, dest: RegistryEndpoint, plan: Plan, *, dry_run: bool) -> Plan:
    """The plan, with what the registry would refuse as failed: a partial index, if it is known to refuse them. A push
    tries what the configuration does not forbid."""
    complete = tuple(copy for copy in plan.copies if not copy.closure.omitted)
    partial = [copy for copy in plan.copies if copy.closure.omitted]
    if not partial or not (dry_run or dest.registry.partial_indexes is False):
        return plan
    accepts = job.retry.call(lambda: dest.accepts_partial_indexes(partial[0].entry.dest.repository))
    if accepts is None:
        job.listener.log(_unknown(dest, [f"{copy.entry.dest}" for copy in partial]))
    if accepts is not False:
        return plan
    refused = (Unseen(entry=c.entry, error=partial_refusal(dest.name, c.entry), hint=PARTIAL_HINT) for c in partial)
    return replace(plan, copies=complete, unseen=(*plan.unseen, *refused))


def _unknown(dest: RegistryEndpoint, names: list[str]) -> str:
    images = counted(len(names), "image has some platforms only", "images have some platforms only")
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"note: {images} ({', '.join(names[:_NAMED])}{more}), and only a push shows whether {dest.name} accepts partial"
        " indexes: if not, these fail. partial_indexes: true or false in its configuration says it beforehand;"
        " --platform-index rewrite works in any case"
    )


def _moves(observations: tuple[Observation, ...]) -> list[TagMove]:
    return [
        TagMove(image=str(item.entry.dest), old=item.there, new=item.digest)
        for item in observations
        if isinstance(item, Lacking) and item.there is not None and item.there != item.digest
    ]


def _entries(contents: ImageSet | StorageSource | DeltaSource, listener: Listener) -> tuple[ImageEntry, ...]:
    if isinstance(contents, StorageSource):
        return _storage_entries(contents, listener)
    return tuple(
        replace(
            entry_of(image.repository, image.tag, image.digest),
            platforms=image.platforms if image.omitted else (),
        )
        for image in contents.contents.images
    )


def _storage_entries(contents: StorageSource, listener: Listener) -> tuple[ImageEntry, ...]:
    """Every tag: one whose image is damaged fails, and is not left out in silence. Of an index that has lost children,
    or was deployed without them, what is there."""
    entries: list[ImageEntry] = []
    for repository in contents.storage.repositories():
        for tag in contents.storage.tags(repository):
            digest = contents.resolve(repository, tag)
            if digest is not None:
                entries.append(entry_of(repository, tag, digest))
            else:  # a registry that was killed leaves such a tag
                listener.log(f"note: {repository}:{tag} is left out: its link is absent or damaged")
    listener.count("read", "images", len(entries))
    told = counted_by(listener, entries)
    return tuple(replace(entry, platforms=_platforms(contents.storage, entry)) for entry in told)


def _platforms(storage: Storage, entry: ImageEntry) -> tuple[Platform, ...]:
    with suppress(RegwrapError):  # observing it will say the same, for this image
        closure = storage.closure(entry.source.repository, entry.source.digest) if entry.source.digest else None
        if closure is not None and closure.missing:
            return shipped_platforms(closure, storage.read_config)
    return ()


def _prepare_projects(
    job: Job, dest: RegistryEndpoint, entries: tuple[ImageEntry, ...], options: PushOptions
) -> frozenset[str]:
    """Harbor refuses a push into a project that is not there, with words that do not say so.

    Returns the projects that are still absent: only a dry run goes on then.
    """
    harbor = Harbor(dest.probe)
    try:
        is_there = harbor.is_there()
    except UnsureError:  # what only skopeo can ask
        if options.create_projects:
            raise
        return frozenset()
    if not is_there:
        if options.create_projects:
            job.listener.log(f"note: {dest.name} is not Harbor; no projects are created")
        return frozenset()
    bare = [str(entry.dest) for entry in entries if "/" not in entry.dest.repository]
    if bare:
        raise UsageError(
            f"Harbor {dest.name} accepts names inside a project only;"
            f" {counted(len(bare), 'name has', 'names have')} no project",
            detail="\n".join(bare[:10]),
            hint="give DEST/PROJECT",
        )
    names = sorted(set(map(_project_of, entries)))
    absent = [name for name in names if harbor.has_project(name) is False]
    if absent and not options.create_projects and not options.dry_run:
        raise UsageError(
            f"Harbor {dest.name} has no project {', '.join(absent)}",
            hint="create it there, or give --create-projects",
        )
    for name in absent:
        if options.dry_run:
            job.listener.log(f"project {name} does not exist" + "; it would be created" * options.create_projects)
        else:
            harbor.create_project(name)
            job.listener.log(f"project {name} created, private")
    return frozenset(absent if options.dry_run else ())


def _project_of(entry: ImageEntry) -> str:
    return entry.dest.repository.partition("/")[0]


def _shared(source: Path, contents: ImageSet | StorageSource | DeltaSource) -> SharedFiles:
    """What a cluster's workers read too: a bundle by its digest, or a storage."""
    release = "" if isinstance(contents, StorageSource) else f"{contents.contents.id}"
    return SharedFiles(f"{source.absolute()}", release, tuple(f"{place.absolute()}" for place in named_directories()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pushing:
    """`shared` is None where blobs come from more than one place; `brief` as in Observer."""

    endpoints: Endpoints
    contents: LocalSource
    dest: RegistryEndpoint
    location: Location
    shared: SharedFiles | None
    brief: bool

    @property
    def job(self) -> Job:
        return self.endpoints.job

    def observe(self, entries: tuple[ImageEntry, ...], absent: frozenset[str]) -> tuple[Observation, ...]:
        """Below a project that is absent nothing can be asked for, and nothing is there."""
        nothing = StorageSource(name=self.dest.name, storage=Storage(self.job.scratch / "nothing"))
        new = tuple(entry for entry in entries if _project_of(entry) in absent)
        old = tuple(entry for entry in entries if _project_of(entry) not in absent)
        return (*self._observe(old, self.dest), *self._observe(new, nothing))

    def _observe(
        self, entries: tuple[ImageEntry, ...], dest: RegistryEndpoint | StorageSource
    ) -> tuple[Observation, ...]:
        observer = Observer(
            source_of=lambda _entry: self.contents,
            dest=dest,
            retry=self.job.retry,
            valid=None,
            gave_up=self.endpoints.limiters.gave_up,
            is_immutable=self.location.is_immutable,
            brief=self.brief,
        )
        return observer.observe_images(entries, self.job)

    def send(self, plan: Plan, elsewhere: Mapping[Digest, str]) -> SyncReport:
        """`elsewhere`: another repository there that has the blob."""
        index = self._index(plan)
        for digest, repository in elsewhere.items():
            index.add(repository, (digest,))
        sending = Sending(
            dest=self.dest,
            source_of=lambda _entry: self.contents,
            index=index,
            by_skopeo=RegistryCopier(
                dest=self.dest, served=lambda _entry: self.endpoints.loopback(self.contents), index=index
            ),
            shared=lambda _end: self.shared,
        )
        self.job.listener.expect("push", plan.bytes_missing)
        return send_images(plan, sending, endpoints=self.endpoints)

    def _index(self, plan: Plan) -> BlobIndex:
        """What the repositories there have: of an image that is there all, of the others what was found of them."""
        index, listener = index_of(plan.copies), self.job.listener
        listener.count("read", "images that are there", len(plan.skips))
        for skip in counted_by(listener, plan.skips):
            index.add(skip.entry.dest.repository, _blobs_of(self.contents, skip))
        return index


def _blobs_of(contents: LocalSource, item: Skip) -> tuple[Digest, ...]:
    """Those of an image that is there already: other repositories can have them from it."""
    repository = item.entry.source.repository
    with suppress(RegwrapError):
        closure = closure_of(item.digest, lambda digest: contents.manifest(repository, digest), item.entry.platforms)
        return tuple(blob.digest for blob in closure.blobs) if closure else ()
    return ()
