"""Write an image set's images as skopeo's dir: trees, or as one OCI layout.

The tree is built aside on the same file system, every byte hashed on the way, and appears by rename. Images of one
export share equal blobs by hard links among themselves, never with the source.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.bundle.image_set import ImageSet, damaged
from regwrap.bundle.opened import opened_image_set
from regwrap.bundle.read import hash_all
from regwrap.core.counts import counted
from regwrap.core.errors import UsageError
from regwrap.core.manifest import DOCKER_LIST, DOCKER_MANIFEST
from regwrap.core.writing import check_directory, is_there
from regwrap.forms.tree import Form, TreeFile, tree_files
from regwrap.storage.commit import sync_file_system
from regwrap.storage.hashing import hash_file, write_all
from regwrap.storage.space import need_space
from regwrap.storage.store import regular_size
from regwrap.tools.scratch import overlay_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.core.release_id import ReleaseId
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """`there` says that the directory had exactly this content already. `bytes`: each blob once. `release` is None for
    a storage."""

    path: Path
    form: Form
    images: tuple[str, ...]
    files: int
    bytes: int
    there: bool
    dry_run: bool
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """`scratch` is the run's private directory."""

    form: Form
    dry_run: bool
    scratch: Path


def export_images(image_set: ImageSet, target: Path, options: ExportOptions, listener: Listener) -> ExportReport:
    """Raises UsageError where `target` holds anything else, IntegrityError, ToolError (no space)."""
    files = tree_files(image_set.contents, image_set.read, options.form)
    there = _is_there(target, files)
    if not (there or options.dry_run):
        check_directory(target)
        need_space(target.parent, image_set.contents.blob_bytes)
        listener.expect("export", image_set.contents.blob_bytes)
        with overlay_directory(target.parent, options.scratch) as aside:
            tree = aside / "export"
            _write(image_set, files, tree, listener.on_bytes)
            sync_file_system(tree)
            tree.rename(target)
            sync_file_system(target)
    return ExportReport(
        path=target,
        form=options.form,
        images=tuple(image.name for image in image_set.contents.images),
        files=len(files),
        bytes=image_set.contents.blob_bytes,
        there=there,
        dry_run=options.dry_run,
        release=image_set.release,
    )


def _is_there(target: Path, files: tuple[TreeFile, ...]) -> bool:
    """False for an absent or empty directory. Raises UsageError for anything but these files with these bytes."""
    if not is_there(target):
        return False
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target} is not a directory")
    found = {f"{path.relative_to(target)}" for path in target.rglob("*") if path.is_symlink() or not path.is_dir()}
    if not found and not any(target.iterdir()):
        return False
    other = sorted(found ^ {file.path for file in files})
    other += [file.path for file in files if not other and not _is_same(target, file)]
    if other or not found:
        raise UsageError(
            f"{target} has other content; nothing was changed",
            detail="\n".join(other[:10]),
            hint="export into a new directory",
        )
    return True


def _is_same(target: Path, file: TreeFile) -> bool:
    return regular_size(target / file.path) == file.size and hash_file(target / file.path) == file.digest


def _write(image_set: ImageSet, files: tuple[TreeFile, ...], tree: Path, on_bytes: Callable[[int], None]) -> None:
    tree.mkdir()
    places: dict[Digest, list[Path]] = defaultdict(list)
    for file in files:
        path = tree / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.data is None:
            places[file.digest].append(path)
        else:
            with path.open("xb", buffering=0) as out:
                write_all(out, file.data)

    def write(digest: Digest) -> bool:
        first, *others = places[digest]
        with first.open("xb", buffering=0) as out:
            valid = image_set.copy(digest, lambda piece: write_all(out, piece))
        for path in others:
            path.hardlink_to(first)
        return valid

    wrong = hash_all(write, image_set.contents.blobs, on_bytes)
    if wrong:
        raise damaged(image_set, wrong)


def export_image_set(
    job: Job, source: Path, target: Path, *, form: Form, dry_run: bool, bases: Sequence[Path] = ()
) -> ExportReport:
    """Write the images of a bundle or a storage into the directory `target`. `bases` have what a delta requires."""
    with opened_image_set(source, lock_timeout=job.timeouts.lock, listener=job.listener, bases=bases) as image_set:
        old = [i.name for i in image_set.contents.images if i.media_type in {DOCKER_MANIFEST, DOCKER_LIST}]
        if form is Form.OCI and old:
            job.listener.log(
                f"note: {counted(len(old), 'image has a docker manifest', 'images have docker manifests')},"
                f" such as {old[0]}, copied unchanged."
                " skopeo cannot read them from an OCI layout; regwrap import can, and --format dir has no such limit"
            )
        options = ExportOptions(form=form, dry_run=dry_run, scratch=job.scratch)
        return export_images(image_set, target.absolute(), options, job.listener)
