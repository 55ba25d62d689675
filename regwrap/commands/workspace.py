"""An overlay workspace: history below, the listed images above, a registry on both merged, for as long as a block."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.bundle.by_repository import StorageEnd
from regwrap.commands.overlay_sides import (
    check_history,
    check_merged,
    check_place,
    link_known_layers,
    make_prefixes,
    prepare_sides,
)
from regwrap.commands.sync import bring_images
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.registry.credentials import UnsureError
from regwrap.registry.probe import Probe
from regwrap.storage.store import Storage, real_root, regular_size
from regwrap.tools.docker_registry import why_it_does_not_answer
from regwrap.tools.overlay import (
    Hiding,
    Overlay,
    ServedOverlay,
    Way,
    check_mountable,
    file_system,
    mark_opaque,
    opaque_mark,
    served_overlay,
    try_overlay,
)
from regwrap.tools.scratch import overlay_directory
from regwrap.transfer.carriers import Increment, Target
from regwrap.transfer.ends import Ends
from regwrap.transfer.referrers import with_referrers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regwrap.core.model import Digest
    from regwrap.core.place import Registry
    from regwrap.lists.imagelist import ImageEntry, ImageList
    from regwrap.tools.runner import Server
    from regwrap.transfer.job import Job
    from regwrap.transfer.run import SyncReport

_HISTORY: Final = "the history"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  shm_overview(7): a tmpfs on every Linux; what is made there is a private directory
_LINK_BYTES: Final = 10_000  # a file and its directory
_LINKS_A_LINE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceOptions:
    """`places`: where the increment may go, the first that an overlay works in is taken. `hashed` reads every blob of
    the history that is used. `read_only` refuses pushes to the registry. `referrers` brings what is about
    the images."""

    places: tuple[Path, ...]
    hashed: bool
    read_only: bool
    referrers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """`merged` is a storage's root as this process sees it; `registry` serves it; `upper` is what was added; `images`
    are all that were brought. `check` raises where the registry does not give them all; of one that is only read it has
    to be called, for it is being asked meanwhile."""

    images: ImageList
    registry: Registry
    merged: Path
    upper: Storage
    sync: SyncReport
    server: Server
    check: Callable[[], None]

    def brought_bytes(self, blobs: Iterable[tuple[Digest, int]]) -> int:
        """How many bytes of `blobs` are not in the history."""
        return sum(size for digest, size in blobs if regular_size(self.upper.blob_path(digest)) is not None)


@contextmanager
def overlay_workspace(job: Job, images: ImageList, options: WorkspaceOptions) -> Iterator[Workspace]:
    """Bring the listed images into a fresh upper directory over the archive's storage, mount, serve, check that too.

    The history is not written to: not a byte, not a time. Nothing is left when the block ends, however it ends. Call
    from the main thread. Raises ImagesFailedError, ToolError, IntegrityError, UsageError.
    """
    if job.archive.storage is None:
        raise UsageError(f"{job.archive.name} is a registry without a storage directory; --history needs one")
    history = real_root(job.archive.storage)
    check_mountable(history, _HISTORY)
    check_history(history)
    job = replace(job, source=job.source or job.archive)
    with ExitStack() as stack:
        ends = Ends(job=job, stack=stack)
        ends.check_sources(images)
        stack.enter_context(job.locked(history, exclusive=False, untouched=True))
        for end in ends.storages():
            if end.storage.root != history:
                stack.enter_context(job.locked(end.storage.root, exclusive=False))
        images = with_referrers(ends, images) if options.referrers else images
        run, way = _place(job, history, options.places, stack)
        overlay, links = _overlay(history, run, way, _links(job, way, len(images.entries), stack))
        prepare_sides(job.runner, overlay, links)
        listed = Storage(links, below=(overlay.upper, history))
        report = _bring(ends, listed, overlay.upper, images, hashed=options.hashed)
        repositories = {entry.dest.repository for entry in images.entries}
        if not options.read_only:
            make_prefixes(overlay.upper)
            link_known_layers(history, links, repositories)
        server = served_overlay(job.runner, overlay, scratch=job.scratch, read_only=options.read_only)
        served = stack.enter_context(server)
        check_merged(served.merged, repositories)
        check = stack.enter_context(_checking(job, served, images, listed))
        if not options.read_only:
            check()  # before anybody works with it
        yield Workspace(
            images=images,
            registry=served.registry,
            merged=served.merged,
            upper=Storage(overlay.upper),
            sync=report,
            server=served.server,
            check=check,
        )


def _place(job: Job, history: Path, places: tuple[Path, ...], stack: ExitStack) -> tuple[Path, Way]:
    """The first of `places` that an overlay works in. Raises what was wrong with the only one, or with all."""
    errors: list[RegwrapError] = []
    for place in dict.fromkeys(place.absolute() for place in places):
        with ExitStack() as trying:
            try:
                check_mountable(place, "the directory for the increment")
                check_place(history, place.resolve())
                run = trying.enter_context(overlay_directory(place, job.scratch))
                way = try_overlay(job.runner, lower=history, place=run)
            except (ToolError, UsageError) as error:
                errors.append(error)
                continue
            job.listener.say(f"overlay {way.shown}: {history} below, the increment in {place}; {way.hiding}")
            stack.push(trying.pop_all())
            return run, way
    if len(errors) == 1:
        raise errors[0]
    detail = "\n".join(f"{error}" for error in errors)
    raise ToolError("overlay works in none of the places for the increment", detail=detail, hint=errors[0].hint)


def _links(job: Job, way: Way, lines: int, stack: ExitStack) -> Path | None:
    """A directory in memory for the link files: thousands of tiny directories, which cost a disk seconds to make and to
    remove. None where there is none that takes marks."""
    status = os.statvfs(_MEMORY) if _MEMORY.is_dir() else None
    if way.hiding is not Hiding.MARK or file_system(_MEMORY) != "tmpfs" or not status:
        return None
    expected = lines * _LINKS_A_LINE
    if status.f_bavail * status.f_frsize < expected * _LINK_BYTES or 0 < status.f_favail < expected * 2:
        return None
    with ExitStack() as trying, suppress(OSError, UsageError):
        links = trying.enter_context(overlay_directory(_MEMORY, job.scratch))
        mark_opaque(links, way)  # before Linux 6.6 a tmpfs takes no user.* attributes
        os.removexattr(links, opaque_mark(way))
        stack.push(trying.pop_all())
        return links
    return None


def _overlay(history: Path, run: Path, way: Way, links: Path | None) -> tuple[Overlay, Path]:
    """The overlay's directories, and that of them which the link files go to."""
    lower = (history,) if links is None else (links, history)
    overlay = Overlay(lower=lower, upper=run / "upper", work=run / "work", merged=run / "merged", way=way)
    for directory in (overlay.upper, overlay.work, overlay.merged):
        directory.mkdir(mode=0o755)
    return overlay, overlay.upper if links is None else links


def _bring(ends: Ends, listed: Storage, upper: Path, images: ImageList, *, hashed: bool) -> SyncReport:
    dest = StorageEnd(name="the increment", storage=listed)
    target = Target(dest=dest, ends=ends, increment=Increment(blobs=upper))
    report = bring_images(target, images, hashed=hashed).report
    if report is None or report.failed:
        failed = report.failed if report else ()
        raise ImagesFailedError(
            f"{len(failed)} of {len(images.entries)} images could not be brought; nothing was written",
            detail="\n".join(f"{f.entry.dest} (line {f.entry.line}): {f.error}" for f in failed),
            hint=failed[0].hint if failed else "",
        )
    return report


@contextmanager
def _checking(job: Job, served: ServedOverlay, images: ImageList, listed: Storage) -> Iterator[Callable[[], None]]:
    """The registry itself must give each listed image with the digest that was brought. It is asked while the block
    runs; what is yielded waits for the answers, and raises IntegrityError or ToolError where they are wrong."""
    probe = Probe(registry=served.registry, timeout=job.timeouts.request, connections=job.jobs, environment=())

    def check(entry: ImageEntry) -> None:
        repository, tag = entry.dest.repository, entry.dest.tag
        wanted = listed.resolve(repository, tag)
        try:
            found = probe.digest(repository, tag)
        except (UnsureError, ToolError) as error:
            detail = f"{error}\n{why_it_does_not_answer(served.server)}"
            raise ToolError(f"the registry on the overlay does not answer for {entry.dest}", detail=detail) from error
        if found != wanted:
            raise IntegrityError(f"the registry on the overlay gives {found} for {entry.dest} instead of {wanted}")

    with ThreadPoolExecutor(job.jobs, thread_name_prefix="check") as pool:
        answers = [pool.submit(check, entry) for entry in images.entries]

        def wait_for_all() -> None:
            for answer in answers:
                answer.result()

        try:
            yield wait_for_all
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
