"""Decide what a sync does, from what was observed: a Copy or a Skip for each image, why, and in which order. Pure.

`--dry-run` prints the very values that the real run executes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from regwrap.core.errors import UsageError
from regwrap.core.location import Engine

if TYPE_CHECKING:
    from regwrap.core.closure import Closure
    from regwrap.core.manifest import Descriptor
    from regwrap.core.model import Digest
    from regwrap.lists.imagelist import ImageEntry


class Reason(StrEnum):
    """Why an image is copied or not, in the words that the user reads."""

    ABSENT = "not there yet"
    REPLACED = "the tag points to another image there"
    DAMAGED = "there, but damaged or incomplete: it is copied again"
    SAME = "already there, same digest"
    KEPT = "the tag points to another image there, and is kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """The engine that a plan is for, and why, in the words that the user reads."""

    engine: Engine
    why: str


def choose_engine(wanted: Engine, storage: str | None) -> EngineChoice:
    """What is measured to be the fastest for such a destination (docs/benchmarks.md), unless the user wants another.
    `storage` is its name, if it is one. Raises UsageError where the engine cannot copy into it."""
    if storage is not None and wanted in {Engine.SYNC, Engine.STREAM}:
        raise UsageError(
            f"the engine {wanted} copies between registries, and {storage} is a storage directory",
            hint="use --engine auto, curl or copy",
        )
    if storage is None and wanted is Engine.CURL:
        raise UsageError(
            "the engine curl copies into a storage directory, and the archive is a registry",
            hint="use --engine auto, stream, copy or sync",
        )
    if wanted is not Engine.AUTO:
        return EngineChoice(engine=wanted, why="as asked for")
    if storage is not None:
        return EngineChoice(engine=Engine.CURL, why="each blob once, many at a time, hashed before it counts")
    return EngineChoice(engine=Engine.STREAM, why="each blob once, from one registry straight into the other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """A tag of the source that is not `digest`, which counts: the lock says so, or it moved while it was copied.
    `now` is None where the tag is gone."""

    entry: ImageEntry
    digest: Digest
    now: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The destination has all of the image as it is at the source. `size` counts its manifests and blobs where that is
    known without asking; `blobs` are then its blobs. `drift`: its tag at the source, if that is another image."""

    entry: ImageEntry
    digest: Digest
    size: int | None = None
    blobs: tuple[Descriptor, ...] = field(default=(), compare=False)
    drift: Drifted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """The destination lacks the image, or a part of it. `there` is what its tag points to there now; `missing` are the
    blobs that are not there. `drift`: its tag at the source, if that is another image."""

    entry: ImageEntry
    digest: Digest
    there: Digest | None
    closure: Closure
    missing: tuple[Descriptor, ...]
    drift: Drifted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """An image that could not be observed; `error` goes to the report. `down`: the host that is, if that is why."""

    entry: ImageEntry
    error: str
    hint: str = ""
    down: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """`missing` are the blobs that have to travel. `replaced` is what the tag was before, where that is another
    image."""

    entry: ImageEntry
    digest: Digest
    reason: Reason
    closure: Closure
    missing: tuple[Descriptor, ...]
    replaced: Digest | None = None

    @property
    def bytes_missing(self) -> int:
        return sum(blob.size for blob in self.missing)

    @property
    def claims(self) -> frozenset[Digest]:
        return frozenset(blob.digest for blob in self.missing)

    def outline(self) -> dict[str, object]:
        return {
            "entry": self.entry,
            "digest": self.digest,
            "reason": self.reason,
            "bytes_missing": self.bytes_missing,
            "replaced": self.replaced,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """An image that is not copied. `size` in bytes, where it was looked at."""

    entry: ImageEntry
    digest: Digest
    reason: Reason
    size: int | None = None
    blobs: tuple[Descriptor, ...] = field(default=(), compare=False)

    def outline(self) -> dict[str, object]:
        return {"entry": self.entry, "digest": self.digest, "reason": self.reason, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`copies` in the order in which they should start; `skips`, `unseen` and `moved` in the list's order."""

    copies: tuple[Copy, ...]
    skips: tuple[Skip, ...]
    unseen: tuple[Unseen, ...]
    moved: tuple[Drifted, ...] = ()
    way: EngineChoice | None = None

    @property
    def bytes_missing(self) -> int:
        """Bytes that have to travel, each blob counted once."""
        return sum({b.digest: b.size for copy in self.copies for b in copy.missing}.values())


Observation = Whole | Lacking | Unseen


def make_plan(observations: tuple[Observation, ...], *, keep_tags: bool = False) -> Plan:
    """What has to be done. Big shared blobs first: the images that wait for them then find them. With `keep_tags` an
    image whose tag is another one there is left out."""
    copies, skips, unseen = list[Copy](), list[Skip](), list[Unseen]()
    for item in observations:
        match item:
            case Whole(entry=entry, digest=digest, size=size, blobs=blobs):
                skips.append(Skip(entry=entry, digest=digest, reason=Reason.SAME, size=size, blobs=blobs))
            case Lacking(entry=entry, there=there, digest=digest) if keep_tags and there not in {None, digest}:
                skips.append(Skip(entry=entry, digest=digest, reason=Reason.KEPT))
            case Lacking():
                copies.append(_copy(item))
            case Unseen():
                unseen.append(item)
            case _:
                assert_never(item)
    moved = tuple(item.drift for item in observations if not isinstance(item, Unseen) and item.drift is not None)
    return Plan(copies=tuple(_ordered(copies)), skips=tuple(skips), unseen=tuple(unseen), moved=moved)


def _copy(item: Lacking) -> Copy:
    damaged = Reason.DAMAGED if item.there == item.digest else Reason.REPLACED
    reason = Reason.ABSENT if item.there is None else damaged
    return Copy(
        entry=item.entry,
        digest=item.digest,
        reason=reason,
        closure=item.closure,
        missing=item.missing,
        replaced=item.there if reason is Reason.REPLACED else None,
    )


def _ordered(copies: list[Copy]) -> list[Copy]:
    wanted = Counter(digest for copy in copies for digest in copy.claims)

    def weight(copy: Copy) -> tuple[int, int, str]:
        shared = sum(blob.size for blob in copy.missing if wanted[blob.digest] > 1)
        return (-shared, -copy.bytes_missing, str(copy.entry.dest))

    return sorted(copies, key=weight)
