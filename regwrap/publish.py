"""Into any registry, from a bundle, a storage, or another registry: names, and carrying one image.

Blobs go straight out of the tar, the file or skopeo's pipe over kept-alive connections, then manifests, children before
parents, the tag last. What another repository there has is taken from it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.errors import ImagesFailedError, IntegrityError, ToolError, UsageError
from regwrap.imagelist import ImageEntry
from regwrap.model import Descriptor, Digest, ImageRef, Index, Manifest, ParseError, is_repository
from regwrap.observe import End, RegistryEnd, StorageEnd
from regwrap.serve.contents import Contents, Piece, StorageContents
from regwrap.tools.credentials import UnsureError
from regwrap.tools.skopeo import Remote
from regwrap.tools.transport import Body, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regwrap.carry import RegistryCarrier
    from regwrap.plan import Copy
    from regwrap.tools.access import Registry
    from regwrap.tools.imageproxy import ImageProxies

_BLOCK: Final = 256 * 1024
_HINTS: Final = (
    (r"^200 <", "a proxy or login page answered instead of the registry"),
    (r"project .*not found", "in Harbor a name begins with a project: create it there, or give --create-projects"),
    (r"^401", "check the registry's authfile (skopeo login)"),
    (r"^403", "the account may not do this there"),
    (r"^405", "the registry is read-only"),
    (r"^412", "the registry forbids to move this tag"),
    (r"^413", "a proxy in front of the registry takes no bodies of this size"),
)


@dataclass(frozen=True, slots=True)
class Rename:
    """Repositories that are `old`, or below it, are `new`, or below that."""

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> Rename:
        """Of OLD=NEW. Raises ParseError."""
        old, equals, new = (part.strip("/") for part in text.partition("="))
        if not equals or not is_repository(old) or not is_repository(new):
            raise ParseError(f"{text!r} is not OLD=NEW with the names of repositories, or their first parts")
        return cls(old, new)

    def of(self, repository: str) -> str | None:
        """The new name; None where this does not concern the repository."""
        if repository == self.old or repository.startswith(f"{self.old}/"):
            return self.new + repository.removeprefix(self.old)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How repositories are called at the destination: by the first of `renames` that concerns them; of the others
    `flat` keeps only the last part; then `prefix/` in front of all."""

    prefix: str = ""
    flat: bool = False
    renames: tuple[Rename, ...] = ()

    def of(self, repository: str) -> str:
        other = repository.rpartition("/")[2] if self.flat else repository
        name = next((new for rename in self.renames if (new := rename.of(repository)) is not None), other)
        return f"{self.prefix}/{name}" if self.prefix else name


def renamed(entries: Iterable[ImageEntry], naming: Naming) -> tuple[ImageEntry, ...]:
    """The same images with their names at the destination. Raises UsageError where two get one name, and where a
    rename concerns none."""
    entries = tuple(entries)
    for rename in naming.renames:
        if not any(rename.of(entry.dest.repository) for entry in entries):
            raise UsageError(
                f"--rename {rename.old}={rename.new}: no image is called {rename.old}, or {rename.old}/…",
                hint="regwrap inspect shows the names",
            )
    result = tuple(
        replace(entry, dest=replace(entry.dest, repository=naming.of(entry.dest.repository))) for entry in entries
    )
    counts = Counter(str(entry.dest) for entry in result)
    problems = [f"{e.source}: would be {e.dest}, as another image too" for e in result if counts[str(e.dest)] > 1]
    problems += [f"{e.dest}: no registry takes such a name" for e in result if not is_repository(e.dest.repository)]
    if problems:
        raise UsageError(
            "the images can't have these names", detail="\n".join(problems), hint="choose another prefix, or --rename"
        )
    return result


def entry_of(repository: str, tag: str, digest: Digest, number: int) -> ImageEntry:
    """The entry for an image that is not from a list but from a bundle or a storage."""
    dest = ImageRef(registry=None, repository=repository, tag=tag, digest=None)
    return ImageEntry(source=replace(dest, digest=digest), dest=dest, platforms=(), line=number, text=str(dest))


@dataclass(slots=True)
class Whereabouts:
    """Which repositories of the destination have a blob, as far as this run knows; safe from several threads."""

    _known: dict[Digest, list[str]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def add(self, repository: str, digests: Iterable[Digest]) -> None:
        with self._lock:
            for digest in digests:
                names = self._known.setdefault(digest, [])
                if repository not in names:
                    names.append(repository)

    def has(self, repository: str, digest: Digest) -> bool:
        with self._lock:
            return repository in self._known.get(digest, ())

    def other(self, repository: str, digest: Digest) -> str | None:
        """Another repository that can give the blob."""
        with self._lock:
            return next((name for name in self._known.get(digest, ()) if name != repository), None)


class Sendable(Protocol):
    """A blob's bytes: from the first to the last each time it is iterated over; a piece is only good until the next.
    Raises what the carrier may."""

    def __iter__(self) -> Iterator[bytes | memoryview]: ...

    def is_right(self) -> bool:
        """Whether they have the digest; asked when the registry says that they do not."""


class Origin(Protocol):
    """Where what is pushed comes from."""

    def opened(self, copy: Copy, blob: Descriptor) -> AbstractContextManager[Sendable]:
        """The blob's bytes, for the block. Raises IntegrityError and ToolError."""


@dataclass(slots=True, kw_only=True)
class PushCarrier:
    """Straight from `origin`: no program is started for an image, and what skopeo can't push goes as all else does.

    `registry` is skopeo's way, for where the probe is unsure (credential helpers).
    Once `stopping` is set no more is sent.
    """

    origin: Origin
    registry: RegistryCarrier
    whereabouts: Whereabouts
    stopping: Event
    exclusive_repositories: bool = True
    _sent: int = 0
    _finished: int = 0
    _lock: Lock = field(default_factory=Lock)

    def carry(self, copy: Copy) -> int:
        repository, sent = copy.entry.dest.repository, 0
        try:
            for blob in copy.missing:
                sent += self._bring(copy, blob)
                self.whereabouts.add(repository, (blob.digest,))
            for manifest in copy.closure.manifests:
                self._put(copy, manifest)
        except UnsureError:
            self.registry.carry(copy)
            return copy.bytes_missing
        finally:
            with self._lock:
                self._finished += sent
        self.registry.prove(copy)
        self.whereabouts.add(repository, (blob.digest for blob in copy.closure.blobs))
        return sent

    def bytes_under_way(self) -> int:
        return max(0, self._sent - self._finished)

    def _bring(self, copy: Copy, blob: Descriptor) -> int:
        """The bytes that travelled: none where the repository has the blob by now, or another one gives it."""
        repository, probe = copy.entry.dest.repository, self.registry.dest.probe
        if self.whereabouts.has(repository, blob.digest):
            return 0
        other = self.whereabouts.other(repository, blob.digest)
        if other is not None and probe.mount(repository, blob.digest, other):
            return 0
        with self.origin.opened(copy, blob) as bytes_of:
            body = Body("application/octet-stream", _Counted(bytes_of, self._count), blob.size)
            try:
                status, said = probe.upload(repository, blob.digest, body)
            except ToolError as error:
                raise _named(error, copy) from error
            if status == 400 and not bytes_of.is_right():
                raise damaged(copy, blob)
        if status != 201:
            raise _refused(f"blob {blob.digest.short} of {copy.entry.dest}", self.registry.dest.name, status, said)
        return blob.size

    def _count(self, count: int) -> None:
        if self.stopping.is_set():
            raise ToolError("the upload was ended: regwrap is being stopped")
        with self._lock:
            self._sent += count

    def _put(self, copy: Copy, manifest: Manifest | Index) -> None:
        dest, name = self.registry.dest, copy.entry.dest
        reference = name.tag or "" if manifest.digest == copy.digest else manifest.digest
        status, said = dest.probe.put_manifest(name.repository, reference, Body(manifest.media_type, manifest.raw))
        if status in {200, 201, 202} and not _is_page(said):
            return
        if status == 400 and copy.closure.omitted and isinstance(manifest, Index):
            raise ImagesFailedError(
                f"{dest.name} takes no part of an index, and {name} has some platforms only",
                detail=reason_of(said),
                hint="put all platforms into the bundle, deploy it into the registry's storage, or allow it there"
                " (distribution 3: validation.manifests.indexes)",
            )
        raise _refused(f"the manifest {manifest.digest.short} of {name}", dest.name, status, said)


@dataclass(frozen=True, slots=True)
class _Counted:
    """The same bytes; what is taken counts as sent."""

    bytes_of: Sendable
    on_bytes: Callable[[int], None]

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for data in self.bytes_of:
            self.on_bytes(len(data))
            yield data


@dataclass(frozen=True, slots=True)
class ContentsOrigin:
    """A bundle, or a storage."""

    contents: Contents

    @contextmanager
    def opened(self, copy: Copy, blob: Descriptor) -> Iterator[Sendable]:
        piece = self.contents.blob(copy.entry.source.repository, blob.digest)
        if piece is None:
            raise damaged(copy, blob)
        with piece.file:
            if piece.size != blob.size:
                raise damaged(copy, blob)
            yield _PieceBytes(piece, blob.digest)


@dataclass(frozen=True, slots=True)
class _PieceBytes:
    piece: Piece
    digest: Digest

    def __iter__(self) -> Iterator[bytes]:
        position, end = self.piece.offset, self.piece.offset + self.piece.size
        while position < end and (data := os.pread(self.piece.file.fileno(), min(_BLOCK, end - position), position)):
            position += len(data)
            yield data

    def is_right(self) -> bool:
        return self.piece.digest() == self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsOrigin:
    """Registries, through skopeo's pipes, and storages, whose files are read."""

    source_of: Callable[[ImageEntry], End]
    proxies: ImageProxies
    dest: Registry

    @contextmanager
    def opened(self, copy: Copy, blob: Descriptor) -> Iterator[Sendable]:
        source = self.source_of(copy.entry)
        if isinstance(source, StorageEnd):
            with ContentsOrigin(StorageContents(storage=source.storage)).opened(copy, blob) as bytes_of:
                yield bytes_of
        elif isinstance(source, RegistryEnd):
            leaf = next(leaf for leaf in copy.closure.leaves if blob in leaf.blobs)
            remote = Remote(registry=source.registry, repository=copy.entry.source.repository, reference=leaf.digest)
            # both turns at once, in the order that all take them in, or two copies might wait for each other
            with self.proxies.skopeo.gates.turns((source.registry, self.dest), 1):
                yield _StreamBytes(self.proxies, remote, blob)


@dataclass(frozen=True, slots=True)
class _StreamBytes:
    proxies: ImageProxies
    source: Remote
    blob: Descriptor

    def __iter__(self) -> Iterator[memoryview]:
        with self.proxies.turn(self.source, 1) as proxy:
            for _blob, data in proxy.blobs(self.source, (self.blob,)):
                yield data

    def is_right(self) -> bool:
        return True  # skopeo has hashed them: it ends with an error otherwise


def _is_page(said: bytes) -> bool:
    """Whether a web page answers in a registry's place: proxies say 200 with it."""
    return said.lstrip().startswith(b"<")


def damaged(copy: Copy, blob: Descriptor) -> IntegrityError:
    return IntegrityError(
        f"{copy.entry.dest}: blob {blob.digest} is damaged at the source",
        hint="regwrap verify names all that is damaged; copy the bundle again",
    )


def _named(error: ToolError, copy: Copy) -> ToolError:
    message = f"{copy.entry.dest}: {error.message}"
    return ToolError(message, detail=error.detail, hint=error.hint, transient=error.transient, host=error.host)


def _refused(what: str, host: str, status: int, said: bytes) -> ToolError:
    text = reason_of(said)
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, f"{status} {text}")), "")
    page = status == 200 and _is_page(said)
    passing = page or status == 408 or re.search("BLOB_UPLOAD_|DIGEST_INVALID", text) is not None
    return ToolError(f"{host} answered {status} to {what}", detail=text, hint=hint, transient=passing)
