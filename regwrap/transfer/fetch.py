"""The stage of a run: where blobs lie until they are proved by hashing. And how skopeo fetches a manifest's there.

`stage/blobs/sha256` has whole blobs by their digest, or what a crash made of them: who finds one there has to hash it.
`stage/parts` has the beginnings of others.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from regwrap.core.errors import ToolError
from regwrap.core.writing import UnreadableError
from regwrap.storage.hashing import hash_descriptor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from regwrap.core.manifest import Descriptor, Manifest
    from regwrap.core.model import Digest
    from regwrap.storage.store import Storage, ValidBlobs
    from regwrap.storage.tree import Tree
    from regwrap.tools.skopeo import Remote, Skopeo

BLOBS: Final = "blobs/sha256"
PARTS: Final = "parts"
COPIES: Final = "copies"
LINKS: Final = "links"


@dataclass(slots=True)
class Stage:
    """A directory on the storage's file system that belongs to one run. Names are in its tree. `is_wanted`: an image
    was not finished, and what has come of it is for the next run. `mark` is part of its parts' names: several
    processes may have a stage of their own in one directory, and nobody writes into another's file."""

    tree: Tree
    is_wanted: bool = False
    mark: str = ""
    _number: int = 0
    _lock: Lock = field(default_factory=Lock)

    def blob(self, digest: Digest) -> str:
        return f"{BLOBS}/{digest.hex}"

    def part(self, digest: Digest) -> str:
        """Where the first bytes of a blob lie until the others have come: perhaps in the next run."""
        return f"{PARTS}/{digest.hex}{self.mark}"

    def arrived(self, blob: Descriptor) -> int:
        """How much of the blob's part is there; what can be none is removed."""
        name = self.part(blob.digest)
        size = self.tree.size(name)
        if size is not None and size <= blob.size:
            return size
        if size is not None or self.tree.stat(name) is not None:
            self.tree.remove_all(name)
        return 0

    def open_part(self, blob: Descriptor) -> int:
        """A descriptor to write the rest of a blob's part."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        return self.tree.open(self.part(blob.digest), flags, 0o600)

    def place(self, _blob: Descriptor, /) -> int:
        """Each part is a file of its own."""
        return 0

    def came(self, blob: Descriptor, count: int) -> None:
        """The part's size says it."""

    def forget(self, blob: Descriptor) -> None:
        self.remove(self.part(blob.digest))

    def accept_part(self, blob: Descriptor) -> bool:
        """Whether the part is all of the blob, and right: then it counts as the blob, else it is removed."""
        name = self.part(blob.digest)
        if self._is_right(name, blob):
            self.tree.rename(name, self.tree, self.blob(blob.digest))
            return True
        self.remove(name)
        return False

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
        """Whether it is there and right; what is wrong, or cannot be read, is removed."""
        with suppress(UnreadableError):
            if self.is_valid(blob):
                return True
        self.remove(self.blob(blob.digest))
        return False

    def is_valid(self, blob: Descriptor) -> bool:
        return self._is_right(self.blob(blob.digest), blob)

    def _is_right(self, name: str, blob: Descriptor) -> bool:
        """What our own disk does not give back is removed, or each run would end at it. Raises UnreadableError."""
        try:
            return self.tree.size(name) == blob.size and hash_descriptor(self.tree.open(name)) == blob.digest
        except UnreadableError:
            self.remove(name)
            raise


def damaged_on_the_way(where: str, blob: Descriptor, size: int | None) -> ToolError:
    what = "did not arrive" if size is None else f"arrived damaged ({size} of {blob.size} bytes, or other ones)"
    return ToolError(f"{where}: blob {blob.digest.short} {what}", transient=True)


class ImageFetcher(Protocol):
    """Fetches what `leaf` has, and `absent` for certain, into the stage. Raises ToolError."""

    def fetch(self, source: Remote, leaf: Manifest, absent: Sequence[Descriptor]) -> None: ...

    def bytes_under_way(self) -> int:
        """Bytes of unfinished blobs, for the progress line."""


@dataclass(slots=True, kw_only=True)
class LayoutFetcher:
    """By one `skopeo copy` into a private OCI layout whose blobs are shared; then what came is read and hashed."""

    stage: Stage
    storage: Storage
    valid: ValidBlobs
    skopeo: Skopeo
    inherit: tuple[int, ...]

    def fetch(self, source: Remote, leaf: Manifest, absent: Sequence[Descriptor]) -> None:
        for blob in leaf.blobs:
            if blob not in absent and self.valid.has(blob):
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
            if not self.stage.is_valid(blob):
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
