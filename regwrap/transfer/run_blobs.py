"""Carry out a Plan blob by blob: each travels once, whoever needs it; an image is shown when its last one is proved.

One thread decides, all others work and tell it what came of it: those that fetch or send, those that hash or copy
files, and those that make images visible. A blob that fails fails the images that need it; all others go on.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeGuard

from regwrap.core.errors import HostDownError, ImagesFailedError, IntegrityError, RegwrapError, ToolError
from regwrap.registry.credentials import UnsureError
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.transfer.blob_work import BlobReport
from regwrap.transfer.by_curl import Left, Travel
from regwrap.transfer.fetch import damaged_on_the_way
from regwrap.transfer.lanes import in_lanes
from regwrap.transfer.needs import needs_of
from regwrap.transfer.run import Copied, Failed
from regwrap.transfer.under_way import BlobUnderWay, HostQueue, ImageUnderWay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from regwrap.core.model import Destination, Digest
    from regwrap.transfer.blob_work import BlobWork, Here
    from regwrap.transfer.by_curl import End
    from regwrap.transfer.needs import Need
    from regwrap.transfer.plan import Copy

# blobs of one start of curl: tokens live for minutes, and each blob has an open pipe
_BATCH: Final = 32
_BATCH_EACH: Final = 8  # for each that comes at the same time
_LOOK_SECONDS: Final = 0.5
_HASHERS: Final = min(4, os.cpu_count() or 1)


@dataclass(slots=True, kw_only=True)
class BlobRun:
    """One run. Call `run` once."""

    work: BlobWork
    images: dict[Destination, ImageUnderWay] = field(default_factory=dict)
    items: dict[Digest, BlobUnderWay] = field(default_factory=dict)
    hosts: dict[str, HostQueue] = field(default_factory=dict)
    ready: dict[str, deque[ImageUnderWay]] = field(default_factory=dict)
    finishing: set[str] = field(default_factory=set)
    copied: list[Copied] = field(default_factory=list)
    failed: list[tuple[ImageUnderWay, Failed]] = field(default_factory=list)
    left: list[ImageUnderWay] = field(default_factory=list)
    _inbox: SimpleQueue[Callable[[], None]] = field(default_factory=SimpleQueue)
    _began: float = field(default_factory=time.monotonic)
    _pools: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    _shown: int = 0

    def run(self, copies: Iterable[Copy]) -> BlobReport:
        """All of them; an interruption ends the waits and is raised again."""
        copies = tuple(copies)
        with ExitStack() as stack:
            for name, most in (
                ("hash", _HASHERS),
                ("copy", self.work.jobs),
                ("fetch", self.work.fetcher.threads),
                ("finish", self.work.jobs if self.work.dest.alone else 1),
            ):
                self._pools[name] = stack.enter_context(ThreadPoolExecutor(most, thread_name_prefix=name))
            try:
                self._begin(copies)
                while self.images:
                    self._launch()
                    self._hear()
            except BaseException:
                self.work.dest.keep()
                self.work.retry.stopping.set()
                raise
            finally:
                for pool in self._pools.values():
                    pool.shutdown(wait=False, cancel_futures=True)
        if self.failed:
            self.work.dest.keep()
        sent = {image.copy.entry.dest: image.sent for image in self.left}
        return BlobReport(outcomes=self._outcomes(), left=tuple(image.copy for image in self.left), sent=sent)

    def _outcomes(self) -> tuple[Copied | Failed, ...]:
        failed = (replace(failed, sent=image.sent) for image, failed in self.failed)
        return in_lanes((*self.copied, *failed))

    def bytes_under_way(self) -> int:
        """What has come of images that are not shown yet."""
        if not self.images:
            return 0
        return max(0, sum(item.arrived for item in list(self.items.values())) - self._shown)

    # --- what there is to do

    def _begin(self, copies: tuple[Copy, ...]) -> None:
        wanted = self.work.dest.wanted
        for copy in copies:
            self.images[copy.entry.dest] = ImageUnderWay(copy=copy, open={blob.digest for blob in wanted(copy)})
        needs = needs_of(copies, wanted)
        for need in sorted(needs, key=lambda need: need.blob.digest) if self.work.in_order else needs:
            images = dict.fromkeys(self.images[copy.entry.dest] for copy in need.copies)
            item = BlobUnderWay(need=need, images=images, places=self._places(need))
            self.items[need.blob.digest] = item
            self.images[need.first.entry.dest].brings.append(item)
        for image in list(self.images.values()):
            self._check_room(image)
        for item in self.items.values():
            if item.is_wanted:
                self._look(item)
        for image in list(self.images.values()):
            self._ready_if_whole(image)

    def _places(self, need: Need) -> deque[tuple[End, str]]:
        """Those on this machine first."""
        found = {(id(source), name): (source, name) for source, name in self.work.dest.sources_of(need)}
        return deque(sorted(found.values(), key=lambda place: isinstance(place[0], RegistryEndpoint)))

    def _check_room(self, image: ImageUnderWay) -> None:
        try:
            self.work.dest.check_room(image.copy)
        except ToolError as error:
            self._fail(image, error, 1)

    def _look(self, item: BlobUnderWay) -> None:
        """What is there already, or what an earlier run has left, is not believed: it is hashed."""
        here = self.work.here
        if here is not None and here.may_have(item.need):
            self._submit("hash", lambda: self._looked(item, is_right=here.has(item.need)))
        else:
            self._wait(item)

    def _looked(self, item: BlobUnderWay, *, is_right: bool) -> None:
        self._inbox.put(lambda: self._proved(item) if is_right else self._wait(item))

    def _wait(self, item: BlobUnderWay) -> None:
        """For its turn: to be copied here, or to come from where it is."""
        (source, repository), here = item.places[0], self.work.here
        if here is not None and not isinstance(source, RegistryEndpoint):
            self._submit("copy", lambda: self._copy_here(item, here, source))
            return
        if not item.travels or item.travel.end is not source or item.travel.repository != repository:
            item.travels.append(Travel(blob=item.need.blob, end=source, repository=repository))
        self.hosts.setdefault(source.name, HostQueue()).add(item)

    # --- who works

    def _submit(self, pool: str, work: Callable[[], None]) -> None:
        """What it raises is raised in the deciding thread. Nothing is begun any more once the run is to stop."""

        def begun() -> None:
            if not self.work.retry.stopping.is_set():
                work()

        def ended(future: Future[None]) -> None:
            if not future.cancelled() and future.exception() is not None:
                self._inbox.put(future.result)

        self._pools[pool].submit(begun).add_done_callback(ended)

    def _launch(self) -> None:
        if self.work.retry.stopping.is_set():
            raise ToolError("the copy was stopped: regwrap is stopping")
        busy = sum(1 for host in self.hosts.values() if host.waiting or host.batches)
        for host in self.hosts.values():
            parallel = max(1, self.work.jobs // max(1, busy))
            host.batches = [left for left in host.batches if left.count]
            while host.waiting and self.work.fetcher.has_room(host.batches, parallel, busy):
                batch = self._batch(host, parallel)
                if not batch:
                    break
                left = Left(len(batch))
                host.batches.append(left)
                self._fetch(batch, parallel, left)

    def _batch(self, host: HostQueue, parallel: int) -> list[BlobUnderWay]:
        """The next that are due. A host that wants its pace kept gets one request at a time."""
        now = time.monotonic()
        taken, later, size = list[BlobUnderWay](), list[BlobUnderWay](), 0
        most = max(_BATCH, _BATCH_EACH * parallel)
        enough = self.work.fetcher.enough(host.bytes_waiting)
        while host.waiting and len(taken) < most and size < enough:
            item = host.take()
            if _keeps_pace(item.travel.end):
                most = 1
            if item.is_wanted:
                is_due = item.not_before <= now
                (taken if is_due else later).append(item)
                size += item.need.blob.size * is_due
        host.put_back(later)
        return taken

    def _fetch(self, batch: list[BlobUnderWay], parallel: int, left: Left) -> None:
        travels = [item.travel for item in batch]
        for item, travel in zip(batch, travels, strict=True):
            travel.wanted_in = frozenset(image.copy.entry.dest.repository for image in item.images)
        at_once = max(1, int(min(parallel, _limit_of(travels[0].end))))
        self._submit("fetch", lambda: self.work.fetcher.fetch(travels, self, parallel=at_once, left=left))

    def _copy_here(self, item: BlobUnderWay, here: Here, source: End) -> None:
        blob = item.need.blob
        self._inbox.put(lambda: self._begun(item))
        try:
            item.copied = here.copy_here(source, blob)
        except (ToolError, IntegrityError) as error:
            failure = error
            self._inbox.put(lambda: self._failed(item, failure))
        else:
            self._inbox.put(lambda: self._proved(item))

    def _prove(self, item: BlobUnderWay, here: Here) -> None:
        blob = item.need.blob
        if here.take(blob):
            self._inbox.put(lambda: self._proved(item))
        else:
            item.travel.begins_anew()
            error = damaged_on_the_way(item.travel.where, blob, blob.size)
            self._inbox.put(lambda: self._failed(item, error))

    # --- what a batch tells, from its thread

    def begun(self, travel: Travel) -> None:
        self._inbox.put(lambda: self._begun(self._item(travel)))

    def whole(self, travel: Travel) -> None:
        here = self.work.here
        if here is None:
            raise TypeError("what goes into a registry is proved by it")
        self._submit("hash", lambda: self._prove(self._item(travel), here))
        self._inbox.put(lambda: None)  # there may be room for the next batch

    def proved(self, travel: Travel) -> None:
        self._inbox.put(lambda: self._proved(self._item(travel)))

    def again(self, travel: Travel) -> None:
        self._inbox.put(lambda: self._wait(self._item(travel)))

    def is_wanted(self) -> bool:
        return bool(self.images)

    def failed_to_come(self, travel: Travel, error: RegwrapError) -> None:
        self._inbox.put(lambda: self._failed(self._item(travel), error))

    def refused(self, travel: Travel, errors: Mapping[str, RegwrapError]) -> None:
        self._inbox.put(lambda: self._refused(self._item(travel), errors))

    def _item(self, travel: Travel) -> BlobUnderWay:
        return self.items[travel.blob.digest]

    # --- what came of it, in the deciding thread

    def _hear(self) -> None:
        try:
            self._inbox.get(timeout=_LOOK_SECONDS)()
            while True:
                self._inbox.get_nowait()()
        except Empty:
            pass

    def _begun(self, item: BlobUnderWay) -> None:
        if item.images:
            self._start(next(iter(item.images)))

    def _start(self, image: ImageUnderWay) -> None:
        if image.started is None:
            image.started = time.monotonic()
            self.work.events.started(image.copy)

    def _proved(self, item: BlobUnderWay) -> None:
        images, item.images = item.images, {}
        for image in images:
            image.open.discard(item.need.blob.digest)
            self._ready_if_whole(image)

    def _ready_if_whole(self, image: ImageUnderWay) -> None:
        if not image.open and image.copy.entry.dest in self.images:
            lane = self.work.dest.lane(image.copy)
            self.ready.setdefault(lane, deque()).append(image)
            self._make_visible(lane)

    def _make_visible(self, lane: str) -> None:
        """All that is ready by now shares the syncs of a storage."""
        if lane not in self.ready or lane in self.finishing:
            return
        ready = self.ready[lane]
        group = [ready.popleft() for _image in range(1 if self.work.dest.alone else len(ready))]
        if not ready:
            del self.ready[lane]
        self.finishing.add(lane)
        for image in group:
            self._start(image)
        self._submit("finish", lambda: self._finish(lane, group))

    def _finish(self, lane: str, group: list[ImageUnderWay]) -> None:
        dest = self.work.dest
        error = self._tried(group, lambda: dest.finish([image.copy for image in group]))
        problems = dict.fromkeys(group, error)
        if error is None:
            problems = {image: self._tried([image], partial(dest.prove, image.copy)) for image in group}
        self._inbox.put(lambda: self._finished(lane, problems))

    def _tried(self, images: list[ImageUnderWay], work: Callable[[], None]) -> RegwrapError | None:
        """The error that remains."""

        def on_retry(attempt: int, error: ToolError) -> None:
            self._inbox.put(lambda: self._tries_again(images, attempt, error))

        try:
            self.work.retry.call(work, on_retry=on_retry)
        except (ToolError, IntegrityError, UnsureError, ImagesFailedError) as error:
            return error
        return None

    def _tries_again(self, images: list[ImageUnderWay], attempt: int, error: ToolError) -> None:
        for image in images:
            image.attempts = max(image.attempts, attempt + 1)
            self.work.events.retrying(image.copy, attempt, error)

    def _finished(self, lane: str, problems: Mapping[ImageUnderWay, RegwrapError | None]) -> None:
        self.finishing.discard(lane)
        for image, error in problems.items():
            if error is None:
                self._shows(image)
            elif not self.work.retry.stopping.is_set():  # what an interruption ended did not fail
                self._give_up(image, error, image.attempts)
        self._make_visible(lane)

    def _shows(self, image: ImageUnderWay) -> None:
        started = image.started or self._began
        outcome = Copied(copy=image.copy, sent=image.sent, attempts=image.attempts, seconds=time.monotonic() - started)
        self.copied.append(replace(outcome, start=started - self._began))
        del self.images[image.copy.entry.dest]
        self._shown += image.arrived
        self.work.events.copied(outcome)

    # --- what fails

    def _failed(self, item: BlobUnderWay, error: RegwrapError) -> None:
        """Once more, from another place, or not at all."""
        if not item.is_wanted or self.work.retry.stopping.is_set():
            return
        if self._may_pass(error, item):
            self._again(item, error)
        elif len(item.places) > 1:
            item.places.popleft()
            item.attempt = 1
            self._wait(item)
        else:
            for image in list(item.images):
                self._give_up(image, error, item.attempt)

    def _refused(self, item: BlobUnderWay, errors: Mapping[str, RegwrapError]) -> None:
        """By some repositories: the others have the blob, and their images go on."""
        passing: ToolError | None = None
        for image in list(item.images):
            error = errors.get(image.copy.entry.dest.repository)
            if error is None:
                del item.images[image]
                image.open.discard(item.need.blob.digest)
                self._ready_if_whole(image)
            elif self._may_pass(error, item):
                passing = error
            elif not self.work.retry.stopping.is_set():
                self._give_up(image, error, item.attempt)
        if passing is not None:
            self._again(item, passing)

    def _may_pass(self, error: RegwrapError, item: BlobUnderWay) -> TypeGuard[ToolError]:
        return isinstance(error, ToolError) and error.transient and item.attempt < self.work.retry.policy.attempts

    def _again(self, item: BlobUnderWay, error: ToolError) -> None:
        self.work.events.retrying(next(iter(item.images)).copy, item.attempt, error)
        item.not_before = time.monotonic() + self.work.retry.policy.pause(item.attempt)
        item.attempt += 1
        for image in item.images:
            image.attempts = max(image.attempts, item.attempt)
        self._wait(item)

    def _give_up(self, image: ImageUnderWay, error: RegwrapError, attempts: int) -> None:
        if isinstance(error, UnsureError):
            self._leave(image)
        else:
            self._fail(image, self._last(error), attempts)

    def _last(self, error: RegwrapError) -> RegwrapError:
        """What is said of it in the end."""
        return self.work.gave_up(error) if isinstance(error, ToolError) else error

    def _leave(self, image: ImageUnderWay) -> None:
        self.left.append(image)
        self._drop(image)

    def _fail(self, image: ImageUnderWay, error: RegwrapError, attempts: int) -> None:
        now, started = time.monotonic(), image.started
        failed = Failed(
            entry=image.copy.entry,
            error=str(error),
            hint=error.hint,
            attempts=max(attempts, image.attempts),
            down=error.host if isinstance(error, HostDownError) else "",
            seconds=0 if started is None else now - started,
            start=0 if started is None else started - self._began,
        )
        self._drop(image)
        self.failed.append((image, failed))
        self.work.events.failed(failed)

    def _drop(self, image: ImageUnderWay) -> None:
        """What only this image needs is not begun any more."""
        del self.images[image.copy.entry.dest]
        for digest in image.open:
            self.items[digest].images.pop(image, None)


def _keeps_pace(end: End) -> bool:
    return isinstance(end, RegistryEndpoint) and end.registry.requests_per_second is not None


def _limit_of(end: End) -> float:
    """How many of its blobs may come at the same time."""
    return end.probe.limiter.rate.limit if isinstance(end, RegistryEndpoint) else math.inf
