"""A bundle straight from where its images are: no archive, no mount, no second copy.

Where each byte of it lies follows from the manifests, so each blob goes to its place in the file as it comes, many at
the same time. What an archive has is taken from there; the archive is only read.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.gather import Gathering
from regwrap.bundle.in_place import BundleInPlace, filled_bundle
from regwrap.commands.sync import SyncOptions, plan_images, to_copy
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, LostBlobError, UsageError
from regwrap.core.listener import counted_by, telling
from regwrap.core.location import Engine
from regwrap.core.manifest import Manifest
from regwrap.core.text import human_bytes
from regwrap.storage.store import Storage, real_root
from regwrap.tools.scratch import temporary_place
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.engines import Filling, fill_bundle
from regwrap.transfer.plan import Copy, Plan, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.delta import Older
    from regwrap.bundle.stream import Target
    from regwrap.core.closure import Closure
    from regwrap.core.manifest import Descriptor
    from regwrap.core.model import Digest
    from regwrap.lists.imagelist import ImageEntry, ImageList
    from regwrap.transfer.job import Job
    from regwrap.transfer.run import SyncReport

_PIPED: Final = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectOptions:
    """`hashed=False` trusts the archive. `name` of the release. `referrers`: with the images' referrers. `since`: what
    the site has is left out. `from_archive`: blobs that the archive has are taken from there. `target`: where the
    bundle goes as a stream, instead of a file; `upper`: where what comes too early for a pipe waits."""

    hashed: bool
    name: str
    referrers: bool
    since: tuple[Older, ...]
    from_archive: bool = True
    target: Target | None = None
    upper: Path | None = None


@dataclass(slots=True, kw_only=True)
class DirectBundle:
    """What was written. `report` says what came of the images; None while nothing was copied. `reused` bytes of it
    were in the archive."""

    contents: BundleContents
    reused: int = 0
    report: SyncReport | None = None


@contextmanager
def direct_bundle(job: Job, images: ImageList, output: Path, options: DirectOptions) -> Iterator[DirectBundle]:
    """Write `output`; it gets its name when the block ends, and not if that raises. An interrupted run leaves what has
    come, and the next one goes on with what is missing; not so of a stream. Call from the main thread.

    Raises ImagesFailedError, UsageError, ToolError (no space).
    """
    job, archive = _archive(job, wanted=options.from_archive)
    if job.engine not in {Engine.AUTO, Engine.CURL}:
        raise UsageError(f"--strategy direct fetches by curl, not by --engine {job.engine}", hint="use --engine auto")
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        endpoints.check_sources(images)
        for end in {end.storage.root: end for end in (*endpoints.storages(), archive)}.values():
            stack.enter_context(job.locked(end.storage.tree, exclusive=False, untouched=end is archive))
        images, lost = to_copy(endpoints, images, referrers=options.referrers)
        plan = plan_images(endpoints, archive, images, SyncOptions(lost=lost))
        _refuse([f"{item.entry.where}: {item.error}" for item in plan.unseen], len(images.entries), "and rerun")
        needed = _Needed(endpoints=endpoints, archive=archive.storage, plan=plan)
        bundle = DirectBundle(contents=needed.contents(options))
        in_order = options.target is not None

        def fill(file: BundleInPlace) -> None:
            if came := sum(file.arrived.values()):
                job.listener.log(f"{output}: an earlier run left up to {human_bytes(came)} of it; they are hashed")
            needed.put_known(file)
            job.listener.expect("package", file.bytes_to_come)
            filling = Filling(file, archive, hashed=options.hashed, in_order=in_order)
            bundle.report = fill_bundle(needed.plan, filling, endpoints=endpoints)
            bundle.reused = file.reused
            problems = [f"{failed.entry.where}: {failed.error}" for failed in bundle.report.failed]
            kept = f": what has come is kept in {file.part.path}" if file.is_wanted else ""
            _refuse(problems, len(images.entries), f"and rerun{kept}")

        with _written(job, output, bundle.contents, fill, options):
            yield bundle


def _written(
    job: Job, output: Path, contents: BundleContents, fill: Callable[[BundleInPlace], None], options: DirectOptions
) -> AbstractContextManager[None]:
    target = options.target
    if target is None:
        return filled_bundle(output, contents, fill, job.listener)
    from regwrap.bundle.passing import passed_bundle  # most bundles are files

    directory = (options.upper or temporary_place()) if output == _PIPED else output.parent
    return passed_bundle(target, contents, fill, directory=directory, stopping=job.stopping)


def _archive(job: Job, *, wanted: bool) -> tuple[Job, StorageSource]:
    """What there is of one: the job has an empty one, where there is none, or nothing is to be taken from it."""
    root = job.archive.storage
    if root is None or not wanted or not root.is_dir():
        job, root = job.without_archive()
    return job, StorageSource(name=f"{root}", storage=Storage(real_root(root)))


def _refuse(problems: list[str], images: int, then: str) -> None:
    if problems:
        raise ImagesFailedError(
            f"{len(problems)} of {counted(images, 'image')} could not be fetched; no bundle was written",
            detail="\n".join(problems),
            hint=f"fix these lines or their registry, or drop them, {then}",
        )


@dataclass(slots=True, kw_only=True)
class _Needed:
    """All that a bundle of the plan's images has; `plan` gets a copy for each of them."""

    endpoints: Endpoints
    archive: Storage
    plan: Plan
    configs: dict[Digest, bytes] = field(default_factory=dict)

    def contents(self, options: DirectOptions) -> BundleContents:
        """Raises ImagesFailedError where an image went away meanwhile."""
        self.plan = replace(self.plan, copies=(*self.plan.copies, *self._there()), skips=())
        lone = tuple(copy for copy in self.plan.copies if isinstance(copy.closure.top, Manifest))
        job = self.endpoints.job
        job.listener.count("select", "configs read", len(lone))
        job.ask(telling(job.listener, self._read_config), lone)
        gathering = Gathering()
        for copy in self.plan.copies:
            dest, closure = copy.entry.dest, copy.closure
            gathering.add(dest.repository, dest.tag, closure, omitted=closure.omitted, read_config=self._config)
        contents = replace(gathering.contents(), name=options.name)
        if options.since:
            from regwrap.bundle.delta import since  # deltas are asked for now and then

            contents = since(contents, options.since)
        return contents

    def put_known(self, file: BundleInPlace) -> None:
        """Manifests and configs, which were read to know what there is."""
        manifests = {m.digest: m.raw for copy in self.plan.copies for m in copy.closure.manifests}
        for digest, raw in (manifests | self.configs).items():
            file.put(digest, raw)
            if digest in file.places and self.archive.blob_size(digest) == len(raw):
                file.reused += len(raw)

    def _there(self) -> Iterator[Copy]:
        """Images that the archive has whole."""
        listener = self.endpoints.job.listener
        listener.count("select", "images read", len(self.plan.skips))
        for skip in counted_by(listener, self.plan.skips):
            closure = self.archive.closure(skip.entry.dest.repository, skip.digest, skip.entry.platforms)
            if closure is None or closure.missing:
                raise ImagesFailedError(f"{skip.entry.dest} went away from {self.archive.root} meanwhile", hint="rerun")
            yield _copy_of(skip.entry, closure)

    def _read_config(self, copy: Copy) -> None:
        """A lone manifest's platform stands in its config, and bundle.json says it."""
        top, entry = copy.closure.top, copy.entry
        if not isinstance(top, Manifest):
            return
        raw = b""
        with suppress(LostBlobError):
            raw = self.archive.read_config(top.config)
        if not raw:
            source, repository = self.endpoints.source_of(entry), entry.source.repository
            raw = self.endpoints.job.retry.call(lambda: source.config(repository, top.digest, top.config))
        if raw:
            self.configs[top.config.digest] = raw

    def _config(self, blob: Descriptor) -> bytes:
        return self.configs.get(blob.digest, b"")


def _copy_of(entry: ImageEntry, closure: Closure) -> Copy:
    return Copy(entry=entry, digest=closure.top.digest, reason=Reason.SAME, closure=closure, missing=closure.blobs)
