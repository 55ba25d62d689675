"""Import skopeo's directories and OCI layouts into a storage, as `deploy` does it with a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap.bundle.discovery import tree_image_set
from regwrap.bundle.merge import ROOT_HINT, ImportOptions, check_place, import_image_set, target_storage
from regwrap.core.errors import UsageError
from regwrap.storage import layout
from regwrap.storage.commit import Files, Owner, RealFiles
from regwrap.storage.own import OWN_DIR
from regwrap.storage.store import real_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.bundle.image_set import ImageSet
    from regwrap.core.listener import Listener
    from regwrap.core.moves import TagMove
    from regwrap.core.release_id import ReleaseId


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """`omitted`: manifests that the imported indexes name and that were not there to import."""

    path: Path
    images: tuple[str, ...]
    tags_added: tuple[str, ...]
    tags_replaced: tuple[TagMove, ...]
    tags_kept: tuple[TagMove, ...]
    omitted: int
    blobs_added: int
    bytes_added: int
    dry_run: bool
    release: ReleaseId


def import_images(
    image_set: ImageSet,
    root: Path,
    options: ImportOptions,
    listener: Listener,
    files_for: Callable[[Owner], Files] = RealFiles,
) -> ImportReport:
    """The images as a whole have to be the release that somebody trusted has signed, where that is asked. Raises what
    `import_image_set` does, and UsageError for a directory that holds other things."""
    if options.trust is not None:
        options.trust(image_set.contents.id)
    check_place(root)
    _refuse_strange(root)
    storage = target_storage(root, options)
    imported, images = (
        import_image_set(image_set, storage, "import", options, listener, files_for),
        image_set.contents.images,
    )
    added = (*imported.added, *imported.mended)
    return ImportReport(
        path=root,
        images=tuple(image.name for image in images),
        tags_added=imported.changes.added,
        tags_replaced=imported.changes.replaced,
        tags_kept=imported.kept,
        omitted=sum(len(image.omitted) for image in images),
        blobs_added=len(added),
        bytes_added=sum(size for _digest, size in added),
        dry_run=options.dry_run,
        release=image_set.contents.release,
    )


def _refuse_strange(root: Path) -> None:
    """Whoever mixes up the two directories would get a storage among the images. Raises UsageError."""
    # a run that was killed early leaves a storage's first directories and no more
    own = {OWN_DIR, "docker", "lost+found"}
    if root.is_dir() and not (root / layout.V2).is_dir() and any(p.name not in own for p in root.iterdir()):
        raise UsageError(
            f"{root} is neither empty nor a storage: it has no {layout.V2}",
            hint=ROOT_HINT,
        )


def import_tree(
    place: str,
    root: Path,
    options: ImportOptions,
    listener: Listener,
    *,
    named: str | None = None,
    release: str = "",
) -> ImportReport:
    """Import what `DIR` or `oci:DIR[:NAME]` holds into the storage at `root`. `release` is the name of the release
    that it is, which its files do not say."""
    found = tree_image_set(place, named=named, listener=listener)
    image_set = replace(found, contents=replace(found.contents, name=release))
    return import_images(image_set, real_root(root), options, listener)
