"""What a storage's directories hold, in one pass: names only, no file is opened but the links of tags.

What has no place in the layout is named as unknown. A symbolic link in a directory's place is refused: a registry
follows it, so what is there may need more than can be seen.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.listener import SILENT, counted_by
from regwrap.core.model import Digest, is_repository, is_tag
from regwrap.storage import layout
from regwrap.storage.own import OWN_DIR
from regwrap.storage.store import check_one_file_system, read_link
from regwrap.storage.tree import LinkedDirectoryError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from regwrap.core.listener import Listener
    from regwrap.storage.store import Storage
    from regwrap.storage.tree import Tree

_TOP: Final = ("docker", "docker/registry", layout.V2, f"{layout.V2}/blobs", layout.BLOBS, layout.REPOSITORIES)


@dataclass(frozen=True, slots=True)
class TagTree:
    """`digest` is None where the current link is absent or damaged; `history` is all that the tag ever was."""

    digest: Digest | None
    history: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryTree:
    """A directory with a repository's name, and what it links; `uploads` are bytes, None without `_uploads`.
    `is_bare`: it only has others in it."""

    name: str
    tags: dict[str, TagTree]
    revisions: frozenset[Digest]
    layers: frozenset[Digest]
    uploads: int | None
    is_bare: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """`repositories` has parents before children; `blobs` are directories, whatever is in them."""

    repositories: tuple[RepositoryTree, ...]
    prefixes: tuple[str, ...]
    blobs: frozenset[Digest]
    unknown: tuple[str, ...]


def survey_storage(storage: Storage, listener: Listener = SILENT) -> Survey:
    """Look at all of a storage. Raises UsageError where it is none, or does not lie in one piece."""
    _check_top(storage.tree)
    walk = _Walk(storage.tree, listener)
    for path, known in ((layout.V2, {"blobs", "repositories"}), (f"{layout.V2}/blobs", {"sha256"})):
        walk.directories(path, known.__contains__)
    listener.count("gc", "tags found")
    repositories = tuple(walk.repositories(layout.REPOSITORIES, ""))
    prefixes = walk.directories(layout.BLOBS, _is_prefix)
    listener.count("gc", "directories of blobs listed", len(prefixes))
    blobs = frozenset(digest for prefix in counted_by(listener, prefixes) for digest in walk.blobs(prefix))
    return Survey(repositories=repositories, prefixes=prefixes, blobs=blobs, unknown=tuple(walk.unknown))


def linked_directories(storage: Storage, listener: Listener) -> tuple[str, ...]:
    """The symbolic links in directories' places."""
    top = next((name for name in (OWN_DIR, *_TOP) if _is_link(storage.tree.stat(name))), None)
    if top is not None:
        return (top,)  # what is behind it can't be looked at
    listener.count("read", "tags found")
    walk = _Walk(storage.tree, listener, refuses=False)
    for _repository in walk.repositories(layout.REPOSITORIES, ""):
        pass
    for prefix in walk.directories(layout.BLOBS, _is_prefix):
        walk.directories(f"{layout.BLOBS}/{prefix}", _is_hex)
    return tuple(walk.links)


def _check_top(tree: Tree) -> None:
    for name in _TOP:
        if _is_link(tree.stat(name)):
            raise LinkedDirectoryError(tree.shown(name))
    check_one_file_system(tree, _TOP, "each step of a removal must reach the disk")


def _is_link(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISLNK(status.st_mode)


@dataclass(frozen=True, slots=True)
class _Walk:
    """`unknown` is only reported: no decision of the walk depends on it. `refuses` links, or only notes them."""

    tree: Tree
    listener: Listener = SILENT
    refuses: bool = True
    unknown: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def directories(self, path: str, known: Callable[[str], bool]) -> tuple[str, ...]:
        """The directories in `path` whose names are `known`, sorted; all else is noted. Raises LinkedDirectoryError for
        a symbolic link with such a name."""
        names = []
        for entry in sorted(self.tree.entries(path), key=lambda entry: entry.name):
            if not known(entry.name):
                self.unknown.append(f"{path}/{entry.name}")
            elif entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
            elif entry.is_symlink():
                self._met(f"{path}/{entry.name}")
            else:
                self.unknown.append(f"{path}/{entry.name}")
        return tuple(names)

    def _met(self, link: str) -> None:
        if self.refuses:
            raise LinkedDirectoryError(self.tree.shown(link))
        self.links.append(link)

    def repositories(self, path: str, name: str) -> Iterator[RepositoryTree]:
        """The repository in `path`, if that is one, and all below it."""
        parts = {"_manifests", "_layers", "_uploads"} if name else set()

        def is_child(child: str) -> bool:
            return is_repository(f"{name}/{child}" if name else child)

        names = self.directories(path, lambda child: child in parts or is_child(child))
        if name:
            yield self._repository(path, name, parts.intersection(names))
        for child in names:
            if child not in parts:
                yield from self.repositories(f"{path}/{child}", f"{name}/{child}" if name else child)

    def blobs(self, prefix: str) -> Iterator[Digest]:
        return map(Digest, self.directories(f"{layout.BLOBS}/{prefix}", lambda n: n[:2] == prefix and _is_hex(n)))

    def _repository(self, path: str, name: str, parts: set[str]) -> RepositoryTree:
        manifests = f"{path}/_manifests"
        inner = self.directories(manifests, {"revisions", "tags"}.__contains__) if "_manifests" in parts else ()
        tags = self.directories(f"{manifests}/tags", is_tag) if "tags" in inner else ()
        return RepositoryTree(
            name=name,
            tags={tag: self._tag(path, name, tag) for tag in counted_by(self.listener, tags)},
            revisions=frozenset(self._digests(f"{manifests}/revisions") if "revisions" in inner else ()),
            layers=frozenset(self._digests(f"{path}/_layers") if "_layers" in parts else ()),
            uploads=self._bytes_below(f"{path}/_uploads") if "_uploads" in parts else None,
            is_bare=not parts,
        )

    def _tag(self, path: str, name: str, tag: str) -> TagTree:
        directory = f"{path}/_manifests/tags/{tag}"
        inner = self.directories(directory, {"current", "index"}.__contains__)
        digest = read_link(self.tree, layout.tag_link(name, tag)) if "current" in inner else None
        return TagTree(digest, self._digests(f"{directory}/index") if "index" in inner else ())

    def _digests(self, path: str) -> tuple[Digest, ...]:
        """The digests that `path`, a directory of link files, has."""
        inner = self.directories(path, {"sha256"}.__contains__)
        return tuple(map(Digest, self.directories(f"{path}/sha256", _is_hex))) if inner else ()

    def _bytes_below(self, path: str) -> int:
        """All that is there is removed by and by, so a link in it is only a link."""
        total = 0
        for entry in self.tree.entries(path):
            name = f"{path}/{entry.name}"
            status = self.tree.stat(name)
            is_directory = entry.is_dir(follow_symlinks=False)
            total += self._bytes_below(name) if is_directory else status.st_size if status else 0
        return total


def _is_prefix(name: str) -> bool:
    return len(name) == 2 and not name.strip("0123456789abcdef")


def _is_hex(name: str) -> bool:
    return len(name) == 64 and not name.strip("0123456789abcdef")
