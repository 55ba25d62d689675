"""A bundle that is cut into volumes while it is written: each is a file of its own, hashed on its way; no second copy.

All of them get their names when the last one is on the disk, then come their checksums and what says which bytes they
are of which bundle: at once, or from who reads all of them again.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from regwrap.bundle.aside import (
    WRITE_BACK_BYTES,
    Part,
    part_file,
    remove_dead,
    start_write_back,
    sync_directory,
    sync_file,
    write_atomically,
)
from regwrap.bundle.output import checksum_path, forget_beside
from regwrap.bundle.stream import Sink
from regwrap.bundle.volume_places import volume_name, volumes_in
from regwrap.bundle.volumes import MAX_VOLUMES, Volume, facts_of_volumes, said_sums
from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.release_id import ReleaseId
from regwrap.core.writing import check_directory, is_there, write_all_at
from regwrap.storage.space import need_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents

_STEP_BYTES: Final = 256 * 1024
"""What is written at once: where the page cache is full, the kernel takes longer to find room for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeTarget:
    """Volumes of `size` bytes of the bundle `output`. `only` one of them is written, by its number; 0 for all. Not
    `summed`: they are not hashed here, and who does it calls `write_sums`."""

    output: Path
    size: int
    only: int = 0
    summed: bool = True

    @property
    def can_repeat(self) -> bool:
        return True

    @contextmanager
    def written(self, contents: BundleContents) -> Iterator[Sink]:
        """Raises UsageError (a file is in the way, too many volumes), ToolError (no space), IntegrityError (the volume
        that is made again is another one)."""
        volumes = self.volumes(contents.tar_bytes)
        chosen = volumes[self.only - 1 : self.only] if self.only else volumes
        self._check(chosen, len(volumes))
        with ExitStack() as stack, ThreadPoolExecutor(2, thread_name_prefix="volume") as pool:
            writing = _Writing(output=self.output, volumes=chosen, stack=stack, pool=pool, summed=self.summed)
            yield Sink(write=writing.write, take=writing.take)
            written = writing.ended()
            if self.only:
                self._compare(written[0])
            else:
                self._forget(written)
            for part, volume in writing.parts:
                part.path.rename(self.output.with_name(volume.name))
        if self.summed and not self.only:
            write_sums(self.output, ReleaseId(contents.name, contents.id), written)
        sync_directory(self.output.parent)

    def volumes(self, total: int) -> tuple[Volume, ...]:
        """Those of a bundle of so many bytes. Raises UsageError where they are too many."""
        starts = [*range(0, total, self.size), total]
        if len(starts) - 1 > MAX_VOLUMES:
            hint = f"{-(-total // MAX_VOLUMES):,} bytes or more each"
            raise UsageError(f"{self.output} would have more than {MAX_VOLUMES} volumes", hint=hint)
        if self.only >= len(starts):
            raise UsageError(f"--volume {self.only}: {self.output} has {counted(len(starts) - 1, 'volume')}")
        return tuple(
            Volume(name=volume_name(self.output.name, number), offset=start, size=end - start)
            for number, (start, end) in enumerate(pairwise(starts), start=1)
        )

    def _check(self, chosen: tuple[Volume, ...], count: int) -> None:
        check_directory(self.output)
        if is_there(self.output):
            raise UsageError(
                f"{self.output} exists, and would be read instead of its {counted(count, 'volume')}",
                hint="remove it first",
            )
        for volume in chosen:  # they may be as large
            remove_dead(self.output.with_name(volume.name))
        need_space(self.output.parent, sum(volume.size for volume in chosen))

    def _compare(self, volume: Volume) -> None:
        """With what is said beside it of the volume, by its checksum: those that lie there may be damaged."""
        said = said_sums(self.output).get(volume.name, volume.sha256)
        if said != volume.sha256:
            raise IntegrityError(
                f"{volume.name} would be another one: its sha256 is {volume.sha256}, and was {said}",
                hint="the same list, lock, name, --since and --volume-size give the same bytes",
            )

    def _forget(self, written: tuple[Volume, ...]) -> None:
        """What is left of an earlier bundle of this name would lie."""
        forget_beside(self.output)
        facts_of_volumes(self.output).unlink(missing_ok=True)
        for name, path in volumes_in(self.output, (self.output.parent,)).items():
            if name > written[-1].name:
                path.unlink()


def write_sums(output: Path, release: ReleaseId, volumes: Sequence[Volume]) -> None:
    """What stands beside all volumes of a release: their checksums, and which bytes they are."""
    write_atomically(checksum_path(output), "".join(f"{v.sha256}  {v.name}\n" for v in volumes))
    write_atomically(facts_of_volumes(output), _facts(output, release, volumes))


def _facts(output: Path, release: ReleaseId, volumes: Sequence[Volume]) -> str:
    document = {
        "bundle": output.name,
        "name": release.name,
        "id": f"{release.id}",
        "bytes": volumes[-1].end,
        "volumes": [{"volume": v.name, "offset": v.offset, "bytes": v.size, "sha256": v.sha256} for v in volumes],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


@dataclass(slots=True, kw_only=True)
class _Writing:
    """Takes the bundle's bytes in order; those of no volume are passed over. `stack` keeps the files until the end."""

    output: Path
    volumes: tuple[Volume, ...]
    stack: ExitStack
    pool: ThreadPoolExecutor
    summed: bool
    parts: list[tuple[Part, Volume]] = field(default_factory=list)
    sums: list[hashlib._Hash] = field(default_factory=list)
    position: int = 0
    flushed: int = 0

    def write(self, data: memoryview) -> None:
        self.take(data)()

    def take(self, data: memoryview) -> Callable[[], None]:
        pieces = list[_Piece]()
        while data:
            count = self._take_some(data, pieces)
            self.position += count
            data = data[count:]
        return lambda: _write(pieces)

    def _take_some(self, data: memoryview, pieces: list[_Piece]) -> int:
        """How many of these bytes go into one volume, or into none."""
        number = len(self.parts)
        if not number or self.position >= self.volumes[number - 1].end:
            if number == len(self.volumes):
                return len(data)
            following = self.volumes[number]
            if self.position < following.offset:
                return min(len(data), following.offset - self.position)
            self._begin(following)
        part, volume = self.parts[-1]
        piece = _Piece(part.descriptor, data[: volume.end - self.position], self.position - volume.offset)
        if self.summed:
            self.sums[-1].update(piece.data)
        self._flush(piece)
        pieces.append(piece)
        return len(piece.data)

    def _begin(self, volume: Volume) -> None:
        self.flushed = 0
        part = self.stack.enter_context(part_file(self.output.with_name(volume.name)))
        self.parts.append((part, volume))
        self.sums.append(hashlib.sha256())

    def _flush(self, piece: _Piece) -> None:
        """What lies in front of it, which was written or is just now."""
        start, end = self.flushed, piece.offset
        if end - start >= WRITE_BACK_BYTES:
            self.flushed = end
            self.pool.submit(start_write_back, piece.descriptor, start, end)

    def ended(self) -> tuple[Volume, ...]:
        """All of them are on the disk."""
        list(self.pool.map(lambda item: sync_file(item[0].descriptor, item[0].path), self.parts))
        if not self.summed:
            return self.volumes
        done = zip(self.volumes, self.sums, strict=True)
        return tuple(replace(volume, sha256=state.hexdigest()) for volume, state in done)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What goes to this place in a volume."""

    descriptor: int
    data: memoryview
    offset: int


def _write(pieces: Sequence[_Piece]) -> None:
    for piece in pieces:
        for start in range(0, len(piece.data), _STEP_BYTES):
            write_all_at(piece.descriptor, piece.data[start : start + _STEP_BYTES], piece.offset + start)
