"""What a run of blobs keeps in mind: images that wait for blobs, and blobs that are needed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.transfer.needs import needs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from regwrap.transfer.blob_work import BlobDestination
    from regwrap.transfer.by_curl import BlobSource, Travel
    from regwrap.transfer.needs import Need
    from regwrap.transfer.plan import Copy


@dataclass(slots=True, kw_only=True, eq=False)
class ImageUnderWay:
    """`open` are the blobs that it waits for, `own_blobs` those that it was the first to need; `started` by the
    monotonic clock."""

    copy: Copy
    open: set[BlobUnderWay] = field(default_factory=set)
    own_blobs: list[BlobUnderWay] = field(default_factory=list)
    started: float | None = None
    attempts: int = 1

    @property
    def sent(self) -> int:
        return sum(item.sent for item in self.own_blobs)


@dataclass(slots=True, kw_only=True, eq=False)
class BlobUnderWay:
    """A blob that is needed, and where it can be had: `sources` are tried one after the other. `images` wait for it, in
    their order; a dict, since thousands may share a layer. `local` bytes were copied on this machine, of which `copied`
    count as sent. `is_due`: it has to come, for all that is known."""

    need: Need
    images: dict[ImageUnderWay, None]
    sources: deque[tuple[BlobSource, str]]
    is_due: bool
    travels: list[Travel] = field(default_factory=list)
    copied: int = 0
    local: int = 0
    attempt: int = 1
    not_before: float = 0

    @property
    def sent(self) -> int:
        return self.copied + sum(travel.came for travel in self.travels)

    @property
    def done(self) -> int:
        """What of it came in this run: a try that has to begin anew has fetched nothing."""
        done = self.local
        for travel in self.travels:  # hundreds of thousands are asked five times a second
            done += travel.came - travel.lost
        return done

    @property
    def left(self) -> int:
        """What of it is still to come."""
        if not self.is_due or not self.images:
            return 0
        size = self.need.blob.size
        return max(0, size - self.travels[-1].arrived) if self.travels else size

    @property
    def travel(self) -> Travel:
        return self.travels[-1]

    @property
    def is_wanted(self) -> bool:
        return bool(self.images)


def under_way(
    copies: Sequence[Copy], dest: BlobDestination, *, in_order: bool
) -> tuple[tuple[ImageUnderWay, ...], tuple[BlobUnderWay, ...]]:
    """All images, and the blobs that any of them needs, in the order in which they should come: of their digests, or
    the large ones first."""
    images = {copy.entry.dest: ImageUnderWay(copy=copy) for copy in copies}
    needs = needs_of(copies, dest.wanted)
    items = list[BlobUnderWay]()
    for need in sorted(needs, key=lambda need: need.blob.digest) if in_order else needs:
        users = dict.fromkeys(images[copy.entry.dest] for copy in need.copies)
        sources = _local_first(dest.sources_of(need))
        item = BlobUnderWay(need=need, images=users, sources=sources, is_due=not need.is_there)
        for image in users:
            image.open.add(item)
        images[need.first.entry.dest].own_blobs.append(item)
        items.append(item)
    return tuple(images.values()), tuple(items)


def _local_first(sources: Iterable[tuple[BlobSource, str]]) -> deque[tuple[BlobSource, str]]:
    """Those on this machine first."""
    found = {(id(source), name): (source, name) for source, name in sources}
    return deque(sorted(found.values(), key=lambda place: isinstance(place[0], RegistryEndpoint)))
