"""A delta that is pushed: each blob that it requires is in the registry, or in what was named as its base.

A blob is looked for in the repository itself, then in those that the release or its base links it to: from there the
registry takes it over. What is nowhere is named before anything is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.bundle.base import missing_blobs
from regwrap.bundle.read import Bundle
from regwrap.core.errors import ImagesFailedError
from regwrap.core.model import Digest
from regwrap.registry.credentials import UnsureError
from regwrap.transfer.plan import Lacking, Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from regwrap.bundle.base import Base
    from regwrap.bundle.by_repository import Piece
    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.image_set import ImageSet
    from regwrap.core.manifest import Descriptor
    from regwrap.lists.naming import Naming
    from regwrap.registry.endpoint import RegistryEndpoint

_HINT: Final = (
    "push the release that has them first, or the whole bundle; or name bundles or a storage that has them with --base"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSource:
    """The images of a delta, a `bundle` that knows what its bases have; other manifests that it requires come from the
    registry. `lost` are those that are nowhere, `unsure` why something could not be asked for."""

    bundle: Bundle
    image_set: ImageSet
    end: RegistryEndpoint
    naming: Naming
    bases: Sequence[Base]
    lost: set[Digest] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.image_set.name

    @property
    def contents(self) -> BundleContents:
        return self.image_set.contents

    def repositories(self) -> tuple[str, ...]:
        return self.image_set.repositories()

    def tags(self, repository: str) -> tuple[str, ...]:
        return self.image_set.tags(repository)

    def repositories_after(self, last: str) -> Iterator[str]:
        return self.image_set.repositories_after(last)

    def tags_after(self, repository: str, last: str) -> Iterator[str]:
        return self.image_set.tags_after(repository, last)

    def resolve(self, repository: str, tag: str) -> Digest | None:
        return self.image_set.resolve(repository, tag)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        if self.bundle.has(digest) or digest not in self.contents.sizes:
            return self.image_set.manifest(repository, digest)
        for other in self._repositories(repository, digest):
            raw = self.end.manifest(other, digest)
            if raw is not None and Digest.of(raw) == digest:
                return raw
        self.lost.add(digest)
        return None

    def config(self, repository: str, manifest: Digest, blob: Descriptor, /) -> bytes:
        if self.bundle.has(blob.digest):
            return self.image_set.config(repository, manifest, blob)
        return self.end.config(self.naming.of(repository), manifest, blob)

    def blob(self, repository: str, digest: Digest) -> Piece | None:
        """Raises ImagesFailedError for what the registry alone has: it was asked to take it over."""
        if self.bundle.has(digest) or digest not in self.contents.sizes:
            return self.image_set.blob(repository, digest)
        raise ImagesFailedError(
            f"{self.end.name} has blob {digest.short}, but does not give it to {self.naming.of(repository)}",
            hint="push with --base, so that the blob can be sent",
        )

    def elsewhere(self, observations: Iterable[Observation]) -> dict[Digest, str]:
        """Another repository there for each required blob that a repository lacks. Raises ImagesFailedError where what
        is required is nowhere."""
        found, lost = dict[Digest, str](), set(self.lost)
        required = {blob.digest for blob in self.bundle.contents.required}
        incomplete = (item for item in observations if isinstance(item, Lacking))
        needed = {b.digest: (item, b) for item in incomplete for b in item.missing if b.digest in required}
        for digest, (item, blob) in needed.items():
            other = self._repository_with(item, blob)
            if other is not None:
                found[digest] = other
            elif not self.bundle.has(digest):
                lost.add(digest)
        if lost:
            nowhere = [blob for blob in self.bundle.contents.required if blob.digest in lost]
            places = ", ".join((self.end.name, *(base.name for base in self.bases)))
            error = missing_blobs(self.bundle, nowhere, places, hint=_HINT)
            unasked = (f"{self.end.name} could not be asked for all of them: {why}" for why in sorted(self.unsure))
            error.problems = (*error.problems, *unasked)
            raise error
        return found

    def _repository_with(self, item: Lacking, blob: Descriptor) -> str | None:
        others = self._repositories(item.entry.source.repository, blob.digest)
        return next((other for other in others if self._has(other, blob)), None)

    def _has(self, other: str, blob: Descriptor) -> bool:
        try:
            return not self.end.missing(other, (blob,))
        except UnsureError as unsure:
            self.unsure.add(f"{unsure}")
            return False

    def _repositories(self, repository: str, digest: Digest) -> Iterator[str]:
        """Where the registry may have it: in the repository, then in others that link to it, by their names there."""
        yield self.naming.of(repository)
        named = (base.contents for base in self.bases if isinstance(base, Bundle))
        for contents in (self.contents, *named):
            yield from (self.naming.of(other) for other in contents.linked_by.get(digest, ()) if other != repository)
