"""Look at both ends of each image and change nothing: Whole, Lacking, or Unseen with the reason.

A tag is resolved once, here; everything after names the digest, so a tag that moves meanwhile is one version.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.image_set import ImageSet
from regwrap.core.answers import Meaning
from regwrap.core.closure import Closure, Fetch, check_platform, closure_of
from regwrap.core.errors import HostDownError, ImagesFailedError, IntegrityError, RegwrapError, ToolError
from regwrap.core.model import Digest, Platform
from regwrap.registry.credentials import UnsureError
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.storage import layout
from regwrap.transfer.plan import Drifted, Lacking, Observation, Unseen, Whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regwrap.bundle.by_repository import ImageSource
    from regwrap.core.manifest import Descriptor
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.storage.store import ValidBlobs
    from regwrap.tools.retry import Retry
    from regwrap.transfer.job import Job


_There = Callable[[], Digest | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """`source_of` says where an entry comes from; `valid` what the destination's storage has, if it is one; `gave_up`
    whether a host is down, when an image was tried to the end; `is_immutable` which tags never move at the
    destination. `brief`: a repository that the destination does not know lacks all, without a question for each blob;
    what an interrupted push has left there is found when it would be sent."""

    source_of: Callable[[ImageEntry], ImageSource]
    dest: RegistryEndpoint | StorageSource
    retry: Retry
    valid: ValidBlobs | None
    gave_up: Callable[[ToolError], ToolError]
    is_immutable: Callable[[str, str], bool]
    brief: bool

    def observe_images(self, entries: tuple[ImageEntry, ...], job: Job) -> tuple[Observation, ...]:
        """All of them, in the list's order."""

        def observe(entry: ImageEntry, there: _There) -> Observation:
            try:
                return self._observed(entry, there)
            finally:
                job.listener.on_things()

        def look(entry: ImageEntry) -> Iterator[Callable[[], Observation | None]]:
            there: _There = partial(self._there, entry)
            if isinstance(self.dest, RegistryEndpoint):  # both ends are asked at the same time
                there = _Early(there)
                yield there.ask
            yield partial(observe, entry, there)

        job.listener.count("look", "images at both ends", len(entries))
        work = [one for entry in entries for one in look(entry)]
        return tuple(found for found in job.ask(lambda one: one(), work) if found is not None)

    def observe(self, entry: ImageEntry) -> Observation:
        return self._observed(entry, partial(self._there, entry))

    def _observed(self, entry: ImageEntry, there: _There) -> Observation:
        try:
            return self.retry.call(lambda: self._observe(entry, there))
        except (ToolError, IntegrityError, ImagesFailedError, UnsureError) as error:
            last = self.gave_up(error) if isinstance(error, ToolError) else error
            down = last.host if isinstance(last, HostDownError) else ""
            return Unseen(entry=entry, error=str(last), hint=last.hint, down=down)

    def _there(self, entry: ImageEntry) -> Digest | None:
        return self.dest.resolve(entry.dest.repository, entry.dest.tag)

    def _observe(self, entry: ImageEntry, ask: _There) -> Whole | Lacking:
        source, dest = self.source_of(entry), entry.dest
        fixed, is_new = self.is_immutable(dest.repository, dest.tag), self._is_new(dest.repository)
        there = ask() if fixed else None
        if there is not None and entry.source.digest in {None, there} and (whole := self._complete(entry, there)):
            return whole  # whatever its source has by now: it is not asked
        tops: dict[Digest, bytes] = {}
        digest = source_digest(source, entry, tops if is_new else None)
        if there not in {None, digest}:
            raise ImagesFailedError(
                f"{dest} is immutable: it is {there} there, the source has {digest}",
                hint="give the image another tag, or change immutable: in the configuration",
            )
        drift = drift_of(source, entry, digest) if entry.locked else None
        there = there if fixed else ask()
        whole = self._complete(entry, digest) if there == digest else None
        if whole is not None:
            return replace(whole, drift=drift)
        closure = self._closure(source, entry, digest, tops)
        missing = self._missing(closure, dest.repository, there)
        return Lacking(entry=entry, digest=digest, there=there, closure=closure, missing=missing, drift=drift)

    def _is_new(self, repository: str) -> bool:
        """Whether a storage has nothing of a repository: then all of its images will be fetched."""
        if isinstance(self.dest, RegistryEndpoint):
            return False
        return self.dest.storage.tree.stat(layout.repository_path(repository)) is None

    def _closure(self, source: ImageSource, entry: ImageEntry, digest: Digest, tops: Mapping[Digest, bytes]) -> Closure:
        """All of the image at its source. Raises ImagesFailedError where it cannot be had, or cannot be copied."""
        repository = entry.source.repository

        def fetch(wanted: Digest) -> bytes | None:
            return tops.get(wanted) or self._known(wanted) or source.manifest(repository, wanted)

        closure = complete_closure(digest, fetch, entry.platforms)
        if closure is None:
            raise _absent(source, f"manifest {digest} of {repository}")
        check_platform(closure, entry.platforms, lambda blob: source.config(repository, closure.top.digest, blob))
        _refuse_absent_layers(source, repository, closure)
        return closure

    def _complete(self, entry: ImageEntry, digest: Digest) -> Whole | None:
        """The image, if all of it is there; with its blobs where they can be seen."""
        if isinstance(self.dest, RegistryEndpoint) or self.valid is None:
            # its storage cannot be looked into; each copy is proved when it is made
            return Whole(entry=entry, digest=digest)
        storage, repository, valid = self.dest.storage, entry.dest.repository, self.valid
        try:
            closure = storage.closure(repository, digest, entry.platforms)
        except RegwrapError:
            return None
        if closure is None or closure.missing or _attestations_missing(closure):
            return None
        if not storage.has_tag(repository, entry.dest.tag, digest):
            return None
        if not all(valid.has_in(repository, blob) for blob in closure.blobs):
            return None
        return Whole(entry=entry, digest=digest, size=closure.size, blobs=closure.blobs)

    def _known(self, digest: Digest) -> bytes | None:
        """A manifest that the destination's storage has already, verified: it need not travel."""
        if isinstance(self.dest, RegistryEndpoint):
            return None
        with suppress(IntegrityError):
            raw = self.dest.storage.read_blob(digest)
            return raw if raw is not None and Digest.of(raw) == digest else None
        return None

    def _missing(self, closure: Closure, repository: str, there: Digest | None) -> tuple[Descriptor, ...]:
        if isinstance(self.dest, RegistryEndpoint):
            if self.brief and there is None and self.dest.is_new(repository):
                return closure.blobs
            with suppress(UnsureError):
                return self.dest.missing(repository, closure.blobs)
        if self.valid is None:
            return closure.blobs
        return tuple(blob for blob in closure.blobs if not self.valid.has(blob))


@dataclass(slots=True)
class _Early:
    """What `question` says, asked by one thread for another, whichever of them comes first. Who comes for it again has
    it asked anew, since he has been told a failure, or too old an answer."""

    question: _There
    said: Future[Digest | None] = field(default_factory=Future)
    is_used: bool = False

    def ask(self) -> None:
        try:
            self.said.set_result(self.question())
        except (RegwrapError, UnsureError) as error:
            self.said.set_exception(error)
        finally:
            self.said.cancel()  # of no effect after an answer; without one nobody waits in vain

    def __call__(self) -> Digest | None:
        if self.is_used:
            return self.question()
        self.is_used = True
        return self.said.result()


def _attestations_missing(closure: Closure) -> bool:
    """Whether it was copied when attestations of chosen platforms were left out."""
    return any(child.subject in {manifest.digest for manifest in closure.manifests} for child in closure.omitted)


def _absent(source: ImageSource, what: str) -> ImagesFailedError:
    hint = Meaning.ABSENT.hint if isinstance(source, RegistryEndpoint) else ""
    return ImagesFailedError(f"{source.name} has no {what}", hint=hint)


def source_digest(source: ImageSource, entry: ImageEntry, tops: dict[Digest, bytes] | None = None) -> Digest:
    """What the entry means at its source now: its tag is resolved, unless a lock has fixed it. Raises.

    Who will need the manifest anyway gives `tops` for it: one GET instead of a HEAD and a GET.
    """
    image = entry.source
    if image.digest is not None and (entry.locked or image.tag is None):
        return image.digest
    digest = _resolved(source, image.repository, image.tag or "", tops)
    if digest is None:
        raise _absent(source, f"{image.repository}:{image.tag}")
    if image.digest is not None and digest != image.digest:
        raise ImagesFailedError(
            f"{source.name}: {image.repository}:{image.tag} is {digest} now, the list says {image.digest}",
            hint="update the digest in the list, or ask who moved the tag",
        )
    return digest


def _resolved(source: ImageSource, repository: str, tag: str, tops: dict[Digest, bytes] | None) -> Digest | None:
    if tops is None or not isinstance(source, RegistryEndpoint):
        return source.resolve(repository, tag)
    found = source.tagged(repository, tag)
    if found is None:
        return None
    digest, raw = found
    if Digest.of(raw) == digest:  # else the digest is asked for, which the registry named
        tops[digest] = raw
    return digest


def drift_of(source: ImageSource, entry: ImageEntry, digest: Digest) -> Drifted | None:
    """Whether the entry's tag points elsewhere now. None also where that cannot be told: it is only worth a note."""
    if entry.source.tag is None:
        return None
    try:
        now = source.resolve(entry.source.repository, entry.source.tag)
    except RegwrapError:
        return None
    return None if now == digest else Drifted(entry=entry, digest=digest, now=now)


def complete_closure(top: Digest, fetch: Fetch, platforms: tuple[Platform, ...]) -> Closure | None:
    """All that belongs to an image; None where its top is absent. Raises where a part is."""
    closure = closure_of(top, fetch, platforms)
    if closure is not None and closure.missing:
        absent = ", ".join(f"{child.platform or 'a manifest'} ({child.digest.short})" for child in closure.missing)
        raise ImagesFailedError(
            f"index {top.short} has missing manifests: {absent}",
            hint="push the image again, or select the existing platforms with platform=…",
        )
    return closure


def _refuse_absent_layers(source: ImageSource, repository: str, closure: Closure) -> None:
    """Layers that no registry has to hold (Windows base layers) may be there all the same: the source is asked."""
    foreign = tuple(blob for blob in closure.blobs if blob.is_foreign)
    absent = _absent_of(source, repository, foreign) if foreign else ()
    if absent:
        raise ImagesFailedError(
            f"layer {absent[0].digest.short} is not in {source.name}: it is stored elsewhere (a Windows base layer)",
            hint="select other platforms (platform=linux/amd64), push the image with all its layers, or drop it",
        )


def _absent_of(source: ImageSource, repository: str, blobs: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
    if isinstance(source, StorageSource | ImageSet):
        return tuple(blob for blob in blobs if not _has(source, repository, blob))
    with suppress(UnsureError):  # who fetches them will see
        return source.missing(repository, blobs) if isinstance(source, RegistryEndpoint) else ()
    return ()


def _has(source: StorageSource | ImageSet, repository: str, blob: Descriptor) -> bool:
    piece = source.blob(repository, blob.digest)
    if piece is None:
        return False
    with piece.file:
        return piece.size == blob.size
