"""What waits to come from other hosts and from this machine, source by source, and which of it is next."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.transfer.under_way import BlobUnderWay

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regwrap.transfer.by_curl import BlobSource, Fetcher, Travel

# blobs of one start of curl: tokens live for minutes, and each blob has an open pipe
_BATCH: Final = 32
_BATCH_EACH: Final = 8  # for each that comes at the same time


@dataclass(slots=True, eq=False)
class BlobBatch:
    """Blobs of one source, `parallel` at a time. `left` of them have not come to an end."""

    travels: Sequence[Travel]
    parallel: int
    left: int


@dataclass(slots=True)
class HostQueue:
    """A source, and what waits to come from it."""

    waiting: deque[BlobUnderWay] = field(default_factory=deque)
    bytes_waiting: int = 0
    batches: list[BlobBatch] = field(default_factory=list)

    def add(self, item: BlobUnderWay) -> None:
        self.waiting.append(item)
        self.bytes_waiting += item.need.blob.size

    def pop(self) -> BlobUnderWay:
        item = self.waiting.popleft()
        self.bytes_waiting -= item.need.blob.size
        return item

    def put_back(self, items: list[BlobUnderWay]) -> None:
        """They stay the first, in their order."""
        self.waiting.extendleft(reversed(items))
        self.bytes_waiting += sum(item.need.blob.size for item in items)


@dataclass(slots=True, kw_only=True)
class HostQueues:
    """All of them, in the hands of one thread. They share `jobs`, which is how many blobs may come at the same time."""

    fetcher: Fetcher
    jobs: int
    _hosts: dict[str, HostQueue] = field(default_factory=dict)
    _under_way: dict[Travel, BlobBatch] = field(default_factory=dict)

    def add(self, item: BlobUnderWay) -> None:
        """To come by its latest travel."""
        self._hosts.setdefault(item.travel.end.name, HostQueue()).add(item)

    def ended(self, travel: Travel) -> None:
        """Whatever came of it, it leaves room for another one."""
        self._under_way.pop(travel).left -= 1

    def due(self) -> Iterator[BlobBatch]:
        """What should begin now; whoever takes a batch begins it."""
        busy = sum(1 for host in self._hosts.values() if host.waiting or host.batches)
        for host in self._hosts.values():
            parallel = max(1, self.jobs // max(1, busy))
            host.batches = [batch for batch in host.batches if batch.left]
            while host.waiting and self.fetcher.has_room([batch.left for batch in host.batches], parallel, busy):
                items = self._next(host, parallel)
                if not items:
                    break
                batch = _batch_of(items, parallel)
                host.batches.append(batch)
                self._under_way.update(dict.fromkeys(batch.travels, batch))
                yield batch

    def _next(self, host: HostQueue, parallel: int) -> list[BlobUnderWay]:
        """The next that are due. A host that wants its pace kept gets one request at a time."""
        now = time.monotonic()
        chosen, later, size = list[BlobUnderWay](), list[BlobUnderWay](), 0
        most = max(_BATCH, _BATCH_EACH * parallel)
        enough = self.fetcher.enough(host.bytes_waiting)
        while host.waiting and len(chosen) < most and size < enough:
            item = host.pop()
            if _keeps_pace(item.travel.end):
                most = 1
            if item.is_wanted:
                is_due = item.not_before <= now
                (chosen if is_due else later).append(item)
                size += item.need.blob.size * is_due
        host.put_back(later)
        return chosen


def _batch_of(items: Sequence[BlobUnderWay], parallel: int) -> BlobBatch:
    travels = [item.travel for item in items]
    for item, travel in zip(items, travels, strict=True):
        travel.wanted_in = frozenset(image.copy.entry.dest.repository for image in item.images)
    at_once = max(1, int(min(parallel, _limit_of(travels[0].end))))
    return BlobBatch(travels, at_once, len(travels))


def _keeps_pace(end: BlobSource) -> bool:
    return isinstance(end, RegistryEndpoint) and end.registry.requests_per_second is not None


def _limit_of(end: BlobSource) -> float:
    """How many of its blobs may come at the same time."""
    return end.probe.limiter.rate.limit if isinstance(end, RegistryEndpoint) else math.inf
