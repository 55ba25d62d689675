"""Bring a stock's images into a storage: the way back from skopeo's directories and OCI layouts.

As `deploy` does it with a bundle: all is looked at first, every byte is hashed, blobs go in first and tags last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regwrap.bundle.found import tree_stock
from regwrap.bundle.merge import additions, check_place, check_space, prepare_root, refuse_moves, tag_changes
from regwrap.bundle.stock import Stock, damaged, in_threads
from regwrap.core.errors import UsageError
from regwrap.core.model import Descriptor, Digest
from regwrap.storage import layout
from regwrap.storage.commit import Files, Owner, RealFiles, commit
from regwrap.storage.lock import OWN_DIR, locked_storage
from regwrap.storage.stage import remove_stage, temporary_stage
from regwrap.storage.store import Storage, real_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """`lock_timeout` in seconds."""

    replace_tags: bool
    dry_run: bool
    lock_timeout: float
    on_wait: Callable[[str], None]
    expect: Callable[[str, int], None]
    on_bytes: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """`omitted`: manifests that the imported indexes name and that were not there to import."""

    path: Path
    images: tuple[str, ...]
    tags_added: tuple[str, ...]
    tags_replaced: tuple[str, ...]
    omitted: int
    blobs_added: int
    bytes_added: int
    dry_run: bool


def import_images(
    stock: Stock, root: Path, options: ImportOptions, files_for: Callable[[Owner], Files] = RealFiles
) -> ImportReport:
    """Raises UsageError (a tag is there and points elsewhere, no storage), IntegrityError, ToolError (no space).

    `files_for` is the seam at which tests let file operations fail.
    """
    check_place(root)
    _refuse_strange(root)
    if options.dry_run:
        storage = Storage(root)
        _refuse_moves(stock, storage, options)
        missing = [(d, size) for d, size in stock.contents.blobs if storage.blob_size(d) != size]
        return _report(stock, storage, missing, dry_run=True)
    prepare_root(root)
    with locked_storage(root, exclusive=True, timeout=options.lock_timeout, on_wait=options.on_wait):
        storage = Storage(root)
        _refuse_moves(stock, storage, options)
        stage = root / OWN_DIR / "import"
        remove_stage(stage)
        check_space(stock.contents, storage)
        with temporary_stage(stage):
            staged = _staged(stock, storage, stage, options)
            report = _report(stock, storage, [(d, s) for d, s in stock.contents.blobs if d in staged], dry_run=False)
            commit(
                root, additions(stock.contents, sorted(staged.items())), stage=stage, files=files_for(Owner.of(root))
            )
    return report


def _refuse_moves(stock: Stock, storage: Storage, options: ImportOptions) -> None:
    if not options.replace_tags:
        refuse_moves(tag_changes(stock.contents, storage).moved, f"{storage.root}", stock.name)


def _refuse_strange(root: Path) -> None:
    """Whoever mixes up the two directories would get a storage among the images. Raises UsageError."""
    # a run that was killed early leaves a storage's first directories and no more
    own = {OWN_DIR, "docker", "lost+found"}
    if root.is_dir() and not (root / layout.V2).is_dir() and any(p.name not in own for p in root.iterdir()):
        raise UsageError(
            f"{root} is neither empty nor a storage: it has no {layout.V2}",
            hint="give the registry's root directory, the one that has docker/registry/v2 in it",
        )


@dataclass(frozen=True, slots=True)
class _Staging:
    stock: Stock
    storage: Storage
    stage: Path
    staged: dict[Digest, Path] = field(default_factory=dict)

    def take(self, digest: Digest, size: int) -> bool:
        """Hash the blob; what the storage lacks, or has damaged, is written to the stage as well."""
        if self.storage.is_sound(Descriptor(media_type="", digest=digest, size=size), hashed=True):
            return self.stock.is_right(digest)
        path = self.stage / digest.hex
        with path.open("wb") as out:
            right = self.stock.copy(digest, out.write)
        self.staged[digest] = path
        return right


def _staged(stock: Stock, storage: Storage, stage: Path, options: ImportOptions) -> dict[Digest, Path]:
    options.expect("import", stock.contents.blob_bytes)
    staging, sizes = _Staging(stock, storage, stage), dict(stock.contents.blobs)
    wrong = in_threads(lambda digest: staging.take(digest, sizes[digest]), stock.contents.blobs, options.on_bytes)
    if wrong:
        raise damaged(stock, wrong)
    return staging.staged


def _report(stock: Stock, storage: Storage, added: list[tuple[Digest, int]], *, dry_run: bool) -> ImportReport:
    changes, images = tag_changes(stock.contents, storage), stock.contents.images
    return ImportReport(
        path=storage.root,
        images=tuple(image.name for image in images),
        tags_added=changes.added,
        tags_replaced=changes.replaced,
        omitted=sum(len(image.omitted) for image in images),
        blobs_added=len(added),
        bytes_added=sum(size for _digest, size in added),
        dry_run=dry_run,
    )


def import_tree(
    job: Job, place: str, root: Path, *, named: str | None, replace_tags: bool, dry_run: bool
) -> ImportReport:
    """Bring what `DIR` or `oci:DIR[:NAME]` holds into the storage at `root`."""
    options = ImportOptions(
        replace_tags=replace_tags,
        dry_run=dry_run,
        lock_timeout=job.timeouts.lock,
        on_wait=job.listener.say,
        expect=job.listener.expect,
        on_bytes=job.listener.on_bytes,
    )
    return import_images(tree_stock(place, named=named), real_root(root), options)
