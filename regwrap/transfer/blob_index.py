"""Which repository of a destination has a blob: what is there need not travel, and another repository can give it."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regwrap.core.model import Digest
    from regwrap.transfer.plan import Copy


def index_of(copies: Iterable[Copy]) -> BlobIndex:
    """What the destination has of these images before they are copied."""
    index = BlobIndex()
    for copy in copies:
        missing = copy.claims
        there = (blob.digest for blob in copy.closure.blobs if blob.digest not in missing)
        index.add(copy.entry.dest.repository, there)
    return index


@dataclass(slots=True)
class BlobIndex:
    """As far as this run knows; safe from several threads."""

    _known: dict[Digest, dict[str, None]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def add(self, repository: str, digests: Iterable[Digest]) -> None:
        with self._lock:
            for digest in digests:
                self._known.setdefault(digest, {})[repository] = None

    def knows(self, digest: Digest) -> bool:
        """Whether any repository has the blob."""
        with self._lock:
            return digest in self._known

    def has(self, repository: str, digest: Digest) -> bool:
        with self._lock:
            return repository in self._known.get(digest, ())

    def other(self, repository: str, digest: Digest) -> str | None:
        """Another repository that can give the blob."""
        with self._lock:
            return next((name for name in self._known.get(digest, ()) if name != repository), None)
