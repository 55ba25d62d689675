"""Writing into a storage: blobs first, tags last, each step on disk before the next begins.

Whoever looks meanwhile, a registry or the next run after a crash, sees an image whole or not at all. Nothing is
renamed that was not synced: after a power cut such a file is there with no bytes in it. Four `syncfs` make it so,
for one image as for a thousand. A blob of the wrong bytes is replaced by rename; a link is always a new file.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.storage import layout
from regwrap.storage.store import read_link

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.core.model import Digest

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What is to be added: verified blobs in a stage on the storage's file system, then links to them."""

    blobs: tuple[tuple[Digest, Path], ...] = ()
    layers: tuple[tuple[str, Digest], ...] = ()
    revisions: tuple[tuple[str, Digest], ...] = ()
    tags: tuple[tuple[str, str, Digest], ...] = ()


class Files(Protocol):
    """The file operations a commit is made of. Tests make each one fail in turn."""

    def make_directory(self, path: Path) -> None: ...
    def write(self, path: Path, data: bytes) -> None: ...
    def adopt(self, path: Path) -> None: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def sync(self, path: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class Owner:
    """Owner, group and mode bits of a storage's root: what is added must fit the registry that reads it,
    whatever the umask and whoever runs regwrap."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, root: Path) -> Owner:
        status = root.stat()
        return cls(status.st_uid, status.st_gid, status.st_mode & 0o7777)

    @property
    def file_mode(self) -> int:
        return self.mode & 0o666


@dataclass(frozen=True, slots=True)
class RealFiles:
    """File operations on the real disk, with the storage's owner and modes."""

    owner: Owner

    def make_directory(self, path: Path) -> None:
        if path.is_dir():
            self._mend(path)
            return
        self.make_directory(path.parent)
        try:
            path.mkdir()
        except FileExistsError:
            return
        self._own(path, self.owner.mode)

    def _mend(self, path: Path) -> None:
        # a run that was killed right after its mkdir left an empty directory with the mode and owner of that run,
        # which the registry may not be able to read
        if Owner.of(path) != self.owner and not any(path.iterdir()):
            with suppress(PermissionError):
                self._own(path, self.owner.mode)

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self._own(path, self.owner.file_mode)

    def adopt(self, path: Path) -> None:
        """Give a staged file the storage's owner and mode."""
        self._own(path, self.owner.file_mode)

    def rename(self, old: Path, new: Path) -> None:
        try:
            old.rename(new)
        except IsADirectoryError:  # damage in a file's place; it goes if nothing is in it
            try:
                new.rmdir()
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(new)) from error
            old.rename(new)

    def sync(self, path: Path) -> None:
        sync_file_system(path)

    def _own(self, path: Path, mode: int) -> None:
        if os.geteuid() == 0:
            os.chown(path, self.owner.uid, self.owner.gid)
        path.chmod(mode)


def sync_file_system(path: Path) -> None:
    """syncfs(2) of the file system `path` is on; raises OSError where write-back failed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
    finally:
        os.close(descriptor)


def commit(root: Path, additions: Additions, *, stage: Path, files: Files) -> None:
    """Add `additions` to the storage at `root`. `stage` is a private directory on the same file system.

    Doing it again is harmless; killed at any point, the storage is what it was or has some whole images more.
    """
    shutil.rmtree(
        stage / "links", ignore_errors=True
    )  # of a commit that failed: a tag's directory would keep its links
    staging = _Staging(root, stage / "links", files)
    inner = [(layout.layer_link(r, d), d) for r, d in additions.layers]
    inner += [(layout.revision_link(r, d), d) for r, d in additions.revisions]
    for name, digest in dict(inner).items():
        staging.link(name, digest)
    links, tags = staging.taken(), _staged_tags(staging, additions)
    if not (additions.blobs or links or tags):
        files.sync(root)  # a run that was killed may have renamed all of it, and not have synced
        return
    for _digest, staged in additions.blobs:
        files.adopt(staged)
    files.sync(stage)
    blobs = [(staged, root / layout.blob_path(digest)) for digest, staged in additions.blobs]
    for step in (blobs, links, tags):
        for staged, path in step:
            files.make_directory(path.parent)
            files.rename(staged, path)
        if step:
            files.sync(root)


def put_unordered(additions: Additions, *, blobs: Path, links: Path) -> None:
    """Add blobs to one directory and links to another, in no particular order and without any sync: for storages that
    nobody reads before they are complete, and that a crash throws away. The blobs are renamed."""
    for digest, staged in additions.blobs:
        path = blobs / layout.blob_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(path)
    paths = [(layout.layer_link(r, d), d) for r, d in additions.layers]
    paths += [(layout.revision_link(r, d), d) for r, d in additions.revisions]
    for repository, tag, digest in additions.tags:
        paths.append((layout.tag_index_link(repository, tag, digest), digest))
        paths.append((layout.tag_link(repository, tag), digest))
    for name, digest in dict(paths).items():
        path = links / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(digest).encode("ascii"))


def _staged_tags(staging: _Staging, additions: Additions) -> list[tuple[Path, Path]]:
    """A new tag is staged as a whole directory, since a registry lists a tag whose links are not there yet; in one
    that is there the index link comes before the current one."""
    triples = dict.fromkeys(additions.tags)
    there = {(r, t): os.path.lexists(staging.root / layout.tag_path(r, t)) for r, t, _digest in triples}
    for repository, tag, digest in triples:
        if there[repository, tag]:
            staging.link(layout.tag_index_link(repository, tag, digest), digest)
    for repository, tag, digest in triples:
        if there[repository, tag]:
            staging.link(layout.tag_link(repository, tag), digest)
        else:
            staging.tag(repository, tag, digest)
    return staging.taken()


@dataclass(slots=True)
class _Staging:
    """Writes what is missing under `links`, and remembers where each piece has to go."""

    root: Path
    links: Path
    files: Files
    _renames: list[tuple[Path, Path]] = field(default_factory=list)
    _number: int = 0

    def link(self, path: str, digest: Digest) -> None:
        """A link file; nothing where the storage has it."""
        if read_link(self.root / path) != digest:
            staged = self._next(path)
            self.files.make_directory(self.links)
            self.files.write(staged, str(digest).encode("ascii"))

    def tag(self, repository: str, tag: str, digest: Digest) -> None:
        """A tag's directory with both its links."""
        directory = layout.tag_path(repository, tag)
        staged = self._next(directory)
        for path in (layout.tag_index_link(repository, tag, digest), layout.tag_link(repository, tag)):
            link = staged / path.removeprefix(f"{directory}/")
            self.files.make_directory(link.parent)
            self.files.write(link, str(digest).encode("ascii"))

    def taken(self) -> list[tuple[Path, Path]]:
        renames, self._renames = self._renames, []
        return renames

    def _next(self, path: str) -> Path:
        staged = self.links / str(self._number)
        self._number += 1
        self._renames.append((staged, self.root / path))
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
