"""Where the blobs lie that a delta requires: in other bundles, or in a storage.

What is found has the size that the delta says. Bytes are not verified here: who takes them hashes them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.files import Located
from regwrap.bundle.image_set import opened_file
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, UsageError
from regwrap.core.text import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from regwrap.bundle.contents import BundleImage, RequiredBlob
    from regwrap.bundle.read import Bundle
    from regwrap.core.model import Digest
    from regwrap.storage.store import Storage

BASE_HINT: Final = "give the bundles or the storage that have them with --base"
_SHOWN_BLOBS: Final = 20
_SHOWN_IMAGES: Final = 3


class Base(Protocol):
    """Blobs by digest."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def blob_size(self, digest: Digest) -> int | None:
        """None where it has no such blob."""

    def opened(self, digest: Digest) -> AbstractContextManager[tuple[int, Located]]:
        """A descriptor, and where in that file the blob's bytes are. Raises IntegrityError."""


@dataclass(frozen=True, slots=True)
class StorageBase:
    """A storage, which need not be there yet."""

    storage: Storage

    @property
    def name(self) -> str:
        return f"{self.storage.root}"

    def blob_size(self, digest: Digest) -> int | None:
        return self.storage.blob_size(digest)

    @contextmanager
    def opened(self, digest: Digest) -> Iterator[tuple[int, Located]]:
        size = self.storage.blob_size(digest) or 0
        with opened_file(self.storage, size, digest) as descriptor:
            yield descriptor, Located(0, size)


def refuse_bases(place: str, bases: Sequence[Path]) -> None:
    """Raises UsageError where there are some for what lacks nothing by intent: only a delta requires them."""
    if bases:
        raise UsageError(f"{place} is no delta: it is a storage or a registry", hint="leave out --base")


def based(bundle: Bundle, bases: Sequence[Base], *, hint: str) -> Bundle:
    """The bundle, with all that it requires found in one of the bases. Raises ImagesFailedError with each blob that is
    in none of them, and IntegrityError as `partly_based`. `hint` says what to do."""
    with_base = partly_based(bundle, bases)
    missing = _missing(with_base)
    if missing:
        raise missing_blobs(with_base, missing, ", ".join(base.name for base in bases), hint=hint)
    return with_base


def partly_based(bundle: Bundle, bases: Sequence[Base]) -> Bundle:
    """The bundle, with what it requires where one of the bases has it. Raises IntegrityError where a blob is there with
    another size only."""
    required = bundle.contents.required
    found = {blob.digest: base for blob in required if (base := _base_of(blob, bases)) is not None}
    with_base = replace(bundle, base=found)
    _refuse_sizes(bundle, _missing(with_base), bases)
    return with_base


def _missing(bundle: Bundle) -> list[RequiredBlob]:
    return [blob for blob in bundle.contents.required if blob.digest not in bundle.base]


def _base_of(blob: RequiredBlob, bases: Sequence[Base]) -> Base | None:
    return next((base for base in bases if base.blob_size(blob.digest) == blob.size), None)


def _refuse_sizes(bundle: Bundle, missing: Iterable[RequiredBlob], bases: Sequence[Base]) -> None:
    sizes = ((blob, base, base.blob_size(blob.digest)) for blob in missing for base in bases)
    problems = tuple(
        f"blob {blob.digest} has {size} bytes in {base.name}, {bundle.path} requires {blob.size}"
        for blob, base, size in sizes
        if size is not None
    )
    if problems:
        raise IntegrityError(
            f"{bundle.path} does not fit what is there; nothing was changed",
            problems=problems,
            hint="one of the two is damaged: regwrap verify tells which",
        )


def missing_blobs(bundle: Bundle, missing: Sequence[RequiredBlob], place: str, *, hint: str) -> ImagesFailedError:
    """What a delta requires and `place` does not have: each blob, its images, and the release that has it."""
    total = human_bytes(sum(blob.size for blob in missing))
    users, releases = users_of(bundle), sorted({blob.release for blob in missing if blob.release})
    lines = [missing_line(blob, users) for blob in missing[:_SHOWN_BLOBS]]
    more = len(missing) - len(lines)
    return ImagesFailedError(
        f"{bundle.path} requires {counted(len(bundle.contents.required), 'blob')} from elsewhere, and {place} lacks"
        f" {len(missing)} of them ({total}){_of(releases)}; nothing was changed",
        problems=(*lines, *([f"and {counted(more, 'more blob')}"] if more else [])),
        hint=hint,
    )


def _of(releases: list[str]) -> str:
    return f" of release {', '.join(releases)}" if releases else ""


def missing_line(blob: RequiredBlob, users: Mapping[Digest, Sequence[str]]) -> str:
    names = users.get(blob.digest, ())
    more = f" and {len(names) - _SHOWN_IMAGES} more" if len(names) > _SHOWN_IMAGES else ""
    release = f"; it is in release {blob.release}" if blob.release else ""
    of = f" of {', '.join(names[:_SHOWN_IMAGES])}" if names else ""  # a bundle that was altered has blobs of no image
    return f"blob {blob.digest} ({human_bytes(blob.size)}){of}{more}{release}"


def users_of(bundle: Bundle) -> dict[Digest, list[str]]:
    """The images that need each blob; where an image's manifests are not there, its repository."""
    found: dict[Digest, list[str]] = {}
    for image in bundle.contents.images:
        for digest in _closure_digests(bundle, image):
            found.setdefault(digest, []).append(image.name)
    for repository in bundle.contents.repositories:
        for digest in (*repository.manifests, *repository.layers):
            found.setdefault(digest, [repository.name])
    return found


def _closure_digests(bundle: Bundle, image: BundleImage) -> tuple[Digest, ...]:
    try:
        closure = bundle.closure(image)
    except RegwrapError:
        closure = None
    if closure is None:
        return (image.digest,)
    parts = (closure.manifests, closure.missing, closure.blobs)
    return tuple(dict.fromkeys(part.digest for items in parts for part in items))
