"""Fetch blobs of one leaf manifest from a registry into a stage, proved by hashing. One class for each way.

`stage/blobs/sha256` has whole blobs by their digest, or what a crash made of them: who finds one there has to hash it.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from regwrap.core.errors import ToolError
from regwrap.storage.hashing import hash_descriptor, write_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from regwrap.core.model import Descriptor, Digest, Manifest
    from regwrap.storage.store import SoundBlobs, Storage
    from regwrap.storage.tree import Tree
    from regwrap.tools.imageproxy import ImageProxies
    from regwrap.tools.skopeo import Remote, Skopeo

BLOBS: Final = "blobs/sha256"
COPIES: Final = "copies"
LINKS: Final = "links"


@dataclass(slots=True)
class Stage:
    """A directory on the storage's file system that belongs to one run. Names are in its tree. `is_wanted`: an image
    was not finished, and what has come of it is for the next run."""

    tree: Tree
    is_wanted: bool = False
    _number: int = 0
    _lock: Lock = field(default_factory=Lock)

    def blob(self, digest: Digest) -> str:
        return f"{BLOBS}/{digest.hex}"

    def path(self, name: str) -> Path:
        """For programs, which know nothing of descriptors."""
        return self.tree.root / name

    def new(self) -> str:
        """A name for what is under way, which nothing has yet."""
        with self._lock:
            self._number += 1
            return f"{COPIES}/{self._number}"

    def create(self, name: str) -> BinaryIO:
        return os.fdopen(self.tree.create(name), "wb", buffering=0)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.tree.remove_file(name)

    def has(self, blob: Descriptor) -> bool:
        """Whether it is there and right; what is wrong is removed."""
        if self.is_right(blob):
            return True
        self.remove(self.blob(blob.digest))
        return False

    def is_right(self, blob: Descriptor) -> bool:
        name = self.blob(blob.digest)
        return self.tree.size(name) == blob.size and hash_descriptor(self.tree.open(name)) == blob.digest


def damaged_on_the_way(where: str, blob: Descriptor, size: int | None) -> ToolError:
    what = "did not arrive" if size is None else f"arrived damaged ({size} of {blob.size} bytes, or other ones)"
    return ToolError(f"{where}: blob {blob.digest.short} {what}", transient=True)


class Fetcher(Protocol):
    """Brings what `leaf` has, and `absent` for certain, into the stage. Raises ToolError."""

    def fetch(self, source: Remote, leaf: Manifest, absent: Sequence[Descriptor]) -> None: ...

    def bytes_under_way(self) -> int:
        """Bytes of unfinished blobs, for the progress line."""


@dataclass(slots=True, kw_only=True)
class StreamFetcher:
    """Out of pipes of a few skopeos that stay: hashed on the way, no program started and nothing synced for a blob."""

    stage: Stage
    proxies: ImageProxies
    _under_way: dict[str, int] = field(default_factory=dict)

    def fetch(self, source: Remote, leaf: Manifest, absent: Sequence[Descriptor]) -> None:
        del leaf  # whose blobs they are does not matter here
        with ExitStack() as stack, self.proxies.turn(source, len(absent)) as proxy:
            arriving = {blob.digest: self._arriving(stack, blob) for blob in absent}
            for blob, data in proxy.blobs(source, absent):
                one = arriving[blob.digest]
                one.add(data)
                self._under_way[one.name] = one.size
                if one.is_whole():  # it stays, whatever comes of the others
                    self._keep(arriving.pop(blob.digest), source)
            for one in arriving.values():
                self._keep(one, source)

    def _keep(self, one: _Arriving, source: Remote) -> None:
        one.prove(source.shown)
        if not one.size:
            self.stage.create(one.name).close()
        self.stage.tree.rename(one.name, self.stage.tree, self.stage.blob(one.blob.digest))

    def _arriving(self, stack: ExitStack, blob: Descriptor) -> _Arriving:
        name = self.stage.new()
        stack.callback(self.stage.remove, name)
        stack.callback(self._under_way.pop, name, None)
        arriving = _Arriving(blob=blob, name=name, stage=self.stage)
        stack.callback(arriving.close)
        return arriving

    def bytes_under_way(self) -> int:
        return sum(list(self._under_way.values()))


@dataclass(slots=True, kw_only=True)
class _Arriving:
    blob: Descriptor
    name: str
    stage: Stage
    size: int = 0
    _file: BinaryIO | None = None
    _state: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, data: memoryview) -> None:
        """The file is open while bytes come, and no longer: an image may have more blobs than there are descriptors."""
        self._file = self._file or self.stage.create(self.name)
        self._state.update(data)
        self.size += len(data)
        write_all(self._file, data)
        if self.size >= self.blob.size:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_whole(self) -> bool:
        return self.size == self.blob.size and self._state.hexdigest() == self.blob.digest.hex

    def prove(self, where: str) -> None:
        if not self.is_whole():
            raise damaged_on_the_way(where, self.blob, self.size)


@dataclass(slots=True, kw_only=True)
class LayoutFetcher:
    """By one `skopeo copy` into a private OCI layout whose blobs are shared; then what came is read and hashed."""

    stage: Stage
    storage: Storage
    sound: SoundBlobs
    skopeo: Skopeo
    inherit: tuple[int, ...]

    def fetch(self, source: Remote, leaf: Manifest, absent: Sequence[Descriptor]) -> None:
        for blob in leaf.blobs:
            if self.sound.has(blob):
                # skopeo fetches no blob whose file is there; a hard link would change the blob's own ctime, and tar
                # takes that for a change of the file
                with suppress(FileExistsError):
                    self.stage.path(self.stage.blob(blob.digest)).symlink_to(
                        self.storage.blob_path(blob.digest).absolute()
                    )
        layout = self.stage.new()
        self.stage.tree.make_directory(layout)
        try:
            self.skopeo.copy_to_layout(source, self.stage.path(layout), self.stage.path("blobs"), inherit=self.inherit)
        finally:
            with suppress(OSError):
                self.stage.tree.remove_all(layout)
        for blob in absent:
            if not self.stage.is_right(blob):
                size = self.stage.tree.size(self.stage.blob(blob.digest))
                self.stage.remove(self.stage.blob(blob.digest))
                raise damaged_on_the_way(source.shown, blob, size)

    def bytes_under_way(self) -> int:
        total = 0
        with suppress(OSError):
            for layout in self.stage.path(COPIES).iterdir():
                with suppress(OSError):
                    total += sum(f.stat().st_size for f in layout.iterdir() if f.name.startswith("oci-put"))
        return total
