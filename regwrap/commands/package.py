"""Write a bundle: by selection from a storage, or from an overlay of it with what is not there yet."""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.bundle.pack import PackOptions, packed_bundle
from regwrap.bundle.select import Selection, select_images
from regwrap.core.errors import BrokenBlobError, ImagesFailedError, ToolError, UsageError
from regwrap.core.location import Engine
from regwrap.core.release_id import ReleaseId
from regwrap.lists.imagelist import ImageList, as_archived, need_source
from regwrap.storage.store import Storage, real_root
from regwrap.tools.scratch import temporary_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.delta import Older
    from regwrap.bundle.stream import Target
    from regwrap.core.model import Digest
    from regwrap.transfer.job import Job
    from regwrap.transfer.run import SyncReport


class Strategy(StrEnum):
    """How a bundle is assembled. All ways give the same bytes."""

    AUTO = "auto"
    SELECT = "select"
    DIRECT = "direct"
    OVERLAY = "overlay"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageOptions:
    """`hashed=False` trusts the archive. `name` of the release, in bundle.json; empty for none. `upper`: where an
    overlay's upper layer goes; None finds a place. `referrers`: with what is about the images. `since`: what the site
    has is left out. `target`: where the bundle goes as a stream, instead of a file. `from_archive=False`: nothing is
    taken from the archive where images come straight from their sources."""

    hashed: bool
    strategy: Strategy
    name: str = ""
    upper: Path | None = None
    referrers: bool = False
    since: tuple[Older, ...] = ()
    target: Target | None = None
    from_archive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageReport:
    """A bundle that was written; sizes in bytes. `name` and `id` are the release's. `blob_bytes` counts each blob once;
    of them `brought_bytes` were not in the history and came from the source. `required` are blobs of the images that a
    delta leaves out. `sync`: what came of the images, where they came straight into the bundle."""

    path: Path
    name: str
    id: Digest
    strategy: Strategy
    images: int
    blobs: int
    blob_bytes: int
    brought_bytes: int
    file_bytes: int
    seconds: float
    required: int = 0
    required_bytes: int = 0
    sync: SyncReport | None = field(default=None, compare=False)

    def outline(self) -> dict[str, object]:
        """Without `sync` where nothing was fetched."""
        names = (item.name for item in fields(self) if item.name != "sync" or self.sync is not None)
        return {name: getattr(self, name) for name in names}

    @property
    def release(self) -> ReleaseId:
        return ReleaseId(self.name, self.id)

    @property
    def fetches(self) -> bool:
        """Whether what the history lacks came from a source."""
        return self.strategy in {Strategy.OVERLAY, Strategy.DIRECT}


def package_images(job: Job, images: ImageList, output: Path, options: PackageOptions) -> PackageReport:
    """Write the bundle with exactly the listed images. Raises ImagesFailedError, BrokenBlobError, ToolError."""
    if job.archive.image is None:
        return _package_images(job, images, output, options)
    from regwrap.commands.history import history_in_place  # images are seldom the history

    with history_in_place(job, job.archive.image, options.upper) as placed:
        return _package_images(placed, images, output, options)


def _package_images(job: Job, images: ImageList, output: Path, options: PackageOptions) -> PackageReport:
    packing = _Packing(job=job, images=images, output=output, options=options, started=time.monotonic())
    return packing.by_strategy()


def _archive(job: Job) -> Path:
    return job.archive_directory(
        "set its storage: in the configuration, sync into a directory with --archive DIR, or package straight from the"
        " registry: --strategy direct"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packing:
    job: Job
    images: ImageList
    output: Path
    options: PackageOptions
    started: float

    def by_strategy(self) -> PackageReport:
        match self.options.strategy:
            case Strategy.DIRECT:
                return self.directly()
            case Strategy.SELECT:
                return self.by_selection(_archive(self.job))
            case Strategy.OVERLAY:
                return self.by_overlay()
            case Strategy.AUTO:
                return self.by_either(_archive(self.job))

    def by_either(self, root: Path) -> PackageReport:
        """Selection where every listed image is in the storage, else straight from the sources; by an overlay where
        another engine fetches."""
        if self._can_be_direct and not root.is_dir():
            self.job.listener.log(f"straight from the source: there is no archive {root}")
            return self.directly()
        try:
            return self.by_selection(root)
        except (ImagesFailedError, BrokenBlobError) as error:
            if not self._has_source:
                raise
            if self._can_be_direct:
                self.job.listener.log(f"straight from the source: {error.message}")
                return self.directly()
            return self._by_overlay_instead(error)

    def _by_overlay_instead(self, error: ImagesFailedError | BrokenBlobError) -> PackageReport:
        self.job.listener.log(f"overlay, not selection: {error.message}")
        try:
            return self.by_overlay()
        except ToolError as overlay:
            if overlay.transient:
                raise
            raise type(error)(error.message, detail=f"{error.detail}\nand {overlay}", hint=error.hint) from overlay

    @property
    def _has_source(self) -> bool:
        return self.job.source is not None or not need_source(self.images)

    @property
    def _can_be_direct(self) -> bool:
        return self._has_source and self.job.engine in {Engine.AUTO, Engine.CURL}

    @property
    def _comes_from_the_archive(self) -> bool:
        """Whether the source is the archive's own registry, where images have their names of the archive."""
        source, archive = self.job.source, self.job.archive
        is_one = source is not None and source.registry is not None and source.registry == archive.registry
        return is_one and archive.storage is None

    def directly(self) -> PackageReport:
        from regwrap.commands.direct import DirectOptions, direct_bundle  # selection needs nothing of registries

        options = self.options
        direct = DirectOptions(
            hashed=options.hashed,
            name=options.name,
            referrers=options.referrers,
            since=options.since,
            from_archive=options.from_archive,
            target=options.target,
            upper=options.upper,
        )
        images = as_archived(self.images) if self._comes_from_the_archive else self.images
        with direct_bundle(self.job, images, self.output, direct) as bundle:
            fetched = bundle.contents.blob_bytes - bundle.reused
            return self._report(bundle.contents, Strategy.DIRECT, fetched=fetched, sync=bundle.report)

    def by_selection(self, root: Path) -> PackageReport:
        if self.images.entries and not root.is_dir():
            raise UsageError(f"the archive {root} does not exist", hint="create it: regwrap sync with the same list")
        root.mkdir(parents=True, exist_ok=True)
        storage, images = Storage(real_root(root)), self.images
        with self.job.locked(storage.tree, exclusive=False):
            if self.options.referrers:
                from regwrap.transfer.referrers import with_referrers_there  # knows registries too

                images = with_referrers_there(storage, images, self.job.listener)
            elif self.job.signed:
                from regwrap.transfer.signed import with_their_signatures_there

                images = with_their_signatures_there(self.job, storage, images)
            selection = self._selected(storage, images)
            with self._packed(selection):
                return self._report(selection.contents, Strategy.SELECT, fetched=0)

    def by_overlay(self) -> PackageReport:
        """What turns out to be rotten in the history while it is packed is fetched again, once."""
        _archive(self.job)
        try:
            return self._by_overlay(hashed=False)
        except BrokenBlobError as error:
            for problem in error.problems:
                self.job.listener.log(f"damaged in the history: {problem}")
            self.job.listener.log("repairing damaged blobs; the history is not changed")
            return self._by_overlay(hashed=True)

    def _by_overlay(self, *, hashed: bool) -> PackageReport:
        from regwrap.commands.workspace import (  # selection needs nothing of registries
            WorkspaceOptions,
            readonly_workspace,
        )

        options = WorkspaceOptions(
            places=(self.options.upper,) if self.options.upper else (self.output.parent, temporary_place()),
            hashed=hashed,
            referrers=self.options.referrers,
        )
        with readonly_workspace(self.job, self.images, options) as workspace:
            selection = self._selected(Storage(workspace.merged), workspace.images)
            fetched = workspace.fetched_bytes(selection.contents.blobs)
            with self._packed(selection):
                workspace.check()
                return self._report(selection.contents, Strategy.OVERLAY, fetched=fetched)

    def _selected(self, storage: Storage, images: ImageList) -> Selection:
        selection = select_images(storage, images.entries, self.job.listener)
        contents = replace(selection.contents, name=self.options.name)
        if self.options.since:
            from regwrap.bundle.delta import since  # deltas are asked for now and then

            contents = since(contents, self.options.since)
        return replace(selection, contents=contents)

    @contextmanager
    def _packed(self, selection: Selection) -> Iterator[None]:
        """The bundle is written, and gets its name when the block ends; not if that raises."""
        self.job.listener.expect("package", selection.contents.blob_bytes)
        if self.options.target is not None:
            from regwrap.bundle.stream import streamed_bundle  # most bundles are files

            hashed = self.options.hashed
            with streamed_bundle(selection, self.options.target, self.job.listener, hashed=hashed):
                yield
            return
        with tempfile.TemporaryDirectory(dir=self.job.scratch) as scratch:
            options = PackOptions(scratch=Path(scratch), hashed=self.options.hashed, stall=self.job.timeouts.disk_stall)
            with packed_bundle(self.job.runner, selection, self.output, options, self.job.listener):
                yield

    def _report(
        self, contents: BundleContents, strategy: Strategy, *, fetched: int, sync: SyncReport | None = None
    ) -> PackageReport:
        return PackageReport(
            path=self.output,
            name=contents.name,
            id=contents.id,
            strategy=strategy,
            images=len(contents.images),
            blobs=len(contents.blobs),
            blob_bytes=contents.blob_bytes,
            brought_bytes=fetched,
            file_bytes=contents.tar_bytes,
            seconds=time.monotonic() - self.started,
            required=len(contents.required),
            required_bytes=contents.required_bytes,
            sync=sync,
        )
