"""An OCI image layout on disk: oci-layout, index.json with a name for each image, blobs by digest.

index.json is the only file that is ever changed, and that under a lock and by rename: writers that read, change and
write it without one lose each other's tags with exit code 0.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.fields import a_text, an_object, field, json_object, list_of, or_none
from regwrap.core.manifest import MAX_MANIFEST_BYTES, a_digest, a_size
from regwrap.core.model import Digest
from regwrap.core.writing import is_there, on_file, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INDEX: Final = "index.json"
MARK: Final = "oci-layout"
MARK_BYTES: Final = b'{"imageLayoutVersion":"1.0.0"}'
_NAME: Final = "org.opencontainers.image.ref.name"
_CONTAINERD: Final = "io.containerd.image.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutEntry:
    """What index.json says of one image; `name` is None where it has none. `containerd`: the whole name, with a
    registry, that containerd and docker give it beside that."""

    name: str | None
    media_type: str
    digest: Digest
    size: int
    containerd: str | None = None


def blob_path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def is_layout(directory: Path) -> bool:
    return (directory / MARK).is_file()


def read_entries(directory: Path) -> tuple[LayoutEntry, ...]:
    """The images of the layout. Raises UsageError (no layout) and IntegrityError (index.json is damaged)."""
    try:
        with (directory / INDEX).open("rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{directory} is not an OCI layout: {INDEX}: {error.strerror}") from error
    try:
        # Go writes null for a list without items; absent is damage
        return field(json_object(raw), "manifests", or_none(list_of(_entry)), absent={}) or ()
    except ValueError as error:
        raise IntegrityError(f"{directory / INDEX} is damaged: {error}") from error


def _entry(value: object) -> LayoutEntry:
    item = an_object(value)
    annotations = an_object(item.get("annotations") or {})
    return LayoutEntry(
        name=field(annotations, _NAME, or_none(a_text)),
        containerd=field(annotations, _CONTAINERD, or_none(a_text)),
        media_type=field(item, "mediaType", a_text, ""),
        digest=field(item, "digest", a_digest),
        size=field(item, "size", a_size),
    )


def index_bytes(entries: tuple[LayoutEntry, ...]) -> bytes:
    manifests = [
        {
            "mediaType": entry.media_type,
            "digest": str(entry.digest),
            "size": entry.size,
            **({"annotations": names} if (names := _annotations(entry)) else {}),
        }
        for entry in entries
    ]
    return json.dumps({"schemaVersion": 2, "manifests": manifests}, sort_keys=True).encode("ascii") + b"\n"


def _annotations(entry: LayoutEntry) -> dict[str, str]:
    names = {_NAME: entry.name, _CONTAINERD: entry.containerd}
    return {key: name for key, name in names.items() if name is not None}


def named_entry(directory: Path, name: str | None) -> LayoutEntry:
    """The image of that name, or the only one where no name is given. Raises UsageError."""
    entries = read_entries(directory)
    found = [entry for entry in entries if name is None or name in {entry.name, entry.containerd}]
    if len(found) != 1:
        names = ", ".join(sorted(entry.name or "(no name)" for entry in entries)) or "nothing"
        what = f"no image {name}" if name else f"{counted(len(entries), 'image')}, and none is chosen"
        raise UsageError(f"{directory} has {what}; it has {names}", hint="select one with oci:DIR:TAG")
    return found[0]


def read_blob(directory: Path, digest: Digest, limit: int = MAX_MANIFEST_BYTES) -> bytes:
    """A small blob, verified. Raises IntegrityError."""
    path = directory / blob_path(digest)
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror}") from error
    if Digest.of(raw) != digest:
        raise IntegrityError(f"{path} does not match the digest in its name")
    return raw


@contextmanager
def locked_layout(directory: Path) -> Iterator[None]:
    """Keep other regwraps from changing the layout's index.json. The directory itself is what is locked."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with on_file(descriptor):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_published(directory: Path, name: str, digest: Digest | None) -> bool:
    """Whether the layout has the name already. Raises UsageError where it is another image's, or no layout is there."""
    if not is_there(directory) or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if not is_layout(directory):
        raise UsageError(f"{directory} is neither empty nor an OCI layout; nothing was changed")
    found = [entry for entry in read_entries(directory) if entry.name == name]
    if any(digest is not None and entry.digest != digest for entry in found):
        raise UsageError(
            f"{directory} has another image {name} already: {found[0].digest}; nothing was changed",
            hint=f"choose another tag, or remove this one: umoci rm --image {directory}:{name}",
        )
    return bool(found)


def publish(built: Path, directory: Path, sync: Callable[[Path], None]) -> None:
    """Move all images of the new layout `built` to `directory`, on the same file system: whole, or by blobs and then
    index.json. `sync` writes a directory's file system to the disk."""
    sync(built)
    if not is_layout(directory):
        built.rename(directory)
        sync(directory.parent)
        return
    with locked_layout(directory):
        new = read_entries(built)
        for entry in new:
            is_published(directory, entry.name or "", entry.digest)
        for path in sorted((built / "blobs/sha256").iterdir()):
            path.replace(directory / "blobs/sha256" / path.name)
        sync(directory)
        names = {entry.name for entry in new}
        kept = tuple(entry for entry in read_entries(directory) if entry.name not in names)
        staged = built / INDEX
        write_file(staged, index_bytes((*kept, *new)))
        sync(built)
        staged.replace(directory / INDEX)
        sync(directory)


def write_image(layout: Path, name: str, blobs: tuple[bytes, bytes], media_type: str) -> None:
    """Put a config and a manifest into a layout that nobody else writes to, and name the manifest."""
    _config, manifest = blobs
    for data in blobs:
        write_file(layout / blob_path(Digest.of(data)), data)
    entry = LayoutEntry(name=name, media_type=media_type, digest=Digest.of(manifest), size=len(manifest))
    write_file(layout / INDEX, index_bytes((entry,)))
