"""Into any registry, from a bundle, a storage, or another registry: where a run of blobs goes, and who sends them.

Blobs go straight out of the tar, the file or the other registry's answer over kept-alive connections, each to one
repository, from which the others that lack it take it. Then come manifests, children before parents, the tag last.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.core.answers import Meaning
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, ToolError
from regwrap.core.manifest import Index
from regwrap.core.writing import UnreadableError
from regwrap.registry.answers import meaning_of, reason_of, refusal
from regwrap.registry.credentials import UnsureError
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.registry.exchange import Body
from regwrap.registry.uploads import Parcel
from regwrap.storage.hashing import hashed, pieces_at, reading
from regwrap.transfer.by_curl import Endings
from regwrap.transfer.by_skopeo import prove

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from threading import Event

    from regwrap.bundle.by_repository import Piece
    from regwrap.core.location import Timeouts
    from regwrap.core.manifest import Descriptor, Manifest
    from regwrap.core.model import Destination, Digest
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.registry.downloads import Downloads
    from regwrap.tools.rate_limit import HostLimiters
    from regwrap.tools.retry import Retry
    from regwrap.transfer.blob_index import BlobIndex
    from regwrap.transfer.by_curl import BatchEvents, BlobSource, Travel
    from regwrap.transfer.needs import Need
    from regwrap.transfer.plan import Copy


PARTIAL_HINT: Final = (
    "push with --platform-index rewrite (the digest changes), pack all platforms, deploy into the registry's storage,"
    " or allow partial indexes there (distribution 3: validation.manifests.indexes)"
)


class Sendable(Protocol):
    """A blob's bytes. `anew`: they come once more for each try, and may have been damaged on their way."""

    @property
    def anew(self) -> bool: ...

    def pieces(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """Those from `start` up to `end`, each time anew; a piece is only good until the next. Raises what the copy
        may."""

    def is_valid(self) -> bool:
        """Whether they have the digest; asked when the registry says that they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryDestination:
    """A registry as where a run of blobs goes. docker-registry rewrites link files in place, so manifests of one
    repository are put one after the other."""

    dest: RegistryEndpoint
    source_of: Callable[[ImageEntry], BlobSource]
    alone: bool = True

    def keep(self) -> None:
        """What has come, the registry has."""

    def wanted(self, copy: Copy) -> Sequence[Descriptor]:
        """What the repository there lacks: it was asked."""
        return copy.missing

    def sources_of(self, need: Need) -> Iterator[tuple[BlobSource, str]]:
        return ((self.source_of(copy.entry), copy.entry.source.repository) for copy in need.copies)

    def check_room(self, copy: Copy) -> None:
        """It does not say how much it has."""

    def lane(self, copy: Copy, /) -> str:
        return copy.entry.dest.repository

    def finish(self, copies: Sequence[Copy]) -> None:
        """Children before parents, the tag last. Raises ImagesFailedError, too."""
        for copy in copies:
            for manifest in copy.closure.manifests:
                self._put(copy, manifest)

    def prove(self, copy: Copy) -> None:
        """Each blob was taken with a 201, sent or from another repository, and the registry has it once: so one that
        was looked at in one repository is not looked at in the next."""
        sizes = self.dest.sizes
        prove(self.dest, copy, tuple(blob for blob in copy.closure.blobs if sizes.get(blob.digest) != blob.size))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSender:
    """Puts blobs into repositories of a registry; `index` knows what they have. Once `stopping` is set no more is
    sent."""

    dest: RegistryEndpoint
    index: BlobIndex
    limiters: HostLimiters
    timeouts: Timeouts
    stopping: Event

    def send(self, travel: Travel, targets: Sequence[Destination]) -> dict[str, RegwrapError]:
        """Into the repositories of all `targets`: sent to one, from which the others take it. What a repository has by
        now is left out. Returns by repository why it does not have it: that concerns no other.

        Raises ToolError, IntegrityError and UnsureError, which concern all of them.
        """
        digest, refused = travel.blob.digest, dict[str, RegwrapError]()
        for target in targets:
            if self.index.has(target.repository, digest):
                continue
            try:
                self._send_to(travel, target)
            except _RefusedError as error:
                refused[target.repository] = error.why
            except ImagesFailedError as error:  # of a delta, what the registry does not give to this repository
                refused[target.repository] = error
            else:
                self.index.add(target.repository, (digest,))
        return refused

    def _send_to(self, travel: Travel, target: Destination) -> None:
        repository, digest = target.repository, travel.blob.digest
        other = self.index.other(repository, digest)
        if other is not None and self._is_mounted(repository, digest, other):
            return
        with self._opened(travel, target) as bytes_of:
            self._upload(travel, target, bytes_of)

    def _is_mounted(self, repository: str, digest: Digest, other: str) -> bool:
        """Whatever is said against it, the upload then hears. Raises ToolError for what passes, as a host that is
        away does."""
        try:
            return self.dest.probe.mount(repository, digest, other)
        except UnsureError:
            return False
        except ToolError as error:
            if error.transient:
                raise
            return False

    def _upload(self, travel: Travel, target: Destination, bytes_of: Sendable) -> None:
        at_source: list[RegwrapError] = []

        def pieces(start: int, end: int) -> _Counted:
            return _Counted(bytes_of, start, end, lambda count: self._count(travel, count), at_source)

        blob = travel.blob
        parcel = Parcel(
            repository=target.repository,
            digest=blob.digest,
            size=blob.size,
            pieces=pieces,
            unseen=self.dest.known.get(target.repository) is False,
        )
        try:
            answer = self.dest.probe.uploads.send(parcel)
        except UnsureError as error:
            raise error if error in at_source else _RefusedError(error) from error
        except ToolError as error:
            named, is_ours = _named(error, target), self.stopping.is_set()
            raise named if error.outage or error in at_source or is_ours else _RefusedError(named) from error
        if answer.status == 201:
            return
        refused = refusal(self.dest.name, f"blob {blob.digest.short} of {target}", answer)
        if answer.status == 400:
            if not bytes_of.is_valid():
                raise damaged(target, blob, travel.end)
            refused.transient = refused.transient or bytes_of.anew
        raise _RefusedError(refused)

    def _count(self, travel: Travel, count: int) -> None:
        if self.stopping.is_set():
            raise ToolError("the upload was stopped: regwrap is stopping")
        travel.came += count

    @contextmanager
    def _opened(self, travel: Travel, target: Destination) -> Iterator[Sendable]:
        """The blob's bytes, for the block."""
        source, blob = travel.end, travel.blob
        if isinstance(source, RegistryEndpoint):
            # both slots at once, in the order that all take them in, or two blobs might wait for each other
            with self.limiters.slots((source.registry, self.dest.registry), 1):
                stream = _StreamBytes(source.probe.downloads, travel.repository, blob, self.timeouts)
                try:
                    yield stream
                finally:
                    stream.close()
            return
        piece = source.blob(travel.repository, blob.digest)
        if piece is None:
            raise damaged(target, blob, source)
        with piece.file:
            if piece.size != blob.size:
                raise damaged(target, blob, source)
            yield _PieceBytes(piece, blob.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingFetcher:
    """Blobs by uploads of this process, each by a thread. `targets` are where each is lacking."""

    sender: BlobSender
    targets: Mapping[Digest, Sequence[Destination]]
    jobs: int
    retry: Retry

    @property
    def threads(self) -> int:
        return self.jobs

    def has_room(self, left: Sequence[int], parallel: int, _hosts: int, /) -> bool:
        return sum(left) < parallel

    def enough(self, _waiting: int, /) -> float:
        """Each alone."""
        return 1

    def fetch(self, travels: Sequence[Travel], events: BatchEvents, *, parallel: int) -> None:
        del parallel
        endings = Endings(events=events, retry=self.retry)
        for travel in travels:
            events.begun(travel)
            try:
                refused = self.sender.send(travel, wanted_targets(travel, self.targets))
            except (ToolError, IntegrityError, UnsureError) as error:
                travel.begins_anew()
                endings.fails(travel, error)
            else:
                if refused:
                    travel.begins_anew()
                    events.refused(travel, refused)
                else:
                    events.proved(travel)
        endings.wait_for_host()


def wanted_targets(travel: Travel, targets: Mapping[Digest, Sequence[Destination]]) -> tuple[Destination, ...]:
    """Without those whose images have failed meanwhile."""
    return tuple(target for target in targets[travel.blob.digest] if target.repository in travel.wanted_in)


def targets_of(copies: Iterable[Copy]) -> dict[Digest, tuple[Destination, ...]]:
    """Where each blob is lacking: one image of each repository."""
    found: dict[Digest, dict[str, Destination]] = {}
    for copy in copies:
        for blob in copy.missing:
            found.setdefault(blob.digest, {}).setdefault(copy.entry.dest.repository, copy.entry.dest)
    return {digest: tuple(targets.values()) for digest, targets in found.items()}


def partial_refusal(registry: str, entry: ImageEntry) -> str:
    return f"{registry} does not accept partial indexes, and {entry.dest} has some platforms only"


class _RefusedError(Exception):
    """The registry does not take the blob for this repository."""

    def __init__(self, why: RegwrapError) -> None:
        super().__init__(f"{why}")
        self.why = why


@dataclass(frozen=True, slots=True)
class _Counted:
    """Bytes to send, from the first each time they are read; `on_bytes` hears of each piece how many are taken, and
    `errors` has what ended them."""

    bytes_of: Sendable
    start: int
    end: int
    on_bytes: Callable[[int], None]
    errors: list[RegwrapError]

    def __iter__(self) -> Iterator[bytes | memoryview]:
        try:
            for data in self.bytes_of.pieces(self.start, self.end):
                self.on_bytes(len(data))
                yield data
        except RegwrapError as error:
            self.errors.append(error)
            raise


@dataclass(frozen=True, slots=True)
class _PieceBytes:
    piece: Piece
    digest: Digest
    anew: bool = False

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        with reading(self.digest):
            yield from pieces_at(self.piece.file.fileno(), self.piece.offset + start, end - start)

    def is_valid(self) -> bool:
        with suppress(UnreadableError):
            return self.piece.digest() == self.digest
        return False


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
            given = piece[: end - self._at]
            self._at, self._rest = self._at + len(given), piece[len(given) :]
            yield given
        if end == self.blob.size:
            yield from stream  # nothing; it is seen whether there is more

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def is_valid(self) -> bool:
        """By asking for it once more: the registry that it was sent to says that it is not."""
        return hashed(self._from(0)) == self.blob.digest

    def _from(self, start: int) -> Generator[memoryview]:
        return self.downloads.pieces(self.repository, self.blob, start, self.timeouts)


def damaged(target: Destination, blob: Descriptor, source: BlobSource) -> IntegrityError:
    hint = "copy the bundle again; regwrap verify lists all damage"
    if isinstance(source, RegistryEndpoint):
        hint = f"{source.name} gives other bytes than the digest says: push the image there again, or mend its storage"
    return IntegrityError(f"{target}: blob {blob.digest} is damaged at the source", hint=hint)


def _named(error: ToolError, target: Destination) -> ToolError:
    message = f"{target}: {error.message}"
    return ToolError(
        message,
        detail=error.detail,
        hint=error.hint,
        transient=error.transient,
        host=error.host,
        outage=error.outage,
    )
