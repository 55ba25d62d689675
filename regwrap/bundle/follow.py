"""Prove a bundle's file while it is being written: threads hash each blob in it as soon as it is there, and start its
way to the disk. What is proved are the bytes that were written, whoever writes them.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.bundle.aside import WRITE_BACK_BYTES, start_write_back
from regwrap.bundle.contents import blob_offsets
from regwrap.bundle.files import Located
from regwrap.core.writing import status_of
from regwrap.storage.hashing import hash_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.aside import Part
    from regwrap.bundle.contents import BundleContents
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest

_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Following:
    """A file that gets these contents. `hashed=False` looks at sizes only."""

    contents: BundleContents
    part: Part
    listener: Listener
    _: KW_ONLY
    hashed: bool


@contextmanager
def followed(following: Following) -> Iterator[list[Digest]]:
    """The file is written while the block runs; after it the list has the blobs whose bytes are wrong there."""
    contents = following.contents
    blobs = blob_offsets(contents)
    follower = _Follower(following, ((digest, Located(offset, size)) for digest, offset, size in blobs))
    with ThreadPoolExecutor(2, thread_name_prefix="prove") as pool:
        try:
            futures = [pool.submit(follower.follow) for _ in range(2)]
            yield follower.wrong
        finally:  # a follower ends only when it is told that nothing more is written
            follower.finished.set()
        for future in futures:
            future.result()  # what could not be read back was not proved; where the run failed, its own error counts


@dataclass(slots=True)
class _Follower:
    """Reads what is written so far: hashes blob after blob, and starts their way to the disk early."""

    following: Following
    blobs: Iterator[tuple[Digest, Located]]
    finished: threading.Event = field(default_factory=threading.Event)
    wrong: list[Digest] = field(default_factory=list)
    flushed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self) -> None:
        """One thread's work: take the next blob, wait until it is written, hash it."""
        descriptor = os.open(self.following.part.opened, os.O_RDONLY)
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
        while status_of(descriptor).st_size < end:
            if self.finished.wait(_POLL_SECONDS):
                return status_of(descriptor).st_size >= end
        return True

    def _check(self, descriptor: int, digest: Digest, located: Located) -> bool:
        valid = not self.following.hashed or hash_at(descriptor, located.offset, located.size) == digest
        self._flush(descriptor, located.end)
        self.following.listener.on_bytes(located.size)
        return valid

    def _flush(self, descriptor: int, end: int) -> None:
        with self._lock:
            start, due = self.flushed, end - self.flushed >= WRITE_BACK_BYTES
            if due:
                self.flushed = end
        if due:
            start_write_back(descriptor, start, end)
