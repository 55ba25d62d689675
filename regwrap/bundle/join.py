"""The whole bundle out of a delta and what it requires, byte for byte: ranges of files, copied by the kernel.

Members of a bundle have one form and one order, so what lies side by side in a base lies so in the whole, too, and is
one range. Each blob is hashed in the file that was written.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from regwrap.bundle.contents import BUNDLE_JSON, header_bytes, padded
from regwrap.bundle.files import Located
from regwrap.bundle.follow import Following, followed
from regwrap.bundle.output import append_links, checksum_path, published
from regwrap.bundle.read import Bundle
from regwrap.bundle.releases import said_checksum
from regwrap.bundle.write import header_of
from regwrap.core.errors import IntegrityError
from regwrap.storage import layout
from regwrap.storage.hashing import append_range, hash_file, hash_problem, write_all_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from regwrap.bundle.aside import Part
    from regwrap.bundle.base import Base
    from regwrap.bundle.files import Range
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest


def join_bundle(delta: Bundle, output: Path, listener: Listener) -> None:
    """Write the whole bundle of a delta whose base is known. What stands beside `output` stays where it is the
    vendor's. Raises UsageError, ToolError (no space) and IntegrityError."""
    whole = delta.contents.whole
    listener.expect("join", whole.blob_bytes)

    def is_described(part: Part) -> bool:
        return _is_vendors(part, output, listener)

    def write(part: Part) -> None:
        _write(delta, part, listener)

    with published(output, whole.tar_bytes, write, listener, is_described=is_described):
        pass


def _is_vendors(part: Part, output: Path, listener: Listener) -> bool:
    """Whether the checksum that stands beside `output` is that of the file; it is hashed where there is one."""
    said = said_checksum(output)
    if not said:
        return False
    is_same, name = hash_file(part.opened).hex == said, checksum_path(output)
    same = f"{output} is the vendor's file: its sha256 is what {name.name} says"
    listener.log(same if is_same else f"{name} was of another file, and is removed")
    return is_same


def _write(delta: Bundle, part: Part, listener: Listener) -> None:
    whole = delta.contents.whole
    json = whole.to_json()
    head = header_of(BUNDLE_JSON, len(json)) + json
    with followed(Following(whole, part, listener, hashed=True)) as wrong:
        for piece in chain([head.ljust(padded(len(head)), b"\0")], _merged(_pieces(delta))):
            if isinstance(piece, bytes):
                write_all_to(part.descriptor, piece)
            else:
                _copy(piece, part.descriptor)
    if wrong:
        raise _damaged(delta, sorted(set(wrong)))
    append_links(part.opened, whole)


def _pieces(delta: Bundle) -> Iterator[bytes | Range]:
    """All blobs of the whole, in order, with headers and padding."""
    for digest, size in delta.contents.whole.blobs:
        path, holder = layout.blob_path(digest), _holder(delta, digest)
        if isinstance(holder, Bundle):
            before = header_bytes(path)
            yield from holder.file.ranges(Located(holder.blobs[digest].offset - before, before + padded(size)))
            continue
        with holder.opened(digest) as (descriptor, located):
            yield header_of(path, size)
            yield (descriptor, located.offset, size)
            yield bytes(padded(size) - size)


def _holder(delta: Bundle, digest: Digest) -> Base:
    return delta if digest in delta.blobs else delta.base[digest]


def _merged(pieces: Iterable[bytes | Range]) -> Iterator[bytes | Range]:
    """What lies side by side in one file is one range."""
    run: Range | None = None
    for piece in pieces:
        if run is not None and not isinstance(piece, bytes) and piece[:2] == (run[0], run[1] + run[2]):
            run = (run[0], run[1], run[2] + piece[2])
            continue
        if run is not None:
            yield run
        run = None if isinstance(piece, bytes) else piece
        if isinstance(piece, bytes):
            yield piece
    if run is not None:
        yield run


def _copy(piece: Range, out: int) -> None:
    append_range(*piece, out)


def _damaged(delta: Bundle, wrong: list[Digest]) -> IntegrityError:
    return IntegrityError(
        "the bundle was not written: what it is made of is damaged",
        problems=tuple(
            f"{_holder(delta, digest).name}: {hash_problem(digest, layout.blob_path(digest))}" for digest in wrong
        ),
        hint="copy or build these again; regwrap verify lists all damage",
    )
