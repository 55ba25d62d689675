"""The layer with the storage: a tar written once, from where the blobs lie, without any compression on the way.

umoci cannot write it: `raw add-layer` compresses always, and `insert` leaves out tar's padding and end, which GNU tar
refuses. What is hashed, the layer and each blob in it, is read back from the file.
"""

from __future__ import annotations

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from regwrap.bundle.contents import BLOCK, Member, padded
from regwrap.bundle.image_set import ImageSet, damaged
from regwrap.bundle.read import hash_all
from regwrap.bundle.write import directory_header, header_of
from regwrap.core.writing import named_on_error
from regwrap.storage.hashing import append_range, hash_at, hash_file, pieces_of, write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest

_LEVEL: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer's file. `diff_id` is the digest of the tar, `digest` that of the file, which may be compressed."""

    path: Path
    diff_id: Digest
    digest: Digest
    size: int
    media_type: str


def write_layer(image_set: ImageSet, path: Path, *, root: str, extra: dict[str, bytes], listener: Listener) -> Layer:
    """The storage below `root`, and `extra` files by absolute path. Raises IntegrityError where a blob is rotten."""
    members, on_bytes = image_set.contents.members, listener.on_bytes
    inside = {member: f"{root}/{member.path}".removeprefix("/") for member in members}
    files = {name.removeprefix("/"): data for name, data in extra.items()}
    listener.expect("bake", image_set.contents.blob_bytes)
    with path.open("xb", buffering=0) as out:
        for directory in _directories([*files, *inside.values()]):
            write_all(out, directory_header(directory))
        for name, data in sorted(files.items()):
            write_all(out, header_of(name, len(data)) + data.ljust(padded(len(data)), b"\0"))
        offsets = {m.digest: _write_member(image_set, out, m, inside[m], on_bytes) for m in members if m.link is None}
        for member in members[len(offsets) :]:
            _write_member(image_set, out, member, inside[member], on_bytes)
        write_all(out, bytes(2 * BLOCK))
    diff_id = _proved(image_set, path, offsets, listener)
    media_type = "application/vnd.oci.image.layer.v1.tar"
    return Layer(path=path, diff_id=diff_id, digest=diff_id, size=path.stat().st_size, media_type=media_type)


def compressed(layer: Layer, path: Path, listener: Listener) -> Layer:
    """The same by gzip, without time and name. The bytes are those of this machine's zlib."""
    listener.expect("compress", layer.size)
    with (
        named_on_error(layer.path.open("rb")) as source,
        named_on_error(path.open("xb")) as out,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0) as packed,
    ):
        for piece in pieces_of(source):
            packed.write(piece)
            listener.on_bytes(len(piece))
    return Layer(
        path=path,
        diff_id=layer.diff_id,
        digest=hash_file(path),
        size=path.stat().st_size,
        media_type=f"{layer.media_type}+gzip",
    )


def _directories(names: list[str]) -> list[str]:
    """All directories above the names, parents first."""
    found = {f"{parent}" for name in names for parent in PurePosixPath(name).parents} - {"."}
    return sorted(found)


def _write_member(
    image_set: ImageSet, out: IO[bytes], member: Member, name: str, on_bytes: Callable[[int], None]
) -> int:
    """Returns where its bytes begin in the file."""
    write_all(out, header_of(name, member.size))
    offset = out.tell()
    if member.link is not None:
        write_all(out, str(member.link).encode("ascii"))
    else:
        with image_set.opened(member.digest) as (descriptor, located):
            append_range(descriptor, located.offset, member.size, out.fileno())
        on_bytes(member.size)
    write_all(out, bytes(padded(member.size) - member.size))
    return offset


def _proved(image_set: ImageSet, path: Path, offsets: dict[Digest, int], listener: Listener) -> Digest:
    """The digest of the layer as it lies there; raises IntegrityError where a blob in it has another one."""
    sizes = image_set.contents.sizes
    listener.expect("hash", image_set.contents.blob_bytes)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="prove") as pool:
            whole = pool.submit(hash_file, path)
            blobs = [(blob, sizes[blob]) for blob in offsets]
            wrong = hash_all(
                lambda blob: hash_at(descriptor, offsets[blob], sizes[blob]) == blob, blobs, listener.on_bytes
            )
            if wrong:
                raise damaged(image_set, wrong)
            return whole.result()
    finally:
        os.close(descriptor)
