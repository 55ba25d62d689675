"""Reading a storage: what is there, and is it valid. Nothing here writes.

A link that is not exactly `sha256:` + 64 hex digits in a regular file counts as absent, and so does a blob that is
no regular file: registries that were killed, and full disks, leave such things behind.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.closure import Closure, closure_of, parsed
from regwrap.core.errors import IntegrityError, LostBlobError, UsageError
from regwrap.core.manifest import MAX_MANIFEST_BYTES, Descriptor, Index
from regwrap.core.model import Digest, ParseError, Platform, is_repository, is_tag
from regwrap.core.writing import failed_read, name_file, status_of
from regwrap.storage import layout
from regwrap.storage.hashing import hash_descriptor, hash_problem, reading
from regwrap.storage.tree import LinkedDirectoryError, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

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
    tree: Tree = field(init=False, repr=False, compare=False)
    _places: tuple[Tree, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", Tree(self.root))
        object.__setattr__(self, "_places", (self.tree, *map(Tree, self.below)))

    def repositories(self) -> Iterator[str]:
        """Names in sorted order. Raises LinkedDirectoryError for a symbolic link in a repository's place."""
        yield from sorted(self._repositories(layout.REPOSITORIES, ""))

    def _repositories(self, path: str, name: str) -> Iterator[str]:
        parts = {"_manifests", "_layers"} if name else set()

        def inner(child: str) -> str:
            return f"{name}/{child}" if name else child

        children = self._directories(path, lambda child: child in parts or is_repository(inner(child)))
        if name and ("_manifests" in children or "_layers" in children):
            yield name
        for child in children:
            if child not in parts:
                yield from self._repositories(f"{path}/{child}", inner(child))

    def tags(self, repository: str, after: str = "") -> tuple[str, ...]:
        """The tags behind `after` that are directories with a legal name, sorted; what they point to may be absent."""
        path = f"{layout.repository_path(repository)}/_manifests/tags"
        return tuple(sorted(self._directories(path, lambda name: name > after and is_tag(name))))

    def _directories(self, path: str, known: Callable[[str], bool]) -> list[str]:
        names = []
        for entry in self.tree.entries(path):
            if known(entry.name) and entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
            elif known(entry.name) and entry.is_symlink():
                raise LinkedDirectoryError(self.tree.shown(f"{path}/{entry.name}"))
        return names

    def revisions(self, repository: str) -> tuple[Digest, ...]:
        return tuple(self._hex_names(f"{layout.repository_path(repository)}/_manifests/revisions/sha256"))

    def layers(self, repository: str) -> tuple[Digest, ...]:
        return tuple(self._hex_names(f"{layout.repository_path(repository)}/_layers/sha256"))

    def blobs(self) -> Iterator[Digest]:
        """Every blob directory, sorted, whatever is in it."""
        for prefix in sorted(entry.name for entry in self.tree.entries(layout.BLOBS)):
            names = self._hex_names(f"{layout.BLOBS}/{prefix}")
            yield from (digest for digest in names if digest.hex[:2] == prefix)  # elsewhere no registry looks for it

    def _hex_names(self, path: str) -> Iterator[Digest]:
        for name in sorted(entry.name for entry in self.tree.entries(path)):
            try:
                yield Digest.parse(f"sha256:{name}")
            except ParseError:
                continue

    def resolve(self, repository: str, tag: str) -> Digest | None:
        """What the tag points to; None where it is absent or its link is damaged."""
        return read_link(self.tree, layout.tag_link(repository, tag))

    def has_tag(self, repository: str, tag: str, digest: Digest) -> bool:
        """Whether the tag points to `digest` with both its links; a registry follows one, its collector the other."""
        index = read_link(self.tree, layout.tag_index_link(repository, tag, digest))
        return index == digest == self.resolve(repository, tag)

    def has_layer(self, repository: str, digest: Digest) -> bool:
        return read_link(self.tree, layout.layer_link(repository, digest)) == digest

    def has_revision(self, repository: str, digest: Digest) -> bool:
        return read_link(self.tree, layout.revision_link(repository, digest)) == digest

    def blob_path(self, digest: Digest) -> Path:
        """For messages and for programs; regwrap itself reads `open_blob`."""
        name = layout.blob_path(digest)
        return self._place(name).root / name

    def _place(self, name: str) -> Tree:
        *above, last = self._places
        return next((tree for tree in above if tree.stat(name) is not None), last)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of the blob's file; None where there is no regular file."""
        name = layout.blob_path(digest)
        return self._place(name).size(name)

    def open_blob(self, digest: Digest) -> int:
        """A descriptor, which the caller closes. Raises OSError where there is nothing, or a link."""
        name = layout.blob_path(digest)
        return self._place(name).open(name)

    def read_blob(self, digest: Digest, limit: int = MAX_MANIFEST_BYTES) -> bytes | None:
        """The bytes of a small blob, not verified; None where it is absent. Raises IntegrityError above `limit`, and
        LostBlobError."""
        size = self.blob_size(digest)
        if size is None:
            return None
        if size > limit:
            raise IntegrityError(f"{digest.short} has {size} bytes; a manifest or config has at most {limit}")
        with os.fdopen(self.open_blob(digest), "rb") as file, reading(digest):
            try:
                return file.read(size)
            except OSError as error:
                raise failed_read(error, file) from None

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
            name = layout.blob_path(child)
            return self._place(name).stat(name) is not None
        if isinstance(manifest, Index):
            return any(self.has_revision(repository, inner.digest) for inner in manifest.manifests)
        return all(self.has_layer(repository, blob.digest) for blob in manifest.blobs)

    def is_valid(self, blob: Descriptor, *, hashed: bool) -> bool:
        """Whether the blob is there with the right size and, if asked for, the right bytes."""
        return not self.damage(blob, hashed=hashed)

    def damage(self, blob: Descriptor, *, hashed: bool) -> str:
        """What is wrong with it then; empty where it is valid."""
        digest, unread = blob.digest, ""
        try:
            if self.blob_size(digest) == blob.size and (not hashed or self.hash_blob(digest) == digest):
                return ""
        except LostBlobError as error:
            unread = error.detail
        return hash_problem(digest, self.blob_path(digest), unread)

    def hash_blob(self, digest: Digest) -> Digest:
        """Raises LostBlobError."""
        with reading(digest):
            return hash_descriptor(self.open_blob(digest))

    def read_config(self, blob: Descriptor) -> bytes:
        """A config's bytes, verified; empty where it is not there. Raises LostBlobError."""
        raw = self.read_blob(blob.digest)
        return raw if raw is not None and Digest.of(raw) == blob.digest else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidBlobs:
    """Which blobs of a storage are valid, each looked at once a run. `hashed`: read its bytes, not only its size."""

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
            known = self._known[blob.digest] = self.storage.is_valid(blob, hashed=self.hashed)
        return known

    def add(self, digest: Digest) -> None:
        """This run has just put it there, verified."""
        self._known[digest] = True


def need_storage(root: Path, hint: str = _ROOT_HINT) -> Storage:
    """The storage at `root`. Raises UsageError where there is none."""
    storage = Storage(root)
    if not root.is_dir() or not storage.tree.is_directory(layout.V2):
        raise UsageError(f"{root} is not a registry storage: it has no {layout.V2}", hint=hint)
    return storage


def check_one_file_system(tree: Tree, names: Iterable[str], why: str) -> None:
    """Raises UsageError where one of these directories is on another file system than the storage's root."""
    device = status_of(tree.descriptor).st_dev
    for name in names:
        status = tree.stat(name)
        if status is not None and status.st_dev != device:
            raise UsageError(
                f"{tree.shown(name)} is on another file system than {tree.root}",
                hint=f"keep the whole storage on one file system: {why}",
            )


def real_root(root: Path) -> Path:
    """The absolute path without symbolic links, so that a storage has one name; as it is where it leads elsewhere then:
    /proc/PID/root reaches into another mount namespace, and its text does not."""
    real = root.resolve()
    same = not root.exists() or (real.exists() and root.samefile(real))
    return real if same else root.absolute()


def read_link(tree: Tree, name: str) -> Digest | None:
    """The digest in a link file, or None where it is absent or not exactly one digest in a regular file.

    Raises OSError where that cannot be seen: a disk that fails, a file that may not be read.
    """
    try:
        descriptor = tree.open(name)  # a fifo or a symbolic link in a link's place neither hangs nor leads away
    except OSError as error:
        if error.errno in _NO_LINK:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = os.read(descriptor, layout.LINK_BYTES + 1)
    except OSError as error:  # no `on_file`, which would cost a tenth: a storage has many thousands of links
        name_file(error, descriptor)
        raise
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
