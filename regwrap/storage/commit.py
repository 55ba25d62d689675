"""Writing into a storage: blobs first, tags last, each step on disk before the next begins.

Whoever looks meanwhile, a registry or the next run after a crash, sees an image whole or not at all. Nothing is
renamed that was not synced: after a power cut such a file is there with no bytes in it. Four `syncfs` make it so,
for one image as for a thousand. A blob of the wrong bytes is replaced by rename; a link is always a new file.
"""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.core.errors import IntegrityError
from regwrap.core.listener import SILENT
from regwrap.core.writing import status_of
from regwrap.storage import layout
from regwrap.storage.hashing import write_all
from regwrap.storage.store import read_link

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.storage.tree import Tree

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LINKS: Final = "links"


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What is to be added: verified blobs, by their names in a stage of the storage, then links to them."""

    blobs: tuple[tuple[Digest, str], ...] = ()
    layers: tuple[tuple[str, Digest], ...] = ()
    revisions: tuple[tuple[str, Digest], ...] = ()
    tags: tuple[tuple[str, str, Digest], ...] = ()


class Files(Protocol):
    """The file operations a commit is made of, each in a tree. Tests make each one fail in turn."""

    def make_directory(self, tree: Tree, name: str) -> None: ...
    def write(self, tree: Tree, name: str, data: bytes) -> None: ...
    def adopt(self, tree: Tree, name: str) -> None: ...
    def rename(self, stage: Tree, old: str, tree: Tree, new: str) -> None: ...
    def sync(self, tree: Tree) -> None: ...


@dataclass(frozen=True, slots=True)
class Owner:
    """Owner, group and mode bits of a storage's root: what is added must fit the registry that reads it,
    whatever the umask and whoever runs regwrap."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, tree: Tree) -> Owner:
        status = status_of(tree.descriptor)
        return cls(status.st_uid, status.st_gid, status.st_mode & 0o7777)

    @property
    def file_mode(self) -> int:
        return self.mode & 0o666


@dataclass(frozen=True, slots=True)
class RealFiles:
    """File operations on the real disk, with the storage's owner and modes."""

    owner: Owner

    def make_directory(self, tree: Tree, name: str) -> None:
        status = tree.stat(name)
        if status is not None and stat.S_ISDIR(status.st_mode):
            self._mend(tree, name, status)
            return
        if above := name.rpartition("/")[0]:
            self.make_directory(tree, above)
        with suppress(FileExistsError):  # what is no directory is named by what is done in it
            tree.make_directory(name)
            self._own(tree, name, self.owner.mode)

    def _mend(self, tree: Tree, name: str, status: os.stat_result) -> None:
        # a run that was killed right after its mkdir left an empty directory with the mode and owner of that run,
        # which the registry may not be able to read
        found = Owner(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        if found != self.owner and not tree.entries(name):
            with suppress(PermissionError):
                self._own(tree, name, self.owner.mode)

    def write(self, tree: Tree, name: str, data: bytes) -> None:
        with os.fdopen(tree.create(name), "wb", buffering=0) as file:
            write_all(file, data)
            tree.own(file.fileno(), self.owner.file_mode, self.owner.uid, self.owner.gid)

    def adopt(self, tree: Tree, name: str) -> None:
        """Give a staged file the storage's owner and mode."""
        self._own(tree, name, self.owner.file_mode)

    def rename(self, stage: Tree, old: str, tree: Tree, new: str) -> None:
        try:
            stage.rename(old, tree, new)
        except IsADirectoryError:  # damage in a file's place; it goes if nothing is in it
            tree.remove_directory(new)
            stage.rename(old, tree, new)

    def sync(self, tree: Tree) -> None:
        tree.sync()

    def _own(self, tree: Tree, name: str, mode: int) -> None:
        descriptor = tree.open(name)
        try:
            status = status_of(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:  # it has another name, and may be somebody's
                raise IntegrityError(f"{tree.shown(name)} has another name, a hard link; it is not given away")
            tree.own(descriptor, mode, self.owner.uid, self.owner.gid)
        finally:
            os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """syncfs(2) of the file system `path` is on; raises OSError where write-back failed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
    finally:
        os.close(descriptor)


def commit(tree: Tree, additions: Additions, *, stage: Tree, files: Files, listener: Listener = SILENT) -> None:
    """Add `additions` to the storage at `tree`. `stage` is a private directory on the same file system.

    Doing it again is harmless; killed at any point, the storage is what it was or has some whole images more.
    """
    with suppress(OSError):  # of a commit that failed: a tag's directory would keep its links
        stage.remove_all(_LINKS)
    staging = _Staging(tree, stage, files)
    inner = [(layout.layer_link(r, d), d) for r, d in additions.layers]
    inner += [(layout.revision_link(r, d), d) for r, d in additions.revisions]
    wanted = dict(inner)
    listener.count("commit", "links written", len(wanted))
    for name, digest in wanted.items():
        staging.link(name, digest)
        listener.on_things()
    links, tags = staging.pop_renames(), _staged_tags(staging, additions)
    if not (additions.blobs or links or tags):
        files.sync(tree)  # a run that was killed may have renamed all of it, and not have synced
        return
    count = len(additions.blobs) + len(links) + len(tags)
    listener.count("commit", "blobs, links and tags on the disk", count)
    for _digest, staged in additions.blobs:
        files.adopt(stage, staged)
    files.sync(stage)
    listener.on_things(count)
    blobs = [(staged, layout.blob_path(digest)) for digest, staged in additions.blobs]
    listener.count("commit", "blobs, links and tags in place", count)
    for step in (blobs, links, tags):
        for staged, name in step:
            files.make_directory(tree, name.rpartition("/")[0])
            files.rename(stage, staged, tree, name)
            listener.on_things()
        if step:
            files.sync(tree)


def put_unordered(additions: Additions, *, stage: Tree, blobs: Tree, links: Tree) -> None:
    """Add blobs to one directory and links to another, in no particular order and without any sync: for storages that
    nobody reads before they are complete, and that a crash throws away. The blobs are renamed."""
    for digest, staged in additions.blobs:
        name = layout.blob_path(digest)
        blobs.make_directories(name.rpartition("/")[0], 0o777)
        stage.rename(staged, blobs, name)
    names = [(layout.layer_link(r, d), d) for r, d in additions.layers]
    names += [(layout.revision_link(r, d), d) for r, d in additions.revisions]
    for repository, tag, digest in additions.tags:
        names.append((layout.tag_index_link(repository, tag, digest), digest))
        names.append((layout.tag_link(repository, tag), digest))
    for link, digest in dict(names).items():
        links.make_directories(link.rpartition("/")[0], 0o777)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(links.open(link, flags, 0o666), "wb", buffering=0) as file:
            write_all(file, str(digest).encode("ascii"))


def _staged_tags(staging: _Staging, additions: Additions) -> list[tuple[str, str]]:
    """A new tag is staged as a whole directory, since a registry lists a tag whose links are not there yet; in one
    that is there the index link comes before the current one."""
    triples = dict.fromkeys(additions.tags)
    there = {(r, t): staging.tree.stat(layout.tag_path(r, t)) is not None for r, t, _digest in triples}
    for repository, tag, digest in triples:
        if there[repository, tag]:
            staging.link(layout.tag_index_link(repository, tag, digest), digest)
    for repository, tag, digest in triples:
        if there[repository, tag]:
            staging.link(layout.tag_link(repository, tag), digest)
        else:
            staging.tag(repository, tag, digest)
    return staging.pop_renames()


@dataclass(slots=True)
class _Staging:
    """Writes what is missing under `links` in the stage, and remembers where each piece has to go."""

    tree: Tree
    stage: Tree
    files: Files
    _renames: list[tuple[str, str]] = field(default_factory=list)
    _number: int = 0

    def link(self, name: str, digest: Digest) -> None:
        """A link file; nothing where the storage has it."""
        if read_link(self.tree, name) != digest:
            staged = self._next(name)
            if self._number == 1:
                self.files.make_directory(self.stage, _LINKS)
            self.files.write(self.stage, staged, str(digest).encode("ascii"))

    def tag(self, repository: str, tag: str, digest: Digest) -> None:
        """A tag's directory with both its links."""
        directory = layout.tag_path(repository, tag)
        staged = self._next(directory)
        for name in (layout.tag_index_link(repository, tag, digest), layout.tag_link(repository, tag)):
            link = f"{staged}/{name.removeprefix(f'{directory}/')}"
            self.files.make_directory(self.stage, link.rpartition("/")[0])
            self.files.write(self.stage, link, str(digest).encode("ascii"))

    def pop_renames(self) -> list[tuple[str, str]]:
        renames, self._renames = self._renames, []
        return renames

    def _next(self, name: str) -> str:
        staged = f"{_LINKS}/{self._number}"
        self._number += 1
        self._renames.append((staged, name))
        return staged


@dataclass(slots=True)
class _Ticket:
    additions: Additions
    error: BaseException | None = None
    done: bool = False


@dataclass(slots=True)
class GroupCommit:
    """Commits of several workers, merged: who comes while one is under way waits and shares the next.

    Costs four syncs for all that finished meanwhile instead of four for each image.
    """

    write: Callable[[Additions], None]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: list[_Ticket] = field(default_factory=list)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def add(self, additions: Additions) -> None:
        """Returns when `additions` are durable; raises what the write of its batch raised."""
        ticket = _Ticket(additions)
        with self._lock:
            self._waiting.append(ticket)
        with self._writing:
            if not ticket.done:
                self._write_waiting()
        if ticket.error is not None:
            raise ticket.error

    def _write_waiting(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        error: BaseException | None = None
        try:
            self.write(_merged([ticket.additions for ticket in batch]))
        except BaseException as raised:  # every waiter of the batch has to hear of it
            error = raised
        for ticket in batch:
            ticket.error, ticket.done = error, True


def _merged(batch: list[Additions]) -> Additions:
    return Additions(
        blobs=tuple(dict(pair for item in batch for pair in item.blobs).items()),
        layers=tuple(pair for item in batch for pair in item.layers),
        revisions=tuple(pair for item in batch for pair in item.revisions),
        tags=tuple(triple for item in batch for triple in item.tags),
    )
