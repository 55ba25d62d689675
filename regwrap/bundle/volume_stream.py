"""Volumes one after the other, as one stream: each is hashed as it passes, and looked for when its turn has come.

So media can be mounted one by one. Who is asked for the next one may bring it, or say that there is none.
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final

from regwrap.bundle.volume_places import named_directories, volume_name, volumes_of
from regwrap.bundle.volumes import (
    NoFirstVolumeError,
    VolumeSet,
    blamed,
    damaged_volumes,
    found_volumes,
    missing_volumes,
    no_volume,
)
from regwrap.core.errors import IntegrityError
from regwrap.core.writing import on_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from typing_extensions import Buffer

    Ask = Callable[[str, Sequence[Path]], bool]

_READ_BYTES: Final = 1024 * 1024
_BUFFER_BYTES: Final = 64 * 1024  # for headers: what is larger passes by it


@contextmanager
def volume_stream(path: Path, ask: Ask) -> Iterator[IO[bytes]]:
    """The bundle's bytes, out of its volumes, for the block; where it finds damage, the volumes that are to blame are
    named, if that can be told. `ask` is told the name of one that is in none of the directories, and says whether to
    look again. Raises UsageError where it says no, and IntegrityError."""
    with io.BufferedReader(_Volumes(path, ask), _BUFFER_BYTES) as file:
        try:
            yield file
        except IntegrityError as error:
            raise blamed(path, damaged_volumes(path), error) from error


def never(_name: str, _directories: Sequence[Path]) -> bool:
    """Nobody is there to be asked."""
    return False


class _Volumes(io.RawIOBase):
    """What was read last is hashed in a thread until more is read, while who asked for it hashes it as blobs."""

    def __init__(self, path: Path, ask: Ask) -> None:
        self._descriptor: int | None = None  # first: it is closed also where there are no volumes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="volume-sum")
        self._hashing: Future[None] | None = None
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._rest = self._buffer[:0]
        self._path = path
        self._ask = ask
        self._number = 0
        self._set = self._first()

    def _first(self) -> VolumeSet:
        while True:
            missing = no_volume(self._path)
            try:
                if (found := found_volumes(self._path)) is not None:
                    return found
            except NoFirstVolumeError as error:
                missing = error
            if not self._ask(volume_name(self._path.name, 1), named_directories()):
                raise missing

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        while not self._rest and self._number < len(self._set.volumes):
            if self._descriptor is None:
                self._descriptor = self._open()
            self._rest = self._read_on(self._descriptor)
            if not self._rest:
                self._end_volume()
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def _read_on(self, descriptor: int) -> memoryview:
        self._end_hashing()
        with on_file(descriptor):
            count = os.readv(descriptor, [self._buffer])
        self._read += count
        self._hashing = self._pool.submit(self._state.update, self._buffer[:count])
        return self._buffer[:count]

    def _open(self) -> int:
        name = self._set.volumes[self._number].name
        if name not in self._set.places or not self._set.places[name].is_file():
            self._look_for(name)
        self._read, self._state = 0, hashlib.sha256()
        return os.open(self._set.places[name], os.O_RDONLY | os.O_NONBLOCK)

    def _look_for(self, name: str) -> None:
        while name not in (places := volumes_of(self._path)):
            if not self._ask(name, named_directories()):
                done = {volume.name: self._path for volume in self._set.volumes[: self._number]}
                raise missing_volumes(replace(self._set, places={**places, **done}))
        # what the first medium said still counts: the next one may have nothing but its volume
        self._set = replace(self._set, places=places)

    def _end_volume(self) -> None:
        self._end_hashing()
        volume = self._set.volumes[self._number]
        if self._read != volume.size or volume.sha256 not in {"", self._state.hexdigest()}:
            raise IntegrityError(
                f"{self._set.places[volume.name]} is damaged, or a volume of another bundle",
                hint=f"copy it again, or let the vendor make just this one again: --volume {self._number + 1}",
            )
        self.close_volume()
        self._number += 1

    def _end_hashing(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    def close_volume(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # its medium can go
            self._descriptor = None

    def close(self) -> None:
        self.close_volume()
        self._pool.shutdown()
        super().close()
