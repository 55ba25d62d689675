"""A release in one go: sync, package, verify, and what stands beside the bundle."""

from __future__ import annotations

import datetime
import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap import __version__
from regwrap.bundle.aside import write_atomically
from regwrap.bundle.base import StorageBase
from regwrap.bundle.contents import BUNDLE_JSON
from regwrap.bundle.examine import VerifyReport, verify_bundle
from regwrap.bundle.output import check_target, checksum_path, facts_path
from regwrap.bundle.volume_target import VolumeTarget, write_sums
from regwrap.bundle.volumes import Volume
from regwrap.commands.package import PackageOptions, PackageReport, Strategy, package_images
from regwrap.commands.sync import SyncOptions, sync_images
from regwrap.core.counts import counted
from regwrap.core.errors import BrokenBlobError, ImagesFailedError, IntegrityError, UsageError
from regwrap.core.listener import counted_by
from regwrap.storage.hashing import hash_file
from regwrap.storage.store import Storage
from regwrap.transfer.plan import Plan
from regwrap.transfer.run import nothing_copied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regwrap.bundle.stream import Target
    from regwrap.lists.imagelist import ImageList
    from regwrap.transfer.job import Job
    from regwrap.transfer.run import SyncReport

_SUMMED_AT_ONCE: Final = 2  # beside the blobs, which are hashed by more


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReport:
    """`verify` is None for a single volume that was made again. `sha256` is empty for volumes, which have their own."""

    sync: SyncReport
    package: PackageReport
    verify: VerifyReport | None
    sha256: str


def release_images(
    job: Job,
    images: ImageList,
    output: Path,
    options: PackageOptions,
    *,
    tools: dict[str, str],
    on_sync: Callable[[SyncReport], None],
) -> ReleaseReport:
    """Sync, package, verify, and write OUTPUT.sha256 and the facts beside it. `on_sync` hears of each sync, whatever
    came of it.

    A blob of the archive that turns out to be rotten while it is packed is sent again, once.
    """
    _check_output(output)
    if output == Path("-"):
        raise UsageError("release verifies its bundle, which goes into a pipe only once", hint="regwrap package -o -")
    options = _summed_once(options)
    if options.strategy is Strategy.DIRECT:
        sync, package = _directly(job, images, output, options, on_sync)
    else:
        sync, package = _by_archive(job, images, output, options, on_sync)
    if isinstance(options.target, VolumeTarget) and options.target.only:
        return ReleaseReport(sync=sync, package=package, verify=None, sha256="")
    with _summing(output, _files(output, package, options.target)) as summing:
        verify = _verified(job, images, output, options, package)
        job.listener.count("verify", "checksums", len(summing))
        summed = tuple(counted_by(job.listener, (work.result() for work in summing)))
    if verify.problems or verify.differences:
        problems = (*verify.problems, *verify.differences)
        raise IntegrityError(f"{output} did not pass its verification", problems=problems)
    checksum = _write_sums(output, package, summed)
    _write_facts(output, package, checksum, tools)
    return ReleaseReport(sync=sync, package=package, verify=verify, sha256=checksum)


def _by_archive(
    job: Job, images: ImageList, output: Path, options: PackageOptions, on_sync: Callable[[SyncReport], None]
) -> tuple[SyncReport, PackageReport]:
    place = job.archive.storage or job.archive.name
    job.listener.log(f"by the archive {place}, which keeps the images for the next release (--no-archive keeps none)")
    sync = _synced(job, images, on_sync, SyncOptions(referrers=options.referrers))
    try:
        return sync, package_images(job, images, output, options)
    except BrokenBlobError as error:
        for problem in error.problems:
            job.listener.log(f"damaged in the archive: {problem}")
        job.listener.log("repairing damaged blobs")
        sync = _synced(job, images, on_sync, SyncOptions(hashed=True, referrers=options.referrers))
        return sync, package_images(job, images, output, options)


def _directly(
    job: Job, images: ImageList, output: Path, options: PackageOptions, on_sync: Callable[[SyncReport], None]
) -> tuple[SyncReport, PackageReport]:
    kept = "the archive is only read" if options.from_archive else "no archive is read or kept"
    job.listener.log(f"straight from the source: {kept}")
    package = package_images(job, images, output, options)
    sync = package.sync or nothing_copied(Plan(copies=(), skips=(), unseen=()))
    on_sync(sync)
    return sync, package


def _verified(
    job: Job, images: ImageList, output: Path, options: PackageOptions, package: PackageReport
) -> VerifyReport:
    """A delta fits what the archive has, whose blobs were looked at for it. Straight from the source nobody has them
    here: then what is in the bundle is checked."""
    storage = None if options.strategy is Strategy.DIRECT else job.archive.storage
    bases = (StorageBase(Storage(storage)),) if package.required and storage else ()
    return verify_bundle(output, images.entries, job.listener, bases=bases, trusted=True)


def _summed_once(options: PackageOptions) -> PackageOptions:
    """Volumes get their checksums while they are verified, as a bundle in one file does; one alone is not verified."""
    target = options.target
    if isinstance(target, VolumeTarget) and not target.only:
        return replace(options, target=replace(target, summed=False))
    return options


def _files(output: Path, package: PackageReport, target: Target | None) -> tuple[Volume, ...]:
    """Those that were written."""
    whole = Volume(name=output.name, offset=0, size=package.file_bytes)
    return target.volumes(whole.size) if isinstance(target, VolumeTarget) else (whole,)


@contextmanager
def _summing(output: Path, files: tuple[Volume, ...]) -> Iterator[list[Future[Volume]]]:
    """They get their sha256 while the block runs; if that raises, no more of them."""
    with ThreadPoolExecutor(_SUMMED_AT_ONCE, thread_name_prefix="sum") as pool:
        try:
            yield [pool.submit(_summed, output, file) for file in files]
        finally:
            pool.shutdown(cancel_futures=True)


def _summed(output: Path, file: Volume) -> Volume:
    return replace(file, sha256=hash_file(output.with_name(file.name)).hex)


def _write_sums(output: Path, package: PackageReport, files: tuple[Volume, ...]) -> str:
    """Returns that of the whole; nothing where it is in volumes."""
    if files[0].name != output.name:
        write_sums(output, package.release, files)
        return ""
    write_atomically(checksum_path(output), f"{files[0].sha256}  {output.name}\n")
    return files[0].sha256


def _check_output(output: Path) -> None:
    check_target(output)
    if any(character in output.name for character in "\n\r\\"):
        raise UsageError(f"{output.name!r} is not a usable bundle name: sha256sum cannot read its checksum file")


def _synced(job: Job, images: ImageList, on_sync: Callable[[SyncReport], None], options: SyncOptions) -> SyncReport:
    report = sync_images(job, images, options).report
    if report is not None:
        on_sync(report)
    if report is None or report.failed:
        failed = report.failed if report else ()
        raise ImagesFailedError(
            f"{len(failed)} of {counted(len(images.entries), 'image')} could not be synced; no bundle was written",
            detail="\n".join(f"{f.entry.where}: {f.error}" for f in failed),
            hint="rerun: images already in the archive are skipped",
        )
    return report


def _write_facts(output: Path, package: PackageReport, sha256: str, tools: dict[str, str]) -> None:
    """What differs from run to run is kept beside the bundle, never in it."""
    facts = {
        "bundle": output.name,
        "name": package.name,
        "id": str(package.id),
        "sha256": sha256,
        "bytes": package.file_bytes,
        "images": package.images,
        "blobs": package.blobs,
        "required": package.required,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "regwrap": __version__,
        "tools": tools,
        "index": BUNDLE_JSON,
    }
    write_atomically(facts_path(output), json.dumps(facts, indent=1, sort_keys=True) + "\n")
