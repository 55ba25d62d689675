"""Blobs by the workers of a cluster: into the stage of a storage that all of them have, or into a registry.

The client holds the slots of the hosts while its workers use them, and hears from them when one wants less: so limits
count for the cluster as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.core.errors import ToolError
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.core.pool import map_in_order
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.transfer.by_curl import Endings
from regwrap.transfer.into_registry import wanted_targets
from regwrap.transfer.orders import BlobOrder, FetchOrder, HashOrder, PushOrder, RegistryName, SendOrder, registry_name

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from regwrap.bundle.by_repository import LocalSource
    from regwrap.core.model import Destination
    from regwrap.tools.rate_limit import HostLimiters
    from regwrap.tools.retry import Retry
    from regwrap.transfer.blob_index import BlobIndex
    from regwrap.transfer.by_curl import BatchEvents, BlobSource, Fetcher, Travel
    from regwrap.transfer.endpoints import Endpoints
    from regwrap.transfer.orders import Answer, BlobAnswer, SharedFiles
    from regwrap.transfer.workers import Workers

_LEAST_BYTES: Final = 4 * 1024 * 1024
_MOST_BYTES: Final = 256 * 1024 * 1024
_ROUNDS: Final = 4  # what waits is given out in so many orders for each lane, so that all end together
_AT_ONCE: Final = 32


class Orders(Protocol):
    """Where workers put blobs."""

    def order(self, travels: Sequence[Travel], parallel: int, /) -> FetchOrder | PushOrder: ...

    def slots(self, travels: Sequence[Travel], parallel: int, /) -> AbstractContextManager[float]:
        """Those of the hosts that take part, for the block."""

    def proved(self, travel: Travel, but: Container[str] = ()) -> None:
        """A worker has proved the blob there, in all repositories but these."""

    def failed(self, travel: Travel) -> None:
        """A worker could not fetch it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntoStage:
    """The stage of the storage at `root`."""

    workers: Workers
    endpoints: Endpoints
    root: Path

    def order(self, travels: Sequence[Travel], parallel: int, /) -> FetchOrder:
        return FetchOrder(
            run=self.workers.run,
            root=f"{self.root}",
            source=registry_name(self.endpoints.location_of(travels[0].registry)),
            blobs=tuple(
                BlobOrder(f"{travel.blob.digest}", travel.blob.size, travel.repository, travel.renewals)
                for travel in travels
            ),
            parallel=parallel,
        )

    def slots(self, travels: Sequence[Travel], parallel: int, /) -> AbstractContextManager[float]:
        return self.endpoints.limiters.slots((travels[0].registry.registry,), parallel)

    def proved(self, travel: Travel, but: Container[str] = ()) -> None:
        """It is staged."""

    def failed(self, travel: Travel) -> None:
        """What came is staged, and gone on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntoRegistry:
    """The repositories of `targets`. What lies on this machine all workers have too, as `shared`."""

    workers: Workers
    endpoints: Endpoints
    dest: RegistryEndpoint
    index: BlobIndex
    targets: Mapping[Digest, Sequence[Destination]]
    shared: Callable[[LocalSource], SharedFiles | None]

    def order(self, travels: Sequence[Travel], _parallel: int, /) -> PushOrder:
        """A worker sends one after the other."""
        return PushOrder(
            run=self.workers.run,
            source=self._source(travels[0].end),
            dest=registry_name(self.endpoints.location_of(self.dest)),
            blobs=tuple(map(self._send_order, travels)),
        )

    def _source(self, end: BlobSource) -> RegistryName | SharedFiles:
        if isinstance(end, RegistryEndpoint):
            return registry_name(self.endpoints.location_of(end))
        if (files := self.shared(end)) is None:
            raise TypeError(f"{end.name} is on this machine alone")
        return files

    def _send_order(self, travel: Travel) -> SendOrder:
        digest = travel.blob.digest
        wanted = wanted_targets(travel, self.targets)
        missing = tuple(to for to in wanted if not self.index.has(to.repository, digest))
        mount = self.index.other(missing[0].repository, digest) if missing else None
        new = tuple(to.repository for to in missing if self.dest.known.get(to.repository) is False)
        return SendOrder(f"{digest}", travel.blob.size, travel.repository, missing, mount or "", new)

    def slots(self, travels: Sequence[Travel], _parallel: int, /) -> AbstractContextManager[float]:
        end = travels[0].end
        sources = (end.registry,) if isinstance(end, RegistryEndpoint) else ()
        return self.endpoints.limiters.slots((*sources, self.dest.registry), 1)

    def proved(self, travel: Travel, but: Container[str] = ()) -> None:
        for target in wanted_targets(travel, self.targets):
            if target.repository not in but:
                self.index.add(target.repository, (travel.blob.digest,))

    def failed(self, travel: Travel) -> None:
        travel.begins_anew()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFetcher:
    """Blobs by workers. `own` fetches here what only this machine has."""

    workers: Workers
    limiters: HostLimiters
    orders: Orders
    retry: Retry
    own: Callable[[BlobSource], Fetcher | None] = lambda _end: None

    @property
    def threads(self) -> int:
        return 1024

    def has_room(self, left: Sequence[int], _parallel: int, hosts: int, /) -> bool:
        return len(left) < max(1, self.workers.lanes // hosts)

    def enough(self, waiting: int) -> float:
        return _order_bytes(waiting, self.workers.lanes)

    def fetch(self, travels: Sequence[Travel], events: BatchEvents, *, parallel: int) -> None:
        """As it is done here."""
        if (own := self.own(travels[0].end)) is not None:
            own.fetch(travels, events, parallel=parallel)
            return
        endings = Endings(events=events, retry=self.retry)
        before = [travel.came for travel in travels]
        for travel, count in zip(travels, before, strict=True):
            self.workers.hear(f"{travel.blob.digest}", _hearing(travel, count, events))
        try:
            answer = self._answer(travels, parallel)
        except ToolError as error:
            for travel in travels:
                endings.fails(travel, error)
        else:
            for travel, count, said in zip(travels, before, answer.blobs, strict=True):
                travel.came, travel.renewals = count + said.came, said.renewals
                self._end(travel, said, endings)
        finally:
            for travel in travels:
                self.workers.hear(f"{travel.blob.digest}", None)
        endings.wait_for_host()

    def _answer(self, travels: Sequence[Travel], parallel: int) -> Answer:
        with self.orders.slots(travels, parallel) as started:
            answer = self.workers.answer(self.orders.order(travels, parallel))
        for pushed in answer.pushed_back:
            self.limiters.pushed_back(pushed.host, started, pushed.retry_after)
        end = travels[0].end
        if isinstance(end, RegistryEndpoint) and any(said.refusal is None for said in answer.blobs):
            end.probe.limiter.answered()
        return answer

    def _end(self, travel: Travel, said: BlobAnswer, endings: Endings) -> None:
        events = endings.events
        if said.came:
            events.begun(travel)
        if said.refusal is not None:
            self.orders.failed(travel)
            endings.fails(travel, said.refusal.error())
        elif said.again:
            events.again(travel)
        elif said.refused:
            errors = {repository: refusal.error() for repository, refusal in said.refused}
            self.orders.proved(travel, errors)
            events.refused(travel, errors)
        else:
            self.orders.proved(travel)
            events.proved(travel)


def _hearing(travel: Travel, before: int, events: BatchEvents) -> Callable[[int], None]:
    has_begun = False

    def hear(count: int) -> None:
        nonlocal has_begun
        travel.came = before + count
        if not has_begun:
            has_begun = True
            events.begun(travel)

    return hear


def hash_by_workers(
    workers: Workers, root: Path, blobs: Sequence[tuple[Digest, int]], on_bytes: Callable[[int], None]
) -> dict[Digest, str]:
    """Those that have other bytes, of the storage at `root`, which the workers have by the same path; and why, where
    they cannot be read."""
    known = [Descriptor(media_type="", digest=digest, size=size) for digest, size in blobs]

    def hashed(share: tuple[Descriptor, ...]) -> dict[Digest, str]:
        order = HashOrder(run=workers.run, root=f"{root}", blobs=tuple((f"{blob.digest}", blob.size) for blob in share))
        answer = workers.answer(order)
        on_bytes(sum(blob.size for blob in share))
        return {Digest.parse(said.digest): said.refusal.detail for said in answer.blobs if said.refusal is not None}

    shares = shares_of(known, workers.lanes)
    found = map_in_order(hashed, shares, workers=workers.lanes, name="order", stopping=workers.stopping)
    return {digest: why for wrong in found for digest, why in wrong.items()}


def shares_of(blobs: Sequence[Descriptor], lanes: int) -> tuple[tuple[Descriptor, ...], ...]:
    """Blobs in orders: large ones alone, small ones together. Pure."""
    enough = _order_bytes(sum(blob.size for blob in blobs), lanes)
    shares, size = list[list[Descriptor]](), 0
    for blob in sorted(blobs, key=lambda blob: (-blob.size, blob.digest)):
        if not shares or size >= enough or len(shares[-1]) >= _AT_ONCE:
            shares.append([])
            size = 0
        shares[-1].append(blob)
        size += blob.size
    return tuple(map(tuple, shares))


def _order_bytes(waiting: int, lanes: int) -> int:
    return min(max(_LEAST_BYTES, waiting // (_ROUNDS * lanes)), _MOST_BYTES)
