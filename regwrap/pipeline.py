"""The steps of a release put together: ends, locks, stages and programs for sync, package, release.

Everything that is acquired here is released here, in the reverse order, whatever happens.
"""

import datetime
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from regwrap import __version__
from regwrap.assemble.pack import PackOptions, pack_bundle
from regwrap.assemble.select import select_images
from regwrap.bundle.contents import BUNDLE_JSON, tar_bytes
from regwrap.carry import Carrier, RegistryCarrier, StorageCarrier
from regwrap.errors import BrokenBlobError, ImagesFailedError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.examine import VerifyReport, file_sha256, verify_bundle
from regwrap.imagelist import ImageEntry, ImageList, need_source
from regwrap.observe import End, Observer, RegistryEnd, StorageEnd
from regwrap.plan import Plan, make_plan
from regwrap.storage.commit import Additions, GroupCommit, Owner, RealFiles, commit
from regwrap.storage.lock import OWN_DIR, locked_storage
from regwrap.storage.store import SoundBlobs, Storage
from regwrap.sync import Events, SyncReport, run_plan
from regwrap.tools.access import Place, Registry, Timeouts
from regwrap.tools.probe import Probe
from regwrap.tools.registry import served_registry
from regwrap.tools.retry import RetryPolicy
from regwrap.tools.runner import Runner
from regwrap.tools.skopeo import Skopeo

_SCRATCH_PREFIX: Final = "regwrap-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who hears how it goes: `say` a line for the user, `events` of a sync, `expect` the bytes of a step that begins,
    `on_bytes` those that are done, `watch` a function that gives the bytes under way."""

    say: Callable[[str], None]
    events: Events
    expect: Callable[[str, int], None]
    on_bytes: Callable[[int], None]
    watch: Callable[[Callable[[], int]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every step needs. `place_of` gives the place of a registry that a list line names."""

    runner: Runner
    scratch: Path
    source: Place | None
    archive: Place
    place_of: Callable[[str], Place]
    jobs: int
    retry: RetryPolicy
    timeouts: Timeouts
    environment: tuple[tuple[str, str], ...]
    listener: Listener


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    plan: Plan
    report: SyncReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageReport:
    """A bundle that was written; sizes in bytes. `blob_bytes` counts each blob once."""

    path: Path
    images: int
    blobs: int
    blob_bytes: int
    file_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReport:
    sync: SyncReport
    package: PackageReport
    verify: VerifyReport
    sha256: str


def sync_images(job: Job, images: ImageList, *, hashed: bool, dry_run: bool) -> SyncResult:
    """Bring the listed images to the archive; with `dry_run` only say what would be done.

    `hashed` reads every blob of a local archive, so that rot is found and sent again.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        ends = _Ends(job=job, stack=stack)
        ends.check_sources(images)
        dest = ends.of(job.archive)
        descriptor = _lock_dest(job, dest, stack, dry_run=dry_run)
        for storage in ends.storages():
            if storage != dest:
                stack.enter_context(_locked(job, storage.storage.root, exclusive=False))
        sound = SoundBlobs(storage=dest.storage, hashed=hashed) if isinstance(dest, StorageEnd) else None
        observer = Observer(source_of=ends.source_of, dest=dest, retry=job.retry, sound=sound)
        plan = make_plan(observer.observe_images(images.entries, job.jobs))
        if dry_run:
            return SyncResult(plan=plan, report=None)
        job.listener.expect("sync", plan.bytes_missing)
        carrier = _carrier(job, ends, dest, stack, descriptor, plan)
        job.listener.watch(carrier.bytes_under_way)
        report = run_plan(plan, carrier, jobs=job.jobs, retry=job.retry, events=job.listener.events)
        return SyncResult(plan=plan, report=replace(report, seconds=time.monotonic() - started))


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
    return stack.enter_context(_locked(job, root, exclusive=True))


@contextmanager
def _locked(job: Job, root: Path, *, exclusive: bool) -> Iterator[int | None]:
    with locked_storage(root, exclusive=exclusive, timeout=job.timeouts.lock, on_wait=job.listener.say) as descriptor:
        yield descriptor


@dataclass(slots=True, kw_only=True)
class _Ends:
    """The two ends as objects, each made once: a registry's connections are kept, a storage is served once."""

    job: Job
    stack: ExitStack
    _skopeo: Skopeo | None = None
    _known: dict[Place, RegistryEnd | StorageEnd] = field(default_factory=dict)
    _served: dict[Path, Registry] = field(default_factory=dict)

    def check_sources(self, images: ImageList) -> None:
        """Every line must say where it comes from, or --source must. Makes all ends, in the main thread."""
        lines = need_source(images)
        if lines and self.job.source is None:
            where = "\n".join(f"{images.name}:{entry.line}: {entry.text}" for entry in lines[:10])
            raise UsageError(
                f"{len(lines)} lines name no registry, and no source is configured",
                detail=where,
                hint="give --source HOST[:PORT] (or NAME, or a storage's DIR), or source: in the configuration",
            )
        for entry in images.entries:
            self.source_of(entry)

    def source_of(self, entry: ImageEntry) -> RegistryEnd | StorageEnd:
        if entry.source.registry is not None:
            return self.of(self.job.place_of(entry.source.registry))
        if self.job.source is None:
            raise UsageError(f"line {entry.line} names no registry")
        return self.of(self.job.source)

    def of(self, place: Place) -> RegistryEnd | StorageEnd:
        if place not in self._known:
            self._known[place] = self._make(place)
        return self._known[place]

    def _make(self, place: Place) -> RegistryEnd | StorageEnd:
        if place.storage is not None:
            return StorageEnd(name=str(place.storage), storage=Storage(place.storage.resolve()))
        if place.registry is None:
            raise UsageError(f"{place.name} has neither a url nor a storage")
        job = self.job
        probe = Probe(
            registry=place.registry,
            timeout=job.timeouts.request,
            connections=job.jobs,
            environment=job.environment,
        )
        return RegistryEnd(registry=place.registry, probe=probe, skopeo=self.skopeo())

    def storages(self) -> tuple[StorageEnd, ...]:
        return tuple(end for end in self._known.values() if isinstance(end, StorageEnd))

    def skopeo(self) -> Skopeo:
        if self._skopeo is None:
            home = self.job.scratch / "skopeo"
            home.mkdir(exist_ok=True)
            job = self.job
            self._skopeo = Skopeo(runner=job.runner, home=home, timeouts=job.timeouts, environment=job.environment)
        return self._skopeo

    def served(self, entry: ImageEntry) -> Registry:
        """The registry that skopeo reads an entry from; a storage is served on loopback (see `serve_storages`)."""
        source = self.source_of(entry)
        return source.registry if isinstance(source, RegistryEnd) else self._served[source.storage.root]

    def serve_storages(self, plan: Plan) -> None:
        """Start a registry for each storage that is read. In the main thread: see `Runner.serving`."""
        for copy in plan.copies:
            source = self.source_of(copy.entry)
            if isinstance(source, StorageEnd) and source.storage.root not in self._served:
                root = source.storage.root
                server = served_registry(self.job.runner, root, scratch=self.job.scratch)
                self._served[root] = self.stack.enter_context(server)


def _carrier(
    job: Job, ends: _Ends, dest: RegistryEnd | StorageEnd, stack: ExitStack, descriptor: int | None, plan: Plan
) -> Carrier:
    if isinstance(dest, RegistryEnd):
        ends.serve_storages(plan)
        return RegistryCarrier(dest=dest, served=ends.served)
    root = dest.storage.root
    stage = stack.enter_context(_stage(root))
    _check_space(root, plan)
    files = RealFiles(Owner.of(root))

    def write(additions: Additions) -> None:
        commit(root, additions, stage=stage, files=files)

    return StorageCarrier(
        storage=dest.storage,
        stage=stage,
        source_of=ends.source_of,
        skopeo=ends.skopeo(),
        commit=GroupCommit(write),
        sound=SoundBlobs(storage=dest.storage, hashed=True),
        inherit=() if descriptor is None else (descriptor,),
    )


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


def package_images(job: Job, images: ImageList, output: Path, *, hashed: bool) -> PackageReport:
    """Write the bundle with exactly the listed images from the archive's storage."""
    if job.archive.storage is None:
        raise UsageError(
            f"the archive {job.archive.name} is a registry without a storage directory",
            hint="set storage: for it in the configuration, or sync into a directory with --archive DIR",
        )
    started = time.monotonic()
    root = job.archive.storage
    if images.entries and not root.is_dir():
        raise UsageError(f"the archive {root} does not exist", hint="regwrap sync with the same list makes it")
    root.mkdir(parents=True, exist_ok=True)
    with _locked(job, root, exclusive=False):
        selection = select_images(Storage(root.resolve()), images.entries)
        contents = selection.contents
        job.listener.expect("package", contents.blob_bytes)
        with tempfile.TemporaryDirectory(dir=job.scratch) as scratch:
            options = PackOptions(scratch=Path(scratch), hashed=hashed, on_bytes=job.listener.on_bytes)
            pack_bundle(job.runner, selection, output, options)
    for beside in (_checksum_path(output), _facts_path(output)):
        beside.unlink(missing_ok=True)  # those of an earlier bundle of this name would lie
    return PackageReport(
        path=output,
        images=len(contents.images),
        blobs=len(contents.blobs),
        blob_bytes=contents.blob_bytes,
        file_bytes=tar_bytes(contents),
        seconds=time.monotonic() - started,
    )


def release_images(job: Job, images: ImageList, output: Path, *, tools: dict[str, str]) -> ReleaseReport:
    """Sync, package, verify, and write OUTPUT.sha256 and the facts beside it.

    A blob of the archive that turns out to be rotten while it is packed is sent again, once.
    """
    _check_output(output)
    sync = _synced(job, images, hashed=False)
    try:
        package = package_images(job, images, output, hashed=True)
    except BrokenBlobError as error:
        for problem in error.problems:
            job.listener.say(f"damaged in the archive: {problem}")
        job.listener.say("what is damaged is sent again")
        sync = _synced(job, images, hashed=True)
        package = package_images(job, images, output, hashed=True)
    job.listener.expect("verify", package.blob_bytes)
    with ThreadPoolExecutor(1) as pool:
        sha256 = pool.submit(file_sha256, output)
        verify = verify_bundle(output, images.entries, job.listener.on_bytes)
    if verify.problems:
        raise IntegrityError(f"{output} did not pass its verification", problems=verify.problems)
    _write_beside(_checksum_path(output), f"{sha256.result()}  {output.name}\n")
    _write_facts(output, package, sha256.result(), tools)
    return ReleaseReport(sync=sync, package=package, verify=verify, sha256=sha256.result())


def _check_output(output: Path) -> None:
    # said before anything long begins
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"{output} can't be written: its directory is missing, or it is a directory itself")
    if any(character in output.name for character in "\n\r\\"):
        raise UsageError(f"{output.name!r} is no name for a bundle: sha256sum could not read its checksum file")


def _synced(job: Job, images: ImageList, *, hashed: bool) -> SyncReport:
    report = sync_images(job, images, hashed=hashed, dry_run=False).report
    if report is None or report.failed:
        failed = report.failed if report else ()
        raise ImagesFailedError(
            f"{len(failed)} of {len(images.entries)} images could not be synced; no bundle was written",
            detail="\n".join(f"{f.entry.dest} (line {f.entry.line}): {f.error}" for f in failed),
            hint="run it again: what is there already is not sent twice",
        )
    return report


def _checksum_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.sha256")


def _facts_path(output: Path) -> Path:
    return output.with_name(f"{output.name.removesuffix('.tar')}.json")


def _write_facts(output: Path, package: PackageReport, sha256: str, tools: dict[str, str]) -> None:
    """What differs from run to run is kept beside the bundle, never in it."""
    facts = {
        "bundle": output.name,
        "sha256": sha256,
        "bytes": package.file_bytes,
        "images": package.images,
        "blobs": package.blobs,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "regwrap": __version__,
        "tools": tools,
        "index": BUNDLE_JSON,
    }
    _write_beside(_facts_path(output), json.dumps(facts, indent=1, sort_keys=True) + "\n")


def _write_beside(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A private directory for this run's small files. What killed runs left is removed: their lock is free."""
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=parent, ignore_cleanup_errors=True) as name:
        path = Path(name)
        with (path / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_SCRATCH_PREFIX}*"):
        with suppress(OSError, RegwrapError):
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            with (path / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
