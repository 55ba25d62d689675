"""Write the bundle's file: blobs taken by tar from where they lie, links put behind them.

What is proved are the bytes that were written: threads hash each blob in the output while tar is still writing behind
it, so a rotten archive and a tar that went wrong are found alike. The target appears by rename, complete and synced.
"""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.bundle.aside import Part, part_file
from regwrap.bundle.contents import BUNDLE_JSON, Member, blob_end, offsets_of, tar_bytes
from regwrap.bundle.read import Located, opened_bundle
from regwrap.bundle.write import link_bytes
from regwrap.core.errors import BrokenBlobError, UsageError
from regwrap.core.model import Descriptor
from regwrap.storage import layout
from regwrap.storage.hashing import hash_at
from regwrap.storage.space import need_space
from regwrap.tools.tar import create_tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from regwrap.bundle.select import Selection
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.tools.runner import Runner

_POLL_SECONDS: Final = 0.01
_FLUSH_BYTES: Final = 32 * 1024 * 1024
_SYNC_FILE_RANGE_WRITE: Final = 2
_LIBC: Final = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """`hashed=False` trusts the archive and compares sizes only. `stall`: seconds without progress after which tar
    is ended."""

    scratch: Path
    hashed: bool
    stall: float


@contextmanager
def packed_bundle(
    runner: Runner, selection: Selection, output: Path, options: PackOptions, listener: Listener
) -> Iterator[int]:
    """Write `output`; yields its size in bytes. It gets its name when the block ends, and not if that raises.

    Raises UsageError, ToolError (full disk), BrokenBlobError.
    """
    expected = tar_bytes(selection.contents)
    _check_target(output, expected)
    with part_file(output) as part:
        _write(_Packing(runner, selection, part, options, listener))
        with ThreadPoolExecutor(1) as pool:
            synced = pool.submit(os.fsync, part.descriptor)
            with opened_bundle(part.opened):  # structure: every member there, in order, nothing else
                synced.result()
        yield expected
        part.path.rename(output)
    _sync_file(output.parent)


@dataclass(frozen=True, slots=True)
class _Packing:
    runner: Runner
    selection: Selection
    part: Part
    options: PackOptions
    listener: Listener


def _check_target(output: Path, expected: int) -> None:
    if output.is_dir():
        raise UsageError(f"{output} is a directory; give a file with -o")
    if output.exists() and not output.is_file():  # /dev/null would be replaced by the bundle
        raise UsageError(f"{output} is not a regular file; give a file with -o")
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent} is not a directory")
    need_space(output.parent, expected, hint="free space there, or write the bundle to another disk with -o")


def _write(packing: _Packing) -> None:
    selection, part, scratch = packing.selection, packing.part, packing.options.scratch
    contents = selection.contents
    front = scratch / "front"
    front.mkdir()
    (front / BUNDLE_JSON).write_bytes(contents.to_json())
    members = contents.members
    blobs = [m.path for m in members if m.link is None]
    parts = [(front, [BUNDLE_JSON]), (selection.storage.root, blobs)]
    with _followed(packing):
        create_tar(
            packing.runner, part.descriptor, [p for p in parts if p[1]], scratch=scratch, stall=packing.options.stall
        )
    _append_links(part.opened, [m for m in members if m.link is not None], blob_end(contents), tar_bytes(contents))


def _append_links(part: Path, links: list[Member], start: int, end: int) -> None:
    """Put the link members in the place of tar's end blocks, and the end behind them. Nothing is cut off first: the
    file only grows, and to truncate it would wait for the disk."""
    with part.open("r+b") as file:
        file.seek(start)
        for link in links:
            file.write(link_bytes(link))
        file.write(bytes(end - file.tell()))


@dataclass(slots=True)
class _Follower:
    """Reads what tar has written so far: hashes blob after blob, and starts their way to the disk early."""

    packing: _Packing
    blobs: Iterator[tuple[Digest, Located]]
    finished: threading.Event = field(default_factory=threading.Event)
    wrong: list[Digest] = field(default_factory=list)
    flushed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self) -> None:
        """One thread's work: take the next blob, wait until it is written, hash it."""
        descriptor = os.open(self.packing.part.opened, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while (blob := self._next()) is not None:
                digest, located = blob
                if not (self._wait_for(descriptor, located.end) and self._check(descriptor, digest, located)):
                    self.wrong.append(digest)
        finally:
            os.close(descriptor)

    def _next(self) -> tuple[Digest, Located] | None:
        with self._lock:
            return next(self.blobs, None)

    def _wait_for(self, descriptor: int, end: int) -> bool:
        while os.fstat(descriptor).st_size < end:
            if self.finished.wait(_POLL_SECONDS):
                return os.fstat(descriptor).st_size >= end
        return True

    def _check(self, descriptor: int, digest: Digest, located: Located) -> bool:
        valid = not self.packing.options.hashed or hash_at(descriptor, located.offset, located.size) == digest
        self._flush(descriptor, located.end)
        self.packing.listener.on_bytes(located.size)
        return valid

    def _flush(self, descriptor: int, end: int) -> None:
        # sync_file_range(2) only starts the write-back; the fsync at the end then has little left to wait for
        with self._lock:
            start, due = self.flushed, end - self.flushed >= _FLUSH_BYTES
            if due:
                self.flushed = end
        if due:
            _LIBC.sync_file_range(
                descriptor, ctypes.c_int64(start), ctypes.c_int64(end - start), _SYNC_FILE_RANGE_WRITE
            )


@contextmanager
def _followed(packing: _Packing) -> Iterator[None]:
    contents = packing.selection.contents
    sizes = [(BUNDLE_JSON, len(contents.to_json())), *((layout.blob_path(d), size) for d, size in contents.blobs)]
    offsets = list(offsets_of(iter(sizes)))[1:]
    blobs = zip(contents.blobs, offsets, strict=True)
    follower = _Follower(packing, ((digest, Located(offset, size)) for (digest, size), offset in blobs))
    with ThreadPoolExecutor(2, thread_name_prefix="prove") as pool:
        futures: list[Future[None]] = []
        try:  # from here on: a follower ends only when it is told that nothing more is written
            futures += (pool.submit(follower.follow) for _ in range(2))
            yield
        except BaseException:
            follower.finished.set()
            for future in futures:
                with suppress(OSError):  # the file went away under an interrupted run: its error counts, not this one
                    future.result()
            raise
        follower.finished.set()
        for future in futures:
            future.result()  # what could not be read back was not proved
    if follower.wrong:
        raise _broken(set(follower.wrong), packing.selection, hashed=packing.options.hashed)


def _broken(suspects: set[Digest], selection: Selection, *, hashed: bool) -> BrokenBlobError:
    # a blob of another size moves all that follow it in the file: named are those that are wrong in the archive
    blobs = (Descriptor(media_type="", digest=digest, size=size) for digest, size in selection.contents.blobs)
    storage = selection.storage
    damaged = [b.digest for b in blobs if not storage.is_sound(b, hashed=hashed and b.digest in suspects)]
    problems = tuple(
        f"{selection.users[digest]}: blob {digest} has other bytes ({selection.path(digest)})"
        for digest in damaged or sorted(suspects)
    )
    return BrokenBlobError(
        f"the archive {selection.storage.root} is damaged; no bundle was written",
        problems=problems,
        hint="repair it: regwrap sync --hash with the same list",
    )


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
