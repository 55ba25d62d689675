"""Check a bundle that comes through a pipe: blobs are hashed as they pass; manifests and what may be a config are kept
in a file without a name, for the questions that come after.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, TYPE_CHECKING

from regwrap.bundle.base import BASE_HINT, Base, based
from regwrap.bundle.examine import VerifyReport, report_on
from regwrap.bundle.files import Located, OneFile
from regwrap.bundle.incoming import PIPE, incoming_bundle
from regwrap.bundle.read import hash_all
from regwrap.core.manifest import MAX_MANIFEST_BYTES
from regwrap.core.writing import temporary_file
from regwrap.storage.hashing import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.signature import Trust
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.lists.imagelist import ImageEntry


@dataclass(frozen=True, slots=True)
class Arrival:
    """`path` is what messages call it; `trust` is asked for the release as soon as it is known."""

    path: Path = PIPE
    trust: Trust | None = None


def verify_incoming(
    file: IO[bytes],
    entries: tuple[ImageEntry, ...] | None,
    listener: Listener,
    bases: Sequence[Base] = (),
    arrival: Arrival | None = None,
) -> VerifyReport:
    """Raises IntegrityError where it is cut off, or no bundle."""
    arrival = arrival or Arrival()
    incoming = incoming_bundle(file, arrival.path)
    if arrival.trust is not None:
        arrival.trust(incoming.contents.id)
    contents, without = incoming.contents, incoming.bundle()
    if bases:
        without = based(without, bases, hint=BASE_HINT)
    listener.expect("verify", (contents.whole if bases else contents).blob_bytes)
    with temporary_file() as spool:
        kept = _Kept(contents, spool, {})
        wrong = dict.fromkeys(incoming.each_blob(kept.keep, listener.on_bytes), "")
        bundle = replace(without, file=OneFile(spool.fileno(), 0), blobs=kept.places)
        required = tuple((blob.digest, blob.size) for blob in contents.required) if bases else ()
        wrong |= hash_all(bundle.copy, required, listener.on_bytes)
        return report_on(bundle, tuple(sorted((*contents.blobs, *required))), dict(sorted(wrong.items())), entries)


class _Kept:
    """Small documents, by where they lie in the file. A manifest that is too large for one counts as there, and is
    refused when it is read."""

    def __init__(self, contents: BundleContents, spool: IO[bytes], places: dict[Digest, Located]) -> None:
        self.places = places
        self._spool = spool
        self._sizes = contents.sizes
        self._manifests = frozenset(digest for r in contents.repositories for digest in r.manifests)

    def keep(self, digest: Digest, pieces: Iterator[memoryview]) -> None:
        size = self._sizes[digest]
        first = next(pieces, memoryview(b""))
        is_document = digest in self._manifests or bytes(first[:64]).lstrip().startswith(b"{")
        if is_document:
            self.places[digest] = Located(self._spool.tell(), size)
        if is_document and size <= MAX_MANIFEST_BYTES:
            for piece in chain([first], pieces):
                write_all(self._spool, piece)
        deque(pieces, maxlen=0)
