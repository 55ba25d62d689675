"""Removing what `storage.gc` found, from the tags down to the blobs, each step on disk before the next begins.

Killed at any moment the storage is sound: a tag goes by one rename, nothing goes before the last thing that points to
it, and what is left is found again by the next run.
"""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.errors import UsageError
from regwrap.storage import layout
from regwrap.storage.commit import sync_file_system
from regwrap.storage.gc import DroppedImage, Garbage, Keep, RepositoryGarbage, find_garbage
from regwrap.storage.lock import OWN_DIR, is_own, locked_storage
from regwrap.storage.stage import remove_stage, temporary_stage
from regwrap.storage.store import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_THREADS: Final = 8
# what a registry makes in a repository; children before parents
_PARTS: Final = ("_manifests/revisions/sha256", "_manifests/revisions", "_manifests/tags", "_manifests",
          "_layers/sha256", "_layers", "")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """`offline`: the user says that nothing else writes. `expect` hears how many bytes will go, `on_bytes`, from
    several threads, those that went. `lock_timeout` in seconds."""

    dry_run: bool
    offline: bool
    lock_timeout: float
    on_wait: Callable[[str], None]
    expect: Callable[[int], None]
    on_bytes: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryReport:
    """`bytes`: blobs that only links of this kind need, so those of two repositories may count in both; and uploads."""

    name: str
    tags: int
    manifests: int
    layers: int
    bytes: int
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What went, or with `dry_run` would go. `bytes` counts each blob once, and the leftovers of uploads."""

    dry_run: bool
    kept: int
    images: tuple[DroppedImage, ...]
    repositories: tuple[RepositoryReport, ...]
    blobs: int
    bytes: int
    notes: tuple[str, ...]


class Disk(Protocol):
    """The file operations a removal is made of. Tests make each one fail in turn."""

    def rename(self, old: Path, new: Path) -> None: ...
    def remove_file(self, path: str) -> None: ...
    def remove_directory(self, path: str) -> bool: ...
    def remove_tree(self, path: Path) -> None: ...
    def sync(self, path: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class RealDisk:
    """What is gone already is fine: a run that was killed removed it."""

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove_file(self, path: str) -> None:
        with suppress(FileNotFoundError, IsADirectoryError):
            os.remove(path)

    def remove_directory(self, path: str) -> bool:
        """Whether it is gone; False where something is in it, or where it is none."""
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                return False
            raise
        return True

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path)

    def sync(self, path: Path) -> None:
        sync_file_system(path)


def collect_garbage(root: Path, keep: Keep, options: GcOptions, disk: Disk) -> GcReport:
    """Remove from the storage at `root` what nothing needs that is to be kept.

    Raises UsageError where nothing would be left, or where somebody else may be writing. `disk` is the seam at which
    tests let file operations fail.
    """
    if not (root / layout.V2).is_dir():
        find_garbage(Storage(root), keep)  # says what is wrong, before a lock is made there
    if not options.dry_run and not options.offline and not is_own(root):
        raise UsageError(
            f"{root} is not regwrap's own: an image that is pushed while gc runs could be lost",
            hint="stop the registry that serves it or switch it to read-only, then give --offline",
        )
    with locked_storage(root, exclusive=not options.dry_run, timeout=options.lock_timeout, on_wait=options.on_wait):
        garbage = find_garbage(Storage(root), keep)
        left: tuple[str, ...] = ()
        if not options.dry_run:
            options.expect(garbage.blob_bytes)
            left = remove_garbage(root, garbage, disk, options.on_bytes)
    return _report(garbage, left, dry_run=options.dry_run)


def remove_garbage(root: Path, garbage: Garbage, disk: Disk, on_bytes: Callable[[int], None]) -> tuple[str, ...]:
    """Carry `garbage` out, under the storage's lock. Returns the directories that had unknown things in them."""
    trash = root / OWN_DIR / "gc"
    remove_stage(trash)
    with temporary_stage(trash):
        return tuple(_Sweep(root, garbage, disk, on_bytes).run(trash))


@dataclass(frozen=True, slots=True)
class _Sweep:
    root: Path
    garbage: Garbage
    disk: Disk
    on_bytes: Callable[[int], None]

    def run(self, trash: Path) -> Iterator[str]:
        repositories = self.garbage.repositories
        self._remove_tags(trash)
        for links in (
            [[(layout.tag_index_link(r.name, tag, digest), 0) for tag, digest in r.history] for r in repositories],
            [[(layout.revision_link(r.name, digest), 0) for digest in r.revisions] for r in repositories],
            [[(layout.layer_link(r.name, digest), 0) for digest in r.layers] for r in repositories],
        ):
            yield from self._remove_files(links)
        by_prefix = groupby(self.garbage.blobs, key=lambda blob: blob[0].hex[:2])
        yield from self._remove_files([[(layout.blob_path(d), size) for d, size in blobs] for _, blobs in by_prefix])
        self._remove_leftovers()

    def _remove_tags(self, trash: Path) -> None:
        """A registry lists a tag as long as its directory is there, whatever is in it: it goes as a whole."""
        names = [layout.tag_path(r.name, tag) for r in self.garbage.repositories for tag in r.tags]
        for number, name in enumerate(names):
            self.disk.rename(self.root / name, trash / str(number))
        self._sync(names)
        for number, _name in enumerate(names):
            self.disk.remove_tree(trash / str(number))

    def _remove_files(self, groups: list[list[tuple[str, int]]]) -> list[str]:
        """Names and bytes, grouped by the directory they lie in; the disk's waiting is what takes the time."""
        groups = [group for group in groups if group]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="remove") as pool:
            try:
                left = [path for paths in pool.map(self._remove_group, groups) for path in paths]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._sync(groups)
        return left

    def _remove_group(self, group: list[tuple[str, int]]) -> list[str]:
        """Each file and its directory. Names are texts: for 100,000 of them that takes half the time of paths."""
        left = []
        for name, size in group:
            path = f"{self.root}/{name}"
            directory = path.rpartition("/")[0]
            self.disk.remove_file(path)
            if not self.disk.remove_directory(directory):
                left.append(directory)
            self.on_bytes(size)
        return left

    def _remove_leftovers(self) -> None:
        """What the registry's own collector leaves: uploads that were cut off, empty directories."""
        repositories = self.garbage.repositories
        for repository in repositories:
            if repository.uploads is not None:
                self.disk.remove_tree(self.root / layout.repository_path(repository.name) / "_uploads")
        for repository in sorted((r for r in repositories if r.gone), key=lambda r: r.name, reverse=True):
            for part in _PARTS:
                self.disk.remove_directory(f"{self.root}/{layout.repository_path(repository.name)}/{part}".rstrip("/"))
        for prefix in self.garbage.prefixes:
            self.disk.remove_directory(f"{self.root}/{layout.BLOBS}/{prefix}")
        self._sync(repositories or self.garbage.prefixes)

    def _sync(self, done: object) -> None:
        if done:
            self.disk.sync(self.root)


def _report(garbage: Garbage, left: tuple[str, ...], *, dry_run: bool) -> GcReport:
    return GcReport(
        dry_run=dry_run,
        kept=garbage.kept,
        images=garbage.images,
        repositories=tuple(_repository_report(r) for r in garbage.repositories if not _is_bare(r)),
        blobs=len(garbage.blobs),
        bytes=garbage.blob_bytes + sum(r.uploads or 0 for r in garbage.repositories),
        notes=(*garbage.notes, *(f"{path} has something unknown in it; left alone" for path in left)),
    )


def _is_bare(repository: RepositoryGarbage) -> bool:
    """A directory of which nothing is left but itself."""
    return not (repository.tags or repository.history or repository.revisions or repository.layers) and not (
        repository.uploads
    )


def _repository_report(repository: RepositoryGarbage) -> RepositoryReport:
    return RepositoryReport(
        name=repository.name,
        tags=len(repository.tags),
        manifests=len(repository.revisions),
        layers=len(repository.layers),
        bytes=repository.bytes,
        gone=repository.gone,
    )
