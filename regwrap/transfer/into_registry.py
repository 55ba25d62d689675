"""Into any registry, from a bundle, a storage, or another registry: carrying one image.

Blobs go straight out of the tar, the file or the other registry's answer over kept-alive connections, then manifests,
children before parents, the tag last. What another repository there has is taken from it.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.by_repository import ImageSource, LocalSource, Piece, StorageSource
from regwrap.bundle.image_set import ImageSet
from regwrap.core.answers import Meaning
from regwrap.core.errors import ImagesFailedError, IntegrityError, ToolError
from regwrap.core.model import Descriptor, Digest, Index, Manifest
from regwrap.registry.answers import meaning_of, reason_of, refusal
from regwrap.registry.credentials import UnsureError
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.registry.exchange import Body
from regwrap.registry.uploads import Parcel
from regwrap.storage.hashing import pieces_at
from regwrap.transfer.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from threading import Event

    from regwrap.core.location import Registry, Timeouts
    from regwrap.core.model import Destination
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.registry.downloads import Downloads
    from regwrap.tools.rate_limit import HostLimiters
    from regwrap.transfer.blob_index import BlobIndex
    from regwrap.transfer.plan import Copy
    from regwrap.transfer.run import Carrier


PARTIAL_HINT: Final = (
    "push with --platform-index rewrite (the digest changes), pack all platforms, deploy into the registry's storage,"
    " or allow partial indexes there (distribution 3: validation.manifests.indexes)"
)


class Sendable(Protocol):
    """A blob's bytes. `anew`: they come once more for each try, and may have been damaged on their way."""

    @property
    def anew(self) -> bool: ...

    def pieces(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """Those from `start` up to `end`, each time anew; a piece is only good until the next. Raises what the carrier
        may."""

    def is_right(self) -> bool:
        """Whether they have the digest; asked when the registry says that they do not."""


class Origin(Protocol):
    """Where what is pushed comes from."""

    def opened(self, copy: Copy, blob: Descriptor) -> AbstractContextManager[Sendable]:
        """The blob's bytes, for the block. Raises IntegrityError and ToolError."""


@dataclass(slots=True, kw_only=True)
class PushCarrier:
    """Straight from `origin`: no program is started for an image, and what skopeo cannot push goes as all else does.

    `proof` asks for what was pushed, and raises where it is not what it should be. `fallback` copies an image where the
    probe is unsure. Once `stopping` is set no more is sent.
    """

    origin: Origin
    dest: RegistryEndpoint
    proof: Callable[[Copy], None]
    fallback: Carrier
    index: BlobIndex
    stopping: Event
    exclusive_repositories: bool = True
    meter: Meter = field(default_factory=Meter)
    _under_way: dict[Destination, int] = field(default_factory=dict)

    def carry(self, copy: Copy) -> None:
        repository = copy.entry.dest.repository
        try:
            self.bring_all(copy)
            for manifest in copy.closure.manifests:
                self._put(copy, manifest)
        except UnsureError:
            self.fallback.carry(copy)
            return
        finally:
            self._under_way.pop(copy.entry.dest, None)
        self.proof(copy)
        self.index.add(repository, (blob.digest for blob in copy.closure.blobs))

    def sent(self, copy: Copy) -> int:
        return self.meter.of(copy) + self.fallback.sent(copy)

    def bytes_under_way(self) -> int:
        return sum(list(self._under_way.values()))

    def bring_all(self, copy: Copy) -> None:
        """All blobs that the image lacks there."""
        for blob in copy.missing:
            self.bring(copy, blob)
            self.index.add(copy.entry.dest.repository, (blob.digest,))

    def bring(self, copy: Copy, blob: Descriptor) -> None:
        """Nothing travels where the repository has the blob by now, or another one gives it."""
        repository = copy.entry.dest.repository
        if self.index.has(repository, blob.digest):
            return
        other = self.index.other(repository, blob.digest)
        if other is not None and self.dest.probe.mount(repository, blob.digest, other):
            return
        with self.origin.opened(copy, blob) as bytes_of:
            self._upload(copy, blob, bytes_of)

    def _upload(self, copy: Copy, blob: Descriptor, bytes_of: Sendable) -> None:
        def pieces(start: int, end: int) -> _Counted:
            return _Counted(bytes_of, start, end, lambda count: self._count(copy, count))

        repository = copy.entry.dest.repository
        parcel = Parcel(repository=repository, digest=blob.digest, size=blob.size, pieces=pieces)
        try:
            answer = self.dest.probe.uploads.send(parcel)
        except ToolError as error:
            raise _named(error, copy) from error
        if answer.status == 201:
            return
        refused = refusal(self.dest.name, f"blob {blob.digest.short} of {copy.entry.dest}", answer)
        if answer.status == 400:
            if not bytes_of.is_right():
                raise damaged(copy, blob)
            refused.transient = refused.transient or bytes_of.anew
        raise refused

    def _count(self, copy: Copy, count: int) -> None:
        if self.stopping.is_set():
            raise ToolError("the upload was stopped: regwrap is stopping")
        self.meter.add(copy, count)
        self._under_way[copy.entry.dest] = self._under_way.get(copy.entry.dest, 0) + count

    def _put(self, copy: Copy, manifest: Manifest | Index) -> None:
        dest, name = self.dest, copy.entry.dest
        reference = name.tag if manifest.digest == copy.digest else manifest.digest
        answer = dest.probe.put_manifest(name.repository, reference, Body(manifest.media_type, manifest.raw))
        if answer.status in {200, 201, 202} and meaning_of(answer) is not Meaning.LOGIN_PAGE:
            return
        if answer.status == 400 and copy.closure.omitted and isinstance(manifest, Index):
            raise ImagesFailedError(
                partial_refusal(dest.name, copy.entry), detail=reason_of(answer.body), hint=PARTIAL_HINT
            )
        raise refusal(dest.name, f"the manifest {manifest.digest.short} of {name}", answer)


def partial_refusal(registry: str, entry: ImageEntry) -> str:
    return f"{registry} does not accept partial indexes, and {entry.dest} has some platforms only"


@dataclass(frozen=True, slots=True)
class _Counted:
    """Bytes to send, from the first each time they are read; `on_bytes` hears of each piece how many are taken."""

    bytes_of: Sendable
    start: int
    end: int
    on_bytes: Callable[[int], None]

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for data in self.bytes_of.pieces(self.start, self.end):
            self.on_bytes(len(data))
            yield data


@dataclass(frozen=True, slots=True)
class ContentsOrigin:
    """A bundle, or a storage."""

    contents: LocalSource

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
    anew: bool = False

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        return pieces_at(self.piece.file.fileno(), self.piece.offset + start, end - start)

    def is_right(self) -> bool:
        return self.piece.digest() == self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointsOrigin:
    """Registries, whose bytes are sent on as they come, and storages, whose files are read."""

    source_of: Callable[[ImageEntry], ImageSource]
    limiters: HostLimiters
    timeouts: Timeouts
    dest: Registry

    @contextmanager
    def opened(self, copy: Copy, blob: Descriptor) -> Iterator[Sendable]:
        source = self.source_of(copy.entry)
        if isinstance(source, StorageSource | ImageSet):
            with ContentsOrigin(source).opened(copy, blob) as bytes_of:
                yield bytes_of
        elif isinstance(source, RegistryEndpoint):
            # both slots at once, in the order that all take them in, or two copies might wait for each other
            with self.limiters.slots((source.registry, self.dest), 1):
                stream = _StreamBytes(source.probe.downloads, copy.entry.source.repository, blob, self.timeouts)
                try:
                    yield stream
                finally:
                    stream.close()


@dataclass(slots=True)
class _StreamBytes:
    """What a registry sends goes by once: what is asked for next is read on, for anything else it is asked again."""

    downloads: Downloads
    repository: str
    blob: Descriptor
    timeouts: Timeouts
    anew: bool = True
    _stream: Generator[memoryview] | None = None
    _at: int = 0
    _rest: memoryview | None = None

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        if self._stream is None or self._at != start:
            self.close()
            self._stream, self._at, self._rest = self._from(start), start, None
        stream = self._stream
        while self._at < end and (piece := self._rest or next(stream, None)) is not None:
            taken = piece[: end - self._at]
            self._at, self._rest = self._at + len(taken), piece[len(taken) :]
            yield taken
        if end == self.blob.size:
            yield from stream  # nothing; it is seen whether there is more

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def is_right(self) -> bool:
        """By asking for it once more: the registry that it was sent to says that it is not."""
        found = hashlib.sha256()
        for data in self._from(0):
            found.update(data)
        return found.hexdigest() == self.blob.digest.hex

    def _from(self, start: int) -> Generator[memoryview]:
        return self.downloads.pieces(self.repository, self.blob, start, self.timeouts)


def damaged(copy: Copy, blob: Descriptor) -> IntegrityError:
    return IntegrityError(
        f"{copy.entry.dest}: blob {blob.digest} is damaged at the source",
        hint="copy the bundle again; regwrap verify lists all damage",
    )


def _named(error: ToolError, copy: Copy) -> ToolError:
    message = f"{copy.entry.dest}: {error.message}"
    return ToolError(message, detail=error.detail, hint=error.hint, transient=error.transient, host=error.host)
