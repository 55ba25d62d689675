"""Reading a storage: what is there, and is it sound. Nothing here writes.

A link that is not exactly `sha256:` + 64 hex digits in a regular file counts as absent, and so does a blob that is
no regular file: registries that were killed, and full disks, leave such things behind.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.closure import Closure, closure_of, parsed
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.model import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Digest,
    Index,
    ParseError,
    Platform,
    is_repository,
    is_tag,
)
from regwrap.storage import layout
from regwrap.storage.hashing import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterator

# absent, below a file, a symbolic link, a socket
_ROOT_HINT: Final = "give the registry's root directory (rootdirectory in its configuration)"
_NO_LINK: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}


@dataclass(frozen=True, slots=True)
class Storage:
    """A registry's root directory: the one that has `docker/registry/v2` in it, or will have.

    Blobs that are not there are looked for in `below`, as in an overlay.
    """

    root: Path
    below: tuple[Path, ...] = ()

    def repositories(self) -> Iterator[str]:
        """Names in sorted order. Symbolic links are not followed."""
        yield from sorted(self._repositories(layout.REPOSITORIES, ""))

    def _repositories(self, path: str, name: str) -> Iterator[str]:
        children = [entry.name for entry in _scan(self.root / path) if entry.is_dir(follow_symlinks=False)]
        if name and ("_manifests" in children or "_layers" in children):
            yield name
        for child in children:
            if not child.startswith("_") and is_repository(inner := f"{name}/{child}" if name else child):
                yield from self._repositories(f"{path}/{child}", inner)

    def tags(self, repository: str, after: str = "") -> tuple[str, ...]:
        """The tags behind `after` that are directories with a legal name, sorted; what they point to may be absent."""
        found = (e for e in _scan(self.root / layout.repository_path(repository) / "_manifests/tags") if e.name > after)
        return tuple(sorted(e.name for e in found if e.is_dir(follow_symlinks=False) and is_tag(e.name)))

    def revisions(self, repository: str) -> tuple[Digest, ...]:
        return tuple(_hex_names(self.root / layout.repository_path(repository) / "_manifests/revisions/sha256"))

    def layers(self, repository: str) -> tuple[Digest, ...]:
        return tuple(_hex_names(self.root / layout.repository_path(repository) / "_layers/sha256"))

    def blobs(self) -> Iterator[Digest]:
        """Every blob directory, sorted, whatever is in it."""
        for prefix in sorted(entry.name for entry in _scan(self.root / layout.BLOBS)):
            names = _hex_names(self.root / layout.BLOBS / prefix)
            yield from (digest for digest in names if digest.hex[:2] == prefix)  # elsewhere no registry looks for it

    def resolve(self, repository: str, tag: str) -> Digest | None:
        """What the tag points to; None where it is absent or its link is damaged."""
        return read_link(f"{self.root}/{layout.tag_link(repository, tag)}")

    def has_tag(self, repository: str, tag: str, digest: Digest) -> bool:
        """Whether the tag points to `digest` with both its links; a registry follows one, its collector the other."""
        index = read_link(f"{self.root}/{layout.tag_index_link(repository, tag, digest)}")
        return index == digest == self.resolve(repository, tag)

    def has_layer(self, repository: str, digest: Digest) -> bool:
        return read_link(f"{self.root}/{layout.layer_link(repository, digest)}") == digest

    def has_revision(self, repository: str, digest: Digest) -> bool:
        return read_link(f"{self.root}/{layout.revision_link(repository, digest)}") == digest

    def blob_path(self, digest: Digest) -> Path:
        return Path(self._blob(digest))

    def _blob(self, digest: Digest) -> str:
        """The path as text: making a Path costs more than asking the kernel, and there are thousands of blobs."""
        name = layout.blob_path(digest)
        *above, last = (f"{place}/{name}" for place in (self.root, *self.below))
        return next(filter(os.path.lexists, above), last)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of the blob's file; None where there is no regular file."""
        return regular_size(self._blob(digest))

    def read_blob(self, digest: Digest, limit: int = MAX_MANIFEST_BYTES) -> bytes | None:
        """The bytes of a small blob, not verified; None where it is absent. Raises IntegrityError above `limit`."""
        size = self.blob_size(digest)
        if size is None:
            return None
        if size > limit:
            raise IntegrityError(f"{digest.short} has {size} bytes; a manifest or config has at most {limit}")
        return self.blob_path(digest).read_bytes()

    def closure(self, repository: str, top: Digest, platforms: tuple[Platform, ...] = ()) -> Closure | None:
        """All of an image as `repository` knows it, manifests verified; None where the top is absent.

        A manifest counts as there when the repository has a revision link for it: the registry serves no other.
        """

        def fetch(digest: Digest) -> bytes | None:
            return self.read_blob(digest) if self.has_revision(repository, digest) else None

        return closure_of(top, fetch, platforms)

    def has_lost(self, repository: str, child: Digest) -> bool:
        """Whether a manifest that an index names, and that `closure` misses, was lost and not left out on purpose.

        Its file may be another repository's. But what it names is linked only where it was itself.
        """
        if self.has_revision(repository, child):
            return True
        try:
            raw = self.read_blob(child)
            manifest = None if raw is None else parsed(child, raw)
        except IntegrityError:
            return True  # nobody can tell
        if manifest is None:
            return os.path.lexists(self.blob_path(child))
        if isinstance(manifest, Index):
            return any(self.has_revision(repository, inner.digest) for inner in manifest.manifests)
        return all(self.has_layer(repository, blob.digest) for blob in manifest.blobs)

    def is_sound(self, blob: Descriptor, *, hashed: bool) -> bool:
        """Whether the blob is there with the right size and, if asked for, the right bytes."""
        if self.blob_size(blob.digest) != blob.size:
            return False
        return not hashed or hash_file(self.blob_path(blob.digest)) == blob.digest

    def read_config(self, blob: Descriptor) -> bytes:
        """A config's bytes, verified; empty where it is not there."""
        raw = self.read_blob(blob.digest)
        return raw if raw is not None and Digest.of(raw) == blob.digest else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundBlobs:
    """Which blobs of a storage are sound, each looked at once a run. `hashed`: read its bytes, not only its size."""

    storage: Storage
    hashed: bool
    _known: dict[Digest, bool] = field(default_factory=dict)
    _linked: set[tuple[str, Digest]] = field(default_factory=set)

    def has_in(self, repository: str, blob: Descriptor) -> bool:
        """The same for a repository, which has to link to it; its tags share most of their layers."""
        if not self.has(blob):
            return False
        key = (repository, blob.digest)
        if key not in self._linked and self.storage.has_layer(*key):
            self._linked.add(key)
        return key in self._linked

    def has(self, blob: Descriptor) -> bool:
        known = self._known.get(blob.digest)
        if known is None:
            known = self._known[blob.digest] = self.storage.is_sound(blob, hashed=self.hashed)
        return known

    def add(self, digest: Digest) -> None:
        """This run has just put it there, verified."""
        self._known[digest] = True


def need_storage(root: Path, hint: str = _ROOT_HINT) -> Storage:
    """The storage at `root`. Raises UsageError where there is none."""
    if not (root / layout.V2).is_dir():
        raise UsageError(f"{root} is not a registry storage: it has no {layout.V2}", hint=hint)
    return Storage(root)


def real_root(root: Path) -> Path:
    """The absolute path without symbolic links, so that a storage has one name; as it is where it leads elsewhere then:
    /proc/PID/root reaches into another mount namespace, and its text does not."""
    real = root.resolve()
    same = not root.exists() or (real.exists() and root.samefile(real))
    return real if same else root.absolute()


def read_link(path: str | Path) -> Digest | None:
    """The digest in a link file, or None where it is absent or not exactly one digest in a regular file.

    Raises OSError where that cannot be seen: a disk that fails, a file that may not be read.
    """
    try:
        # O_NOFOLLOW and O_NONBLOCK: a fifo or a symbolic link in a link's place must neither hang nor lead away
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_LINK:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = os.read(descriptor, layout.LINK_BYTES + 1)
    finally:
        os.close(descriptor)
    try:
        return Digest.parse(text.decode("ascii"))
    except (ParseError, UnicodeDecodeError):
        return None


def regular_size(path: str | Path) -> int | None:
    """Size in bytes of a regular file; None for anything else. Links are not followed."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _scan(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _hex_names(path: Path) -> Iterator[Digest]:
    for name in sorted(entry.name for entry in _scan(path)):
        try:
            yield Digest.parse(f"sha256:{name}")
        except ParseError:
            continue
