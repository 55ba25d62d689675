"""What a storage's directories hold, in one pass: names only, no file is opened but the links of tags.

Symbolic links are never followed, and what has no place in the layout is named as unknown. Where a symbolic link
stands for a part of a repository, that repository is `doubtful`: a registry follows it, so more may be needed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError
from regwrap.core.model import Digest, is_repository, is_tag
from regwrap.storage import layout
from regwrap.storage.store import need_storage, read_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_TOP: Final = ("docker", "docker/registry", layout.V2, f"{layout.V2}/blobs", layout.BLOBS, layout.REPOSITORIES)
_NOTHING: Final[tuple[tuple[()], tuple[()]]] = ((), ())


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
    doubtful: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """`repositories` has parents before children; `blobs` are directories, whatever is in them."""

    repositories: tuple[RepositoryTree, ...]
    prefixes: tuple[str, ...]
    blobs: frozenset[Digest]
    unknown: tuple[str, ...]


def survey_storage(root: Path) -> Survey:
    """Look at all of the storage at `root`. Raises UsageError where it is none, or does not lie in one piece."""
    _check_top(root)
    walk = _Walk(root)
    for path, known in ((layout.V2, {"blobs", "repositories"}), (f"{layout.V2}/blobs", {"sha256"})):
        walk.directories(path, known.__contains__)
    repositories = tuple(walk.repositories(layout.REPOSITORIES, ""))
    prefixes, _links = walk.directories(layout.BLOBS, _is_prefix)
    blobs = frozenset(digest for prefix in prefixes for digest in walk.blobs(prefix))
    return Survey(repositories=repositories, prefixes=prefixes, blobs=blobs, unknown=tuple(walk.unknown))


def _check_top(root: Path) -> None:
    need_storage(root)
    device = root.stat().st_dev
    for path in (root / part for part in _TOP):
        if path.is_symlink() or (path.exists() and path.stat().st_dev != device):
            raise UsageError(
                f"{path} is a symbolic link, or is on another file system than {root}",
                hint="keep the whole storage on one file system: each step of a removal must reach the disk",
            )


@dataclass(frozen=True, slots=True)
class _Walk:
    """`unknown` is only reported: no decision of the walk depends on it."""

    root: Path
    unknown: list[str] = field(default_factory=list)

    def directories(self, path: str, known: Callable[[str], bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(names, links) in `path`, sorted: the directories whose names are `known`, and the paths of symbolic links
        with such names. All but the former is noted."""
        names, links = [], []
        for entry in self._entries(path):
            if known(entry.name) and entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
                continue
            self.unknown.append(f"{path}/{entry.name}")
            if known(entry.name) and entry.is_symlink():
                links.append(f"{path}/{entry.name}")
        return tuple(names), tuple(links)

    def repositories(self, path: str, name: str) -> Iterator[RepositoryTree]:
        """The repository in `path`, if that is one, and all below it."""
        parts = {"_manifests", "_layers", "_uploads"} if name else set()

        def is_child(child: str) -> bool:
            return is_repository(f"{name}/{child}" if name else child)

        names, links = self.directories(path, lambda child: child in parts or is_child(child))
        children = {link for link in links if is_child(link.rpartition("/")[2])}
        for link in sorted(children):
            self._refuse_outside(link)
        if name:
            own = tuple(link for link in links if link not in children)
            yield self._repository(path, name, parts.intersection(names), own)
        for child in names:
            if child not in parts:
                yield from self.repositories(f"{path}/{child}", f"{name}/{child}" if name else child)

    def blobs(self, prefix: str) -> Iterator[Digest]:
        names, _links = self.directories(f"{layout.BLOBS}/{prefix}", lambda name: name[:2] == prefix and _is_hex(name))
        return map(Digest, names)

    def _refuse_outside(self, link: str) -> None:
        """A registry serves what a link in a repository's place leads to. In here it is looked at anyway."""
        inside = (self.root / layout.REPOSITORIES).resolve()
        if not (self.root / link).resolve().is_relative_to(inside):
            raise UsageError(
                f"{self.root / link} is a symbolic link out of the storage",
                hint="remove the link, or move its target here: images there may use the blobs here",
            )

    def _repository(self, path: str, name: str, parts: set[str], links: tuple[str, ...]) -> RepositoryTree:
        manifests = f"{path}/_manifests"
        inner, inner_links = self.directories(manifests, {"revisions", "tags"}.__contains__)
        names, tag_links = self.directories(f"{manifests}/tags", is_tag) if "tags" in inner else _NOTHING
        tags = {tag: self._tag(path, name, tag) for tag in names}
        revisions, revision_links = self._digests(f"{manifests}/revisions") if "revisions" in inner else _NOTHING
        layers, layer_links = self._digests(f"{path}/_layers") if "_layers" in parts else _NOTHING
        within = (link for _tree, found in tags.values() for link in found)
        met = (*links, *inner_links, *tag_links, *within, *revision_links, *layer_links)
        return RepositoryTree(
            name=name,
            tags={tag: tree for tag, (tree, _links) in tags.items()},
            revisions=frozenset(revisions),
            layers=frozenset(layers),
            uploads=_bytes_below(f"{self.root}/{path}/_uploads") if "_uploads" in parts else None,
            is_bare=not parts,
            doubtful=f"{met[0]} is a symbolic link" if met else "",
        )

    def _tag(self, path: str, name: str, tag: str) -> tuple[TagTree, tuple[str, ...]]:
        directory = f"{path}/_manifests/tags/{tag}"
        inner, links = self.directories(directory, {"current", "index"}.__contains__)
        history, more = self._digests(f"{directory}/index") if "index" in inner else _NOTHING
        return TagTree(read_link(self.root / layout.tag_link(name, tag)), history), (*links, *more)

    def _digests(self, path: str) -> tuple[tuple[Digest, ...], tuple[str, ...]]:
        """(digests, links) that `path`, a directory of link files, has."""
        inner, links = self.directories(path, {"sha256"}.__contains__)
        names, more = self.directories(f"{path}/sha256", _is_hex) if inner else _NOTHING
        return tuple(map(Digest, names)), (*links, *more)

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self.root}/{path}") as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _bytes_below(path: str) -> int:
    return sum(os.lstat(f"{top}/{name}").st_size for top, _, names in os.walk(path) for name in names)


def _is_prefix(name: str) -> bool:
    return len(name) == 2 and not name.strip("0123456789abcdef")


def _is_hex(name: str) -> bool:
    return len(name) == 64 and not name.strip("0123456789abcdef")
