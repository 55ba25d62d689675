"""Where a bundle's bytes are not those that its bundle.json says: all of them are known, or have their digest there.

So a volume that is damaged can be named where nobody says its sha256.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from regwrap.bundle.contents import BUNDLE_JSON, padded
from regwrap.bundle.files import Located
from regwrap.bundle.write import header_of, link_bytes
from regwrap.storage import layout
from regwrap.storage.hashing import hashed, pieces_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.files import BundleFile
    from regwrap.core.model import Digest


def damage(file: BundleFile, contents: BundleContents) -> Iterator[Located]:
    """In order; of a blob only that it is somewhere in it."""
    position = 0
    for part, size in _parts(contents):
        located = Located(position, size)
        if isinstance(part, bytes):
            position += len(part)
            if file.pread(len(part), located.offset) != part:
                yield located
        else:
            position += size
            if hashed(chain.from_iterable(pieces_at(*piece) for piece in file.ranges(located))) != part:
                yield located
    end = Located(position, contents.tar_bytes - position)
    if file.pread(end.size, end.offset) != bytes(end.size):
        yield end


def _parts(contents: BundleContents) -> Iterator[tuple[bytes | Digest, int]]:
    """What follows each other, up to the zeros at the end: bytes, or a digest of so many."""
    json = contents.canonical
    yield from _sized(header_of(BUNDLE_JSON, len(json)), json, bytes(padded(len(json)) - len(json)))
    for digest, size in contents.blobs:
        yield from _sized(header_of(layout.blob_path(digest), size))
        yield digest, size
        yield from _sized(bytes(padded(size) - size))
    for member in contents.members:
        if member.link is not None:
            yield from _sized(link_bytes(member))


def _sized(*parts: bytes) -> Iterator[tuple[bytes, int]]:
    return ((part, len(part)) for part in parts)
