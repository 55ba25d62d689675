"""A registry image's storage as a history: blobs and links to layers, out of the image's layers.

The image may be regwrap's or made by hand. Each layer is hashed before it is read; then files with the two known
shapes of path are taken, each under a name made here, and a blob only with the bytes that its name says. Tags and
revisions are left behind. Deletions by later layers need no care: a blob is what its digest says.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from regwrap.core import ocilayout
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.model import Digest, Platform, is_repository
from regwrap.core.writing import named_on_error, write_file
from regwrap.forms.baked_base import read_base
from regwrap.storage import layout
from regwrap.storage.hashing import hash_file, hash_problem, hashed, pieces_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.core.manifest import Descriptor

_BLOB: Final = re.compile(rf"(?:.*/)?{layout.BLOBS}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})/data")
_LINK: Final = re.compile(rf"(?:.*/)?{layout.REPOSITORIES}/(.+)/_layers/sha256/([0-9a-f]{{64}})/link")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """How many blobs, bytes and links came out of an image."""

    blobs: int
    bytes: int
    links: int


def unpack_history(
    directory: Path, name: str | None, platform: Platform, root: Path, on_bytes: Callable[[int], None]
) -> Unpacked:
    """Make the storage at `root`, a new directory. Raises UsageError (no storage inside), IntegrityError."""
    image, found = read_base(directory, name, platform), _Unpacking(root)
    (root / layout.BLOBS).mkdir(parents=True)
    (root / layout.REPOSITORIES).mkdir()
    for layer in image.layers:
        _check_layer(directory, layer)
        try:
            with tarfile.open(directory / ocilayout.blob_path(layer.digest), "r:*") as archive:
                for member in archive:
                    found.add(archive, member)
        except (tarfile.TarError, EOFError) as error:
            raise IntegrityError(f"layer {layer.digest} of the history cannot be read: {error}") from error
        on_bytes(layer.size)
    if not found.sizes:
        raise UsageError(f"oci:{directory} contains no registry storage", hint="create one with regwrap bake --history")
    links = found.write_links()
    return Unpacked(blobs=len(found.sizes), bytes=sum(found.sizes.values()), links=links)


def _check_layer(directory: Path, layer: Descriptor) -> None:
    if hash_file(directory / ocilayout.blob_path(layer.digest)) != layer.digest:
        raise IntegrityError(hash_problem(layer.digest, f"oci:{directory}"))


class _Unpacking:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.sizes: dict[Digest, int] = {}
        self.links: set[tuple[str, Digest]] = set()

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        file = archive.extractfile(member) if member.isreg() else None
        if file is None:
            return
        if match := _BLOB.fullmatch(member.name):
            self._blob(file, Digest(match[2]), member.size)
        elif (match := _LINK.fullmatch(member.name)) and is_repository(match[1]):
            digest = Digest(match[2])
            if file.read(layout.LINK_BYTES + 1) == str(digest).encode("ascii"):
                self.links.add((match[1], digest))

    def _blob(self, file: IO[bytes], digest: Digest, size: int) -> None:
        path = self.root / layout.blob_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with named_on_error(path.open("wb")) as out:
            copied = hashed(pieces_of(file), out.write)
        if copied != digest:
            raise IntegrityError(hash_problem(digest, "in the history"))
        self.sizes[digest] = size

    def write_links(self) -> int:
        """Only of blobs that are there."""
        links = [link for link in self.links if link[1] in self.sizes]
        for repository, digest in links:
            path = self.root / layout.layer_link(repository, digest)
            path.parent.mkdir(parents=True)
            write_file(path, str(digest))
        return len(links)
