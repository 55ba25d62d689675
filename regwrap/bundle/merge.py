"""What bringing images into a storage has in common, from a bundle or a stock: the checks before, what is added."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.core.errors import ToolError, UsageError
from regwrap.storage import layout
from regwrap.storage.commit import Additions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents
    from regwrap.core.model import Digest
    from regwrap.storage.store import Storage

_INODES_PER_BLOB = 3  # directory of the digest, data, now and then a prefix; a link costs two


@dataclass(frozen=True, slots=True, kw_only=True)
class TagChanges:
    """Tags as `repository:tag`: those that the storage lacks, and those that point to another image there."""

    added: tuple[str, ...]
    moved: tuple[tuple[str, Digest, Digest], ...]

    @property
    def replaced(self) -> tuple[str, ...]:
        return tuple(name for name, _there, _new in self.moved)


def tag_changes(contents: BundleContents, storage: Storage) -> TagChanges:
    there = [(image, storage.resolve(image.repository, image.tag)) for image in contents.images]
    return TagChanges(
        added=tuple(image.name for image, digest in there if digest is None),
        moved=tuple((i.name, digest, i.digest) for i, digest in there if digest is not None and digest != i.digest),
    )


def refuse_moves(moved: Sequence[tuple[str, Digest, Digest]], place: str, origin: str) -> None:
    """Raises UsageError where a tag would move: `repository:tag`, what it is in `place`, and what it is in `origin`,
    where the images come from."""
    if moved:
        lines = "\n".join(f"{name}: is {there}, {origin} has {new}" for name, there, new in moved)
        raise UsageError(
            f"{len(moved)} tags are in {place} already and point to other images; nothing was changed",
            detail=lines,
            hint=f"--replace-tags moves them to the images of {origin}",
        )


def check_place(root: Path) -> None:
    """Raises UsageError for a directory below a storage's root."""
    inside = ("registry/v2", "v2", "blobs/sha256", "repositories")  # of docker, of docker/registry, of v2
    if not (root / layout.V2).is_dir() and any((root / part).is_dir() for part in inside):
        raise UsageError(
            f"{root} looks like a part of a storage",
            hint="give the registry's root directory, the one that has docker/registry/v2 in it",
        )


def prepare_root(root: Path) -> None:
    """Makes the directory. Raises UsageError where it can't be a storage's root."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{root} is not a directory") from None
    except OSError as error:
        raise UsageError(f"{root} can't be made: {error.strerror}") from error
    device = root.stat().st_dev
    for part in (layout.V2, f"{layout.V2}/blobs", layout.REPOSITORIES):
        path = root / part
        if path.exists() and path.stat().st_dev != device:
            raise UsageError(
                f"{path} lies on another file system than {root}",
                hint="files are put in place by rename, so all of a storage has to lie on one file system",
            )


def check_space(contents: BundleContents, storage: Storage) -> None:
    """Raises ToolError where the blobs that the storage lacks, or their files, have no room."""
    missing = [size for digest, size in contents.blobs if storage.blob_size(digest) is None]
    links = len(contents.members) - len(contents.blobs)
    need_bytes, need_files = sum(missing), _INODES_PER_BLOB * len(missing) + 2 * links
    root, status = storage.root, os.statvfs(storage.root)
    free_bytes, room = status.f_bavail * status.f_frsize, 1.05
    # btrfs says 0 of 0 files: it has no limit (statvfs(3), f_files)
    if status.f_blocks and free_bytes < need_bytes * room:
        raise ToolError(
            f"not enough space in {root}: {need_bytes:,} bytes are needed, {free_bytes:,} are free",
            hint="free space there; nothing was changed",
        )
    if status.f_files and status.f_favail < need_files and missing:
        raise ToolError(
            f"not enough inodes in {root}: {need_files:,} are needed, {status.f_favail:,} are free",
            hint="remove files there, or use a file system made with more inodes; nothing was changed",
        )


def additions(contents: BundleContents, staged: Iterable[tuple[Digest, Path]]) -> Additions:
    """All links and tags of the images, and the blobs that are staged for them."""
    return Additions(
        blobs=tuple(staged),
        layers=tuple((r.name, digest) for r in contents.repositories for digest in r.layers),
        revisions=tuple((r.name, digest) for r in contents.repositories for digest in r.manifests),
        tags=tuple((image.repository, image.tag, image.digest) for image in contents.images),
    )
