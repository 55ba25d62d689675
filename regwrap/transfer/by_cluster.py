"""Blobs by the workers of a cluster: into the stage of a storage that all of them have, or into a registry.

The client holds the slots of the hosts while its workers use them, and hears from them when one wants less: so limits
count for the cluster as a whole.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import RegwrapError, ToolError
from regwrap.core.model import Descriptor, Digest
from regwrap.core.pool import map_in_order
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.transfer.by_curl import Endings, Left
from regwrap.transfer.into_registry import PushCarrier
from regwrap.transfer.orders import BlobOrder, FetchOrder, HashOrder, PushOrder, RegistryName, SendOrder, registry_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from regwrap.tools.rate_limit import HostLimiters
    from regwrap.tools.retry import Retry
    from regwrap.transfer.by_curl import BatchEvents, Travel
    from regwrap.transfer.endpoints import Endpoints
    from regwrap.transfer.orders import Answer, BlobAnswer, SharedFiles
    from regwrap.transfer.plan import Copy
    from regwrap.transfer.workers import Workers

    Sender = RegistryEndpoint | SharedFiles | None

_LEAST_BYTES: Final = 4 * 1024 * 1024
_MOST_BYTES: Final = 256 * 1024 * 1024
_ROUNDS: Final = 4  # what waits is given out in so many orders for each lane, so that all end together
_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFetcher:
    """Fetches into the stage of the storage at `root`."""

    workers: Workers
    ends: Endpoints
    root: Path
    retry: Retry

    @property
    def threads(self) -> int:
        return 1024

    def has_room(self, batches: Sequence[Left], parallel: int, hosts: int) -> bool:
        del parallel
        return len(batches) < max(1, self.workers.lanes // hosts)

    def enough(self, waiting: int) -> float:
        return _order_bytes(waiting, self.workers.lanes)

    def fetch(self, travels: Sequence[Travel], events: BatchEvents, *, parallel: int, left: Left) -> None:
        """As one curl does it here."""
        endings = Endings(events=events, left=left, retry=self.retry)
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
                _end(travel, said, endings)
        finally:
            for travel in travels:
                self.workers.hear(f"{travel.blob.digest}", None)
        endings.wait_for_host()

    def _answer(self, travels: Sequence[Travel], parallel: int) -> Answer:
        end = travels[0].end
        order = FetchOrder(
            run=self.workers.run,
            root=f"{self.root}",
            source=registry_name(self.ends.place_of(end)),
            blobs=tuple(
                BlobOrder(f"{travel.blob.digest}", travel.blob.size, travel.repository, travel.renewals)
                for travel in travels
            ),
            parallel=parallel,
        )
        with end.probe.limiter.slot(parallel) as started:
            answer = self.workers.answer(order)
        pass_on(answer, self.ends.limiters, started)
        if any(said.refusal is None for said in answer.blobs):
            end.probe.limiter.answered()
        return answer


def _hearing(travel: Travel, before: int, events: BatchEvents) -> Callable[[int], None]:
    is_told = False

    def hear(count: int) -> None:
        nonlocal is_told
        travel.came = before + count
        if not is_told:
            is_told = True
            events.begun(travel)

    return hear


def _end(travel: Travel, said: BlobAnswer, endings: Endings) -> None:
    events = endings.events
    if said.came:
        events.begun(travel)
    if said.refusal is not None:
        endings.fails(travel, said.refusal.error())
    elif said.again:
        endings.ends(lambda: events.again(travel))
    else:
        endings.ends(lambda: events.proved(travel))


def pass_on(answer: Answer, limiters: HostLimiters, started: float) -> None:
    """What hosts told a worker, to who gives out the work."""
    for pushed in answer.pushed_back:
        limiters.pushed_back(pushed.host, started, pushed.retry_after)


@dataclass(slots=True, kw_only=True)
class ClusterPushCarrier(PushCarrier):
    """The blobs by workers; manifests are put from here, once all blobs are there. An image is `sent_from` a registry,
    or from what all of them have by the same path; None: from here."""

    workers: Workers
    ends: Endpoints
    sent_from: Callable[[Copy], Sender]

    def bring_all(self, copy: Copy) -> None:
        source = self.sent_from(copy)
        if source is None:
            PushCarrier.bring_all(self, copy)
            return
        repository = copy.entry.dest.repository
        wanted = [blob for blob in copy.missing if not self.index.has(repository, blob.digest)]
        shares = shares_of(wanted, self.workers.lanes)
        if len(shares) < 2:
            for share in shares:
                self._bring(copy, source, share)
            return
        with ThreadPoolExecutor(len(shares), thread_name_prefix="order") as pool:
            for _done in pool.map(lambda share: self._bring(copy, source, share), shares):
                pass

    def _bring(self, copy: Copy, source: RegistryEndpoint | SharedFiles, blobs: Sequence[Descriptor]) -> None:
        """Raises what the first of them failed by; the others are there."""
        repository = copy.entry.dest.repository
        ends = (source, self.dest) if isinstance(source, RegistryEndpoint) else (self.dest,)
        with self.ends.limiters.slots((end.registry for end in ends), 1) as started:
            answer = self.workers.answer(self._order(copy, source, blobs))
        pass_on(answer, self.ends.limiters, started)
        self.meter.add(copy, sum(said.came for said in answer.blobs))
        failure: RegwrapError | None = None
        for said in answer.blobs:
            if said.refusal is None:
                self.index.add(repository, (Digest.parse(said.digest),))
            else:
                failure = failure or said.refusal.error()
        if failure is not None:
            raise failure

    def _order(self, copy: Copy, source: RegistryEndpoint | SharedFiles, blobs: Sequence[Descriptor]) -> PushOrder:
        to = copy.entry.dest.repository
        return PushOrder(
            run=self.workers.run,
            source=self._name(source) if isinstance(source, RegistryEndpoint) else source,
            dest=self._name(self.dest),
            blobs=tuple(
                SendOrder(
                    f"{blob.digest}",
                    blob.size,
                    copy.entry.source.repository,
                    to,
                    copy.entry.dest.tag,
                    self.index.other(to, blob.digest) or "",
                )
                for blob in blobs
            ),
        )

    def _name(self, end: RegistryEndpoint) -> RegistryName:
        return registry_name(self.ends.place_of(end))


def hash_by_workers(
    workers: Workers, root: Path, blobs: Sequence[tuple[Digest, int]], on_bytes: Callable[[int], None]
) -> frozenset[Digest]:
    """Those that have other bytes, of the storage at `root`, which the workers have by the same path."""
    known = [Descriptor(media_type="", digest=digest, size=size) for digest, size in blobs]

    def hashed(share: tuple[Descriptor, ...]) -> list[Digest]:
        order = HashOrder(run=workers.run, root=f"{root}", blobs=tuple((f"{blob.digest}", blob.size) for blob in share))
        answer = workers.answer(order)
        on_bytes(sum(said.came for said in answer.blobs))
        return [Digest.parse(said.digest) for said in answer.blobs if said.refusal is not None]

    shares = shares_of(known, workers.lanes)
    found = map_in_order(hashed, shares, workers=workers.lanes, name="order", stopping=workers.stopping)
    return frozenset(digest for digests in found for digest in digests)


def by_workers(
    carrier: PushCarrier,
    workers: Workers,
    ends: Endpoints,
    sent_from: Callable[[Copy], Sender],
) -> ClusterPushCarrier:
    """The same, with the blobs by workers."""
    return ClusterPushCarrier(
        origin=carrier.origin,
        dest=carrier.dest,
        proof=carrier.proof,
        fallback=carrier.fallback,
        index=carrier.index,
        stopping=carrier.stopping,
        workers=workers,
        ends=ends,
        sent_from=sent_from,
    )


def shares_of(blobs: Sequence[Descriptor], lanes: int) -> tuple[tuple[Descriptor, ...], ...]:
    """An image's blobs in orders: large ones alone, small ones together. Pure."""
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
