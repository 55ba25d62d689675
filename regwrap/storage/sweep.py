"""Removing what `storage.gc` found, from the tags down to the blobs, each step on disk before the next begins.

Killed at any moment the storage is valid: a tag goes by one rename, nothing goes before the last thing that points to
it, and what is left is found again by the next run.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.core.pool import map_in_order
from regwrap.storage import layout
from regwrap.storage.own import own_tree
from regwrap.storage.stage import remove_stage, temporary_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regwrap.storage.gc import Garbage
    from regwrap.storage.tree import Tree

# so many at a time: each file waits for the disk, where that is told what is free (mount's `discard`)
_THREADS: Final = 8
_TOGETHER: Final = 64  # they take a few milliseconds where the disk does not wait
_TRASH: Final = "gc"
# what a registry makes in a repository; children before parents
_PARTS: Final = ("_manifests/revisions/sha256", "_manifests/revisions", "_manifests/tags", "_manifests",
          "_layers/sha256", "_layers", "")  # fmt: skip


class Disk(Protocol):
    """The file operations a removal is made of, each in a tree. Tests make each one fail in turn."""

    def rename(self, tree: Tree, old: str, trash: Tree, new: str) -> None: ...
    def empty_directory(self, tree: Tree, name: str, file: str) -> bool: ...
    def remove_directory(self, tree: Tree, name: str) -> bool: ...
    def remove_tree(self, tree: Tree, name: str) -> None: ...
    def sync(self, tree: Tree) -> None: ...


@dataclass(frozen=True, slots=True)
class RealDisk:
    """What is gone already is fine: a run that was killed removed it."""

    def rename(self, tree: Tree, old: str, trash: Tree, new: str) -> None:
        tree.rename(old, trash, new)

    def empty_directory(self, tree: Tree, name: str, file: str) -> bool:
        """Remove the file, then its directory; whether that is gone."""
        if tree.empty_directory(name, file):
            return True
        self.remove_file(tree, f"{name}/{file}")
        return self.remove_directory(tree, name)

    def remove_file(self, tree: Tree, name: str) -> None:
        try:
            tree.remove_file(name)
        except (FileNotFoundError, IsADirectoryError):
            return

    def remove_directory(self, tree: Tree, name: str) -> bool:
        """Whether it is gone; False where something is in it, or where it is none."""
        try:
            tree.remove_directory(name)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                return False
            raise
        return True

    def remove_tree(self, tree: Tree, name: str) -> None:
        tree.remove_all(name)

    def sync(self, tree: Tree) -> None:
        tree.sync()


def remove_garbage(tree: Tree, garbage: Garbage, disk: Disk, on_bytes: Callable[[int], None]) -> tuple[str, ...]:
    """Remove `garbage`, under the storage's lock. Returns the directories that had unknown things in them."""
    own = own_tree(tree)
    remove_stage(own, _TRASH)
    with temporary_stage(own, _TRASH) as trash:
        return tuple(_Sweep(tree, garbage, disk, on_bytes).run(trash))


@dataclass(frozen=True, slots=True)
class _Sweep:
    tree: Tree
    garbage: Garbage
    disk: Disk
    on_bytes: Callable[[int], None]

    def run(self, trash: Tree) -> Iterator[str]:
        repositories = self.garbage.repositories
        self._remove_tags(trash)
        for links in (
            [(layout.tag_index_link(r.name, tag, digest), 0) for r in repositories for tag, digest in r.history],
            [(layout.revision_link(r.name, digest), 0) for r in repositories for digest in r.revisions],
            [(layout.layer_link(r.name, digest), 0) for r in repositories for digest in r.layers],
        ):
            yield from self._remove_files(links)
        yield from self._remove_files([(layout.blob_path(digest), size) for digest, size in self.garbage.blobs])
        self._remove_leftovers()

    def _remove_tags(self, trash: Tree) -> None:
        """A registry lists a tag as long as its directory is there, whatever is in it: it goes as a whole, by one
        rename, and with the trash in the end."""
        names = [layout.tag_path(r.name, tag) for r in self.garbage.repositories for tag in r.tags]
        for number, name in enumerate(names):
            self.disk.rename(self.tree, name, trash, str(number))
        self._sync(names)

    def _remove_files(self, files: list[tuple[str, int]]) -> list[str]:
        """Names and bytes, those of a directory beside each other."""
        parts = [files[at : at + _TOGETHER] for at in range(0, len(files), _TOGETHER)]
        left = map_in_order(self._remove_group, parts, workers=_THREADS, name="remove")
        self._sync(parts)
        return [path for paths in left for path in paths]

    def _remove_group(self, group: list[tuple[str, int]]) -> list[str]:
        """Each file and its directory. The directory above is walked to once, and the names in it are texts: there may
        be 100,000 of them."""
        left: list[str] = []
        for above, files in groupby(group, key=lambda file: file[0].rsplit("/", 2)[0]):
            try:
                directory = self.tree.inner(above)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for path, _size in files:
                inner, _slash, file = path[len(above) + 1 :].partition("/")
                if not self.disk.empty_directory(directory, inner, file):
                    left.append(self.tree.shown(f"{above}/{inner}"))
        self.on_bytes(sum(size for _path, size in group))
        return left

    def _remove_leftovers(self) -> None:
        """What the registry's own collector leaves: uploads that were cut off, empty directories."""
        repositories = self.garbage.repositories
        for repository in repositories:
            if repository.uploads is not None:
                self.disk.remove_tree(self.tree, f"{layout.repository_path(repository.name)}/_uploads")
        for repository in sorted((r for r in repositories if r.gone), key=lambda r: r.name, reverse=True):
            for part in _PARTS:
                self.disk.remove_directory(self.tree, f"{layout.repository_path(repository.name)}/{part}".rstrip("/"))
        for prefix in self.garbage.prefixes:
            self.disk.remove_directory(self.tree, f"{layout.BLOBS}/{prefix}")
        self._sync(repositories or self.garbage.prefixes)

    def _sync(self, done: object) -> None:
        if done:
            self.disk.sync(self.tree)
