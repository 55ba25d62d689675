"""Blobs of one registry into a stage, by one start of curl for many of them."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.core.errors import HostDownError, RegwrapError, ToolError
from regwrap.registry.credentials import UnsureError
from regwrap.registry.downloads import DISGUISES, UNSUPPORTED_RANGE, Downloads
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.tools.curl import Curl, Download, DownloadOutcome, Route
from regwrap.transfer.fetch import damaged_on_the_way

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from regwrap.bundle.by_repository import LocalSource
    from regwrap.core.manifest import Descriptor
    from regwrap.tools.retry import Retry

    BlobSource = RegistryEndpoint | LocalSource

_MOST_RENEWALS: Final = 6


@dataclass(slots=True, kw_only=True, eq=False)
class Travel:
    """A blob on its way from `repository` of `end`. `came` counts all bytes of it that travelled, `lost` those of them
    that have to travel again, `before` what was there when it began; `renewals` are tokens that were got for it since
    its last byte. `wanted_in`: the repositories of the destination whose images still wait for it."""

    blob: Descriptor
    end: BlobSource
    repository: str
    came: int = 0
    lost: int = 0
    before: int = 0
    renewals: int = 0
    wanted_in: frozenset[str] = frozenset()
    _latest: float | None = None

    def may_wait(self, seconds: float) -> bool:
        """A host that comes and goes is no reason to try for ever."""
        now = time.monotonic()
        self._latest = self._latest or now + 2 * seconds
        return now < self._latest

    def begins_anew(self) -> None:
        """Nothing of what came is of use."""
        self.lost, self.before = self.came, 0

    @property
    def arrived(self) -> int:
        """How much of it is there."""
        return self.before + self.came - self.lost

    @property
    def where(self) -> str:
        return f"{self.end.name}/{self.repository}"

    @property
    def registry(self) -> RegistryEndpoint:
        """The end, which is one: what lies on this machine is not fetched."""
        if not isinstance(self.end, RegistryEndpoint):
            raise TypeError(f"{self.end.name} is no registry")
        return self.end


class BatchEvents(Protocol):
    """What a batch tells while it goes on, from its thread."""

    def begun(self, travel: Travel) -> None:
        """Its first byte is there."""

    def complete(self, travel: Travel) -> None:
        """All its bytes are in the stage; nobody has hashed them."""

    def proved(self, travel: Travel) -> None:
        """The same, and where it was fetched it was hashed as well."""

    def again(self, travel: Travel) -> None:
        """It did not fail and has to be asked for once more: with another token, from its start, after an outage."""

    def is_wanted(self) -> bool:
        """Whether anybody waits for what is left."""

    def failed_to_come(self, travel: Travel, error: RegwrapError) -> None: ...

    def refused(self, travel: Travel, errors: Mapping[str, RegwrapError]) -> None:
        """By repository of a registry, why it does not get it; all others have it now."""


class PartFiles(Protocol):
    """Where the bytes of blobs lie until all have come."""

    def arrived(self, blob: Descriptor) -> int:
        """How many of them are there, from the first one on."""

    def place(self, blob: Descriptor, /) -> int:
        """Where its first byte belongs in the file that `open_part` gives."""

    def open_part(self, blob: Descriptor, /) -> int:
        """A descriptor to write the rest to, which whoever gets it closes."""

    def came(self, blob: Descriptor, count: int) -> None:
        """So many bytes more were written."""

    def forget(self, blob: Descriptor) -> None:
        """What is there of it is wrong."""


class Fetcher(Protocol):
    """Who moves batches of blobs: a curl, uploads from here, or a cluster's workers."""

    @property
    def threads(self) -> int:
        """How many may call `fetch` at the same time."""

    def fetch(self, travels: Sequence[Travel], events: BatchEvents, *, parallel: int) -> None:
        """Fetch blobs of one source, `parallel` at a time; each ends in one event.

        Raises ToolError once the run is stopped, and what ends the whole run.
        """

    def has_room(self, left: Sequence[int], parallel: int, hosts: int, /) -> bool:
        """Whether another batch of a source should begin beside those that have so many blobs left; `hosts` sources are
        busy."""

    def enough(self, waiting: int, /) -> float:
        """Bytes that make a batch, of so many that wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFetcher:
    """`scratch` is a private directory. A host that is away is waited for by `retry`'s outages."""

    curl: Curl
    parts: PartFiles
    scratch: Path
    retry: Retry

    @property
    def threads(self) -> int:
        return 64

    def has_room(self, left: Sequence[int], parallel: int, _hosts: int, /) -> bool:
        """The next begins when the last has fewer left than may come at the same time."""
        return sum(left) < parallel and len(left) < 2

    def enough(self, _waiting: int, /) -> float:
        return math.inf

    def fetch(self, travels: Sequence[Travel], events: BatchEvents, *, parallel: int) -> None:
        endings = Endings(events=events, retry=self.retry)
        batch = _Batch(fetcher=self, events=events, endings=endings, downloads=travels[0].registry.probe.downloads)
        batch.run(travels, parallel)


@dataclass(slots=True, kw_only=True)
class Endings:
    """How travels of a batch fail. What failed because the host may be away waits for it together, once."""

    events: BatchEvents
    retry: Retry
    _away: list[tuple[Travel, ToolError]] = field(default_factory=list)

    def fails(self, travel: Travel, error: RegwrapError) -> None:
        if isinstance(error, ToolError) and error.transient and error.outage:
            self._away.append((travel, error))
        else:
            self.events.failed_to_come(travel, error)

    def wait_for_host(self) -> None:
        """For all that the batch has left."""
        if not self._away:
            return
        is_back, error = False, self._away[0][1]
        try:
            is_back = (
                self.retry.outages is not None and not self.retry.stopping.is_set() and self.retry.outages.wait(error)
            )
        except ToolError as down:
            error = down
        for travel, own in self._away:
            last = error if isinstance(error, HostDownError) else own
            if is_back and travel.may_wait(self.retry.policy.outage):
                self.events.again(travel)
            else:
                self.events.failed_to_come(travel, last)


@dataclass(slots=True, kw_only=True)
class _Batch:
    """One batch; it is curl's receiver."""

    fetcher: BlobFetcher
    events: BatchEvents
    downloads: Downloads
    endings: Endings
    started: float = 0
    open: dict[str, tuple[Travel, Download]] = field(default_factory=dict)

    def run(self, travels: Sequence[Travel], parallel: int) -> None:
        limiter = self.downloads.client.limiter
        try:
            prepared = [one for travel in travels if (one := self._prepared(travel)) is not None]
            if prepared:
                with limiter.slot(parallel) as self.started:
                    self._fetch(prepared, self.downloads.route(self.fetcher.scratch), parallel)
        except ToolError as error:
            self._end_open(error)
        self.endings.wait_for_host()

    def _prepared(self, travel: Travel) -> Download | None:
        """None where nothing has to travel, or it cannot."""
        parts, blob = self.fetcher.parts, travel.blob
        offset = parts.arrived(blob)
        travel.before = offset - travel.came + travel.lost
        if offset == blob.size and offset:
            self.events.complete(travel)
            return None
        try:
            address = self.downloads.address(travel.repository, blob)
        except (UnsureError, ToolError) as error:
            self.endings.fails(travel, error)
            return None
        download = Download(
            key=blob.digest.hex,
            url=address.url,
            size=blob.size,
            offset=offset,
            authorization=address.authorization,
            place=parts.place(blob),
        )
        self.open[download.key] = (travel, download)
        return download

    def _fetch(self, downloads: Sequence[Download], route: Route, parallel: int) -> None:
        self.fetcher.curl.fetch(downloads, route, self, parallel=parallel)

    # --- what curl tells

    def opened(self, key: str) -> int:
        travel, _download = self.open[key]
        self.events.begun(travel)
        return self.fetcher.parts.open_part(travel.blob)

    def came(self, key: str, count: int) -> None:
        travel, _download = self.open[key]
        self.fetcher.parts.came(travel.blob, count)
        travel.came += count
        travel.renewals = 0

    def is_wanted(self) -> bool:
        return self.events.is_wanted()

    def ended(self, outcome: DownloadOutcome) -> None:
        travel, download = self.open.pop(outcome.key)
        self.downloads.inform_limiter(outcome, self.started)
        arrived = self.fetcher.parts.arrived(travel.blob)
        # with all bytes there, a length that was announced wrong is nobody's business: they are hashed
        is_complete = arrived == travel.blob.size and (outcome.exit_code == 0 or arrived > 0)
        if is_complete and not outcome.excess:
            self._complete(travel)
        elif download.offset and (outcome.exit_code == UNSUPPORTED_RANGE or outcome.status == 416 or outcome.excess):
            # it knows no ranges, or not these
            self._forget(travel)
            self.events.again(travel)
        else:
            self._refused(travel, outcome, download, arrived)

    def _complete(self, travel: Travel) -> None:
        if travel.blob.size == 0:  # no byte has opened it
            self.events.begun(travel)
            os.close(self.fetcher.parts.open_part(travel.blob))
        self.events.complete(travel)

    def _refused(self, travel: Travel, outcome: DownloadOutcome, download: Download, arrived: int) -> None:
        """A token that has expired is renewed, and the blob goes on; what only skopeo can say, it has to."""
        try:
            is_renewed = outcome.status in DISGUISES and self._is_renewed(travel, outcome, download)
        except UnsureError as unsure:
            self.endings.fails(travel, unsure)
            return
        if is_renewed:
            self.events.again(travel)
        else:
            self.endings.fails(travel, self._failure(travel, outcome, download, arrived))

    def _is_renewed(self, travel: Travel, outcome: DownloadOutcome, download: Download) -> bool:
        """Raises UnsureError where each token is refused: some live for less than a program takes to start."""
        travel.renewals += 1
        is_other = False
        with suppress(ToolError):  # what was answered to curl is told
            is_other = self.downloads.is_renewed(travel.repository, travel.blob, download.authorization)
        if is_other and outcome.status == 401 and travel.renewals > _MOST_RENEWALS:
            raise UnsureError(f"{travel.end.name} refuses the tokens that are given for {travel.repository}")
        return is_other and travel.renewals <= _MOST_RENEWALS

    def _failure(self, travel: Travel, outcome: DownloadOutcome, download: Download, arrived: int) -> ToolError:
        if outcome.exit_code == 0 and not outcome.excess and "html" not in outcome.media_type:
            self._forget(travel)
            return damaged_on_the_way(travel.where, travel.blob, arrived)
        if outcome.exit_code == 0 or outcome.excess:
            self._forget(travel)
        what = f"blob {travel.blob.digest.short} of {travel.repository}"
        return self.downloads.failure(what, outcome, download, self.fetcher.curl.timeouts.stall)

    def _forget(self, travel: Travel) -> None:
        travel.begins_anew()
        self.fetcher.parts.forget(travel.blob)

    def _end_open(self, error: ToolError) -> None:
        for travel, _download in self.open.values():
            self.endings.fails(travel, error)
        self.open.clear()
