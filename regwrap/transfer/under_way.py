"""What a run of blobs keeps in mind: images that wait for blobs, blobs that wait for their turn, and for a host."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regwrap.core.model import Digest
    from regwrap.transfer.by_curl import End, Left, Travel
    from regwrap.transfer.needs import Need
    from regwrap.transfer.plan import Copy


@dataclass(slots=True, kw_only=True, eq=False)
class ImageUnderWay:
    """`open` are the blobs that it waits for, `brings` those that it was the first to need; `started` by the monotonic
    clock."""

    copy: Copy
    open: set[Digest]
    brings: list[BlobUnderWay] = field(default_factory=list)
    started: float | None = None
    attempts: int = 1

    @property
    def sent(self) -> int:
        return sum(item.sent for item in self.brings)

    @property
    def arrived(self) -> int:
        return sum(item.arrived for item in self.brings)


@dataclass(slots=True, kw_only=True, eq=False)
class BlobUnderWay:
    """A blob that is needed, and where it can be had: `places` are tried one after the other. `images` wait for it, in
    their order; a dict, since thousands may share a layer."""

    need: Need
    images: dict[ImageUnderWay, None]
    places: deque[tuple[End, str]]
    travels: list[Travel] = field(default_factory=list)
    copied: int = 0
    attempt: int = 1
    not_before: float = 0

    @property
    def sent(self) -> int:
        return self.copied + sum(travel.came for travel in self.travels)

    @property
    def arrived(self) -> int:
        """What of it is there: a try that has to begin anew has brought nothing."""
        return self.sent - sum(travel.lost for travel in self.travels)

    @property
    def travel(self) -> Travel:
        return self.travels[-1]

    @property
    def is_wanted(self) -> bool:
        return bool(self.images)


@dataclass(slots=True)
class HostQueue:
    """A source, and what waits to come from it."""

    waiting: deque[BlobUnderWay] = field(default_factory=deque)
    bytes_waiting: int = 0
    batches: list[Left] = field(default_factory=list)

    def add(self, item: BlobUnderWay) -> None:
        self.waiting.append(item)
        self.bytes_waiting += item.need.blob.size

    def take(self) -> BlobUnderWay:
        item = self.waiting.popleft()
        self.bytes_waiting -= item.need.blob.size
        return item

    def put_back(self, items: list[BlobUnderWay]) -> None:
        """They stay the first, in their order."""
        self.waiting.extendleft(reversed(items))
        self.bytes_waiting += sum(item.need.blob.size for item in items)
