"""A bundle's file that is filled in any order: where each blob lies follows from bundle.json, before its bytes come.

All but the blobs is written first. An earlier run may have left a file: what is there of a blob counts once it was
hashed at its place.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regwrap.bundle.aside import ROOM_HINT, WRITE_BACK_BYTES, kept_part_file, start_write_back, sync_directory
from regwrap.bundle.contents import BUNDLE_JSON, blob_offsets, padded
from regwrap.bundle.files import Located
from regwrap.bundle.output import append_links, check_target, forget_beside, sealed
from regwrap.bundle.write import header_of
from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError
from regwrap.core.writing import on_file, status_of, write_all_at
from regwrap.storage import layout
from regwrap.storage.hashing import copy_range, hash_at
from regwrap.storage.space import need_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from regwrap.bundle.aside import Part
    from regwrap.bundle.contents import BundleContents
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest


@contextmanager
def filled_bundle(
    output: Path, contents: BundleContents, fill: Callable[[BundleInPlace], None], listener: Listener
) -> Iterator[None]:
    """`fill` puts all blobs at their places; `output` is the file's name when the block ends, and not if that raises.
    What has come until then is kept for the next run, where that would take it.

    Raises UsageError, ToolError (no space), IntegrityError (blobs that did not come), and what `fill` raises.
    """
    check_target(output)
    with kept_part_file(output) as kept:
        needed = contents.tar_bytes - status_of(kept.part.descriptor).st_blocks * 512
        need_space(output.parent, max(0, needed), hint=ROOM_HINT)
        file = BundleInPlace.begun(contents, kept.part, was_there=kept.was_there, can_stay=kept.can_stay)
        try:
            fill(file)
            file.check_complete(output)
            sealed(kept.part, listener)
            yield
            forget_beside(output)
            kept.part.path.rename(output)
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = f"{output}"
            kept.is_wanted = file.is_wanted
            raise
    sync_directory(output.parent)


@dataclass(slots=True, kw_only=True)
class BundleInPlace:
    """`proved` are the blobs whose bytes are there and right, `arrived` how many bytes of others are. Each blob has one
    writer at a time. `reused` counts the bytes that an archive had. `is_kept`: the file itself becomes the bundle.
    `can_stay`: the next run would go on with it."""

    contents: BundleContents
    part: Part
    places: Mapping[Digest, Located]
    proved: set[Digest] = field(default_factory=set)
    arrived: dict[Digest, int] = field(default_factory=dict)
    reused: int = 0
    is_kept: bool = True
    can_stay: bool = False
    _dirty: int = 0

    @classmethod
    def begun(
        cls, contents: BundleContents, part: Part, *, was_there: bool, is_kept: bool = True, can_stay: bool = False
    ) -> BundleInPlace:
        """With all but the blobs in it. Raises OSError."""
        file = cls(
            contents=contents,
            part=part,
            places={digest: Located(offset, size) for digest, offset, size in blob_offsets(contents)},
            is_kept=is_kept,
            can_stay=can_stay,
        )
        with on_file(part.descriptor):
            os.ftruncate(part.descriptor, contents.tar_bytes)
        if was_there:
            file.arrived = {digest: _arrived(part.descriptor, place) for digest, place in file.places.items()}
        file._frame()
        return file

    def _frame(self) -> None:
        """bundle.json, headers and padding, links, the end."""
        json = self.contents.to_json()
        before, position = header_of(BUNDLE_JSON, len(json)) + json, 0
        size = len(json)
        for digest, place in self.places.items():
            between = before + bytes(padded(size) - size) + header_of(layout.blob_path(digest), place.size)
            write_all_at(self.part.descriptor, between, position)
            before, position, size = b"", place.end, place.size
        write_all_at(self.part.descriptor, before + bytes(padded(size) - size), position)
        append_links(self.part.opened, self.contents)

    @property
    def bytes_to_come(self) -> int:
        """Of all blobs that are not proved."""
        return sum(place.size for digest, place in self.places.items() if digest not in self.proved)

    @property
    def is_wanted(self) -> bool:
        """Whether the next run saves something by it."""
        return self.can_stay and bool(self.proved or any(self.arrived.values()))

    def check_complete(self, output: Path) -> None:
        """Raises IntegrityError where a blob is not there, or not right."""
        if missing := self.places.keys() - self.proved:
            raise IntegrityError(
                f"{output}: {counted(len(missing), 'blob was', 'blobs were')} not received; no bundle was written"
            )

    def put(self, digest: Digest, data: bytes) -> None:
        """Bytes that were verified."""
        if digest in self.places:
            write_all_at(self.part.descriptor, data, self.places[digest].offset)
            self.proved.add(digest)

    def copy(self, digest: Digest, source: int, offset: int) -> None:
        """A blob from a file. Raises IntegrityError where the file is too short."""
        place = self.places[digest]
        copy_range(source, offset, place.size, self.part.descriptor, place.offset)

    def is_valid(self, digest: Digest) -> bool:
        """Whether the blob's bytes at its place are right: then they count."""
        place = self.places[digest]
        if hash_at(self.part.descriptor, place.offset, place.size) != digest:
            self.arrived[digest] = 0
            return False
        self.trust(digest)
        return True

    def trust(self, digest: Digest) -> None:
        """They count as they are. They begin their way to the disk, so that the sync at the end has little to do."""
        self.proved.add(digest)
        self._dirty += self.places[digest].size
        if self.is_kept and self._dirty >= WRITE_BACK_BYTES:
            self._dirty = 0
            start_write_back(self.part.descriptor, 0, self.contents.tar_bytes)


def _arrived(descriptor: int, place: Located) -> int:
    """How much of a blob an earlier run can have written: bytes come in order, and what was never written is a hole
    (lseek(2)). The last block before one may be filled in part, and so counts for nothing; the hash decides anyway."""
    try:
        hole = os.lseek(descriptor, place.offset, os.SEEK_HOLE)
    except OSError:
        return 0
    if hole >= place.end:
        return place.size
    return max(0, hole - status_of(descriptor).st_blksize - place.offset)
