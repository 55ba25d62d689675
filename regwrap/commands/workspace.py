"""An overlay workspace: history below, the listed images above, a registry on both merged, for as long as a block."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.bundle.by_repository import StorageSource
from regwrap.commands.overlay_sides import (
    check_history,
    check_merged,
    check_place,
    link_known_layers,
    make_prefixes,
    prepare_sides,
)
from regwrap.commands.sync import SyncOptions, copy_images
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.registry.credentials import UnsureError
from regwrap.registry.probe import Probe
from regwrap.storage.space import free_space
from regwrap.storage.store import Storage, real_root
from regwrap.storage.tree import Tree
from regwrap.tools.docker_registry import why_it_does_not_answer
from regwrap.tools.overlay import (
    Hiding,
    MountMode,
    Overlay,
    ServedOverlay,
    check_mountable,
    file_system,
    mark_opaque,
    opaque_mark,
    served_overlay,
    try_overlay,
)
from regwrap.tools.scratch import overlay_directory
from regwrap.transfer.endpoints import Endpoints, Writing
from regwrap.transfer.mirrors import through_mirrors
from regwrap.transfer.referrers import with_referrers
from regwrap.transfer.signed import with_their_signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regwrap.core.location import Registry
    from regwrap.core.model import Digest
    from regwrap.lists.imagelist import ImageEntry, ImageList
    from regwrap.tools.runner import Server
    from regwrap.transfer.job import Job
    from regwrap.transfer.run import SyncReport

_HISTORY: Final = "the history"
_MEMORY: Final = Path("/dev/shm")  # shm_overview(7): a tmpfs on every Linux
_LINK_BYTES: Final = 10_000  # a file and its directory
_LINKS_A_LINE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceOptions:
    """`places`: where the upper layer may go, the first that an overlay works in is taken. `hashed` reads every blob of
    the history that is used. `referrers` copies those of the images."""

    places: tuple[Path, ...]
    hashed: bool
    referrers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """`merged` is a storage's root as this process sees it; `registry` serves it; `upper` is what was added; `images`
    are all that were copied. `check` raises where the registry does not give them all."""

    images: ImageList
    registry: Registry
    merged: Path
    upper: Storage
    sync: SyncReport
    server: Server
    check: Callable[[], None]

    def fetched_bytes(self, blobs: Iterable[tuple[Digest, int]]) -> int:
        """How many bytes of `blobs` are not in the history."""
        return sum(size for digest, size in blobs if self.upper.blob_size(digest) is not None)


@contextmanager
def readonly_workspace(job: Job, images: ImageList, options: WorkspaceOptions) -> Iterator[Workspace]:
    """A workspace that nobody pushes into. Its registry is being asked for the images while the block runs: whoever
    trusts it calls `check` first. Raises what `staged_upper` does.
    """
    with (
        staged_upper(job, images, options) as staged,
        mounted(job, staged, read_only=True) as served,
        checked(job, served, staged) as check,
    ):
        yield _workspace(staged, served, check)


@contextmanager
def writable_workspace(job: Job, images: ImageList, options: WorkspaceOptions) -> Iterator[Workspace]:
    """A workspace whose registry takes pushes, and has given all images before the block begins. Raises what
    `staged_upper` does."""
    with staged_upper(job, images, options) as staged:
        make_prefixes(staged.overlay.upper)
        link_known_layers(staged.history, staged.listed.root, staged.repositories)
        with mounted(job, staged, read_only=False) as served, checked(job, served, staged) as check:
            check()
            yield _workspace(staged, served, check)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Staged:
    """What is to be mounted: `listed` is the storage of the listed images, whose blobs may lie in the history."""

    images: ImageList
    history: Path
    overlay: Overlay
    listed: Storage
    sync: SyncReport

    @property
    def repositories(self) -> set[str]:
        return {entry.dest.repository for entry in self.images.entries}


def _workspace(staged: _Staged, served: ServedOverlay, check: Callable[[], None]) -> Workspace:
    return Workspace(
        images=staged.images,
        registry=served.registry,
        merged=served.merged,
        upper=Storage(staged.overlay.upper),
        sync=staged.sync,
        server=served.server,
        check=check,
    )


@contextmanager
def staged_upper(job: Job, images: ImageList, options: WorkspaceOptions) -> Iterator[_Staged]:
    """Copy the listed images into a fresh upper directory over the archive's storage; nothing is mounted yet.

    The history is not written to: not a byte, not a time. Nothing is left when the block ends, however it ends. Call
    from the main thread. Raises ImagesFailedError, ToolError, IntegrityError, UsageError.
    """
    history = _history(job)
    job = replace(job, source=job.source or job.archive)
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        endpoints.check_sources(images)
        stack.enter_context(job.locked(Tree(history), exclusive=False, untouched=True))
        for end in endpoints.storages():
            if end.storage.root != history:
                stack.enter_context(job.locked(end.storage.tree, exclusive=False))
        images = through_mirrors(endpoints, images)
        find = with_referrers if options.referrers else with_their_signatures
        images, lost = find(endpoints, images)
        run, mode = _place(job, history, options.places, stack)
        overlay, links = _overlay(history, run, mode, _links(job, mode, len(images.entries), stack))
        prepare_sides(job.runner, overlay, links)
        listed = Storage(links, below=(overlay.upper, history))
        sync_options = SyncOptions(hashed=options.hashed, lost=lost)
        report = _sync(endpoints, listed, overlay.upper, images, sync_options)
        yield _Staged(images=images, history=history, overlay=overlay, listed=listed, sync=report)


def _history(job: Job) -> Path:
    history = real_root(job.archive_directory("an overlay needs the directory of its history: give --history DIR"))
    check_mountable(history, _HISTORY)
    check_history(history)
    return history


@contextmanager
def mounted(job: Job, staged: _Staged, *, read_only: bool) -> Iterator[ServedOverlay]:
    """Mount both sides, and start a registry on them; the old images are hidden."""
    with served_overlay(job.runner, staged.overlay, scratch=job.scratch, read_only=read_only) as served:
        check_merged(served.merged, staged.repositories)
        yield served


def _place(job: Job, history: Path, places: tuple[Path, ...], stack: ExitStack) -> tuple[Path, MountMode]:
    """The first of `places` that an overlay works in. Raises what was wrong with the only one, or with all."""
    errors: list[RegwrapError] = []
    for place in dict.fromkeys(place.absolute() for place in places):
        with ExitStack() as trying:
            try:
                check_mountable(place, "the directory for the upper layer")
                check_place(history, place.resolve())
                run = trying.enter_context(overlay_directory(place, job.scratch))
                mode = try_overlay(job.runner, lower=history, place=run)
            except (ToolError, UsageError) as error:
                errors.append(error)
                continue
            job.listener.log(f"overlay {mode.shown}: {history} below, the upper layer in {place}; {mode.hiding}")
            stack.push(trying.pop_all())
            return run, mode
    if len(errors) == 1:
        raise errors[0]
    detail = "\n".join(f"{error}" for error in errors)
    raise ToolError("no directory for the upper layer works with overlay", detail=detail, hint=errors[0].hint)


def _links(job: Job, mode: MountMode, lines: int, stack: ExitStack) -> Path | None:
    """A directory in memory for the link files: thousands of tiny directories, which cost a disk seconds to make and to
    remove. None where there is none that takes marks."""
    expected = lines * _LINKS_A_LINE
    if mode.hiding is not Hiding.MARK or not _MEMORY.is_dir() or file_system(_MEMORY) != "tmpfs":
        return None
    if not free_space(_MEMORY).has(expected * _LINK_BYTES, files=expected * 2):
        return None
    with ExitStack() as trying, suppress(OSError, UsageError):
        links = trying.enter_context(overlay_directory(_MEMORY, job.scratch))
        mark_opaque(links, mode)  # before Linux 6.6 a tmpfs takes no user.* attributes
        os.removexattr(links, opaque_mark(mode))
        stack.push(trying.pop_all())
        return links
    return None


def _overlay(history: Path, run: Path, mode: MountMode, links: Path | None) -> tuple[Overlay, Path]:
    """The overlay's directories, and that of them which the link files go to."""
    lower = (history,) if links is None else (links, history)
    overlay = Overlay(lower=lower, upper=run / "upper", work=run / "work", merged=run / "merged", mode=mode)
    for directory in (overlay.upper, overlay.work, overlay.merged):
        directory.mkdir(mode=0o755)
    return overlay, overlay.upper if links is None else links


def _sync(endpoints: Endpoints, listed: Storage, upper: Path, images: ImageList, options: SyncOptions) -> SyncReport:
    dest, writing = StorageSource(name="the upper layer", storage=listed), Writing(upper=upper, hashed=options.hashed)
    report = copy_images(endpoints, dest, images, options=options, writing=writing).report
    if report is None or report.failed:
        failed = report.failed if report else ()
        raise ImagesFailedError(
            f"{len(failed)} of {counted(len(images.entries), 'image')} could not be copied; nothing was written",
            detail="\n".join(f"{f.entry.where}: {f.error}" for f in failed),
            hint=failed[0].hint if failed else "",
        )
    return report


@contextmanager
def checked(job: Job, served: ServedOverlay, staged: _Staged) -> Iterator[Callable[[], None]]:
    """The registry itself must give each listed image with the digest that was copied. It is asked while the block
    runs; what is yielded waits for the answers, and raises IntegrityError or ToolError where they are wrong."""
    probe = Probe(registry=served.registry, timeout=job.timeouts.request, connections=job.jobs, environment=())

    def check(entry: ImageEntry) -> None:
        repository, tag = entry.dest.repository, entry.dest.tag
        wanted = staged.listed.resolve(repository, tag)
        try:
            found = probe.digest(repository, tag)
        except (UnsureError, ToolError) as error:
            is_cut = isinstance(error, ToolError) and error.outage
            detail = f"{error}\n{why_it_does_not_answer(served.server, is_cut=is_cut)}"
            raise ToolError(f"the overlay's registry does not have {entry.dest}", detail=detail) from error
        if found != wanted:
            raise IntegrityError(f"the overlay's registry serves {found} for {entry.dest} instead of {wanted}")

    with ThreadPoolExecutor(job.jobs, thread_name_prefix="check") as pool:
        answers = [pool.submit(check, entry) for entry in staged.images.entries]

        def wait_for_all() -> None:
            for answer in answers:
                answer.result()

        try:
            yield wait_for_all
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
