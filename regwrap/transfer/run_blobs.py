"""Run a Plan blob by blob: each travels once, whoever needs it; an image is shown when its last one is proved.

One thread decides, all others work and tell it what came of it: those that fetch or send, those that hash or copy
files, and those that make images visible. A blob that fails fails the images that need it; all others go on.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeGuard

from regwrap.core.errors import IntegrityError, RegwrapError, ToolError
from regwrap.core.listener import Outlook
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.transfer.by_curl import Travel
from regwrap.transfer.fetch import damaged_on_the_way
from regwrap.transfer.host_queues import HostQueues
from regwrap.transfer.outcomes import Outcomes
from regwrap.transfer.showing import Showing
from regwrap.transfer.threads import Threads
from regwrap.transfer.under_way import under_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from regwrap.core.model import Digest
    from regwrap.transfer.blob_work import BlobReport, BlobWork, Here
    from regwrap.transfer.by_curl import BlobSource
    from regwrap.transfer.plan import Copy
    from regwrap.transfer.under_way import BlobUnderWay, ImageUnderWay

_HASHERS: Final = min(4, os.cpu_count() or 1)


@dataclass(slots=True, kw_only=True)
class BlobRun:
    """One run: what becomes of each blob. Call `run` once."""

    work: BlobWork
    _items: dict[Digest, BlobUnderWay] = field(default_factory=dict)
    _hosts: HostQueues = field(init=False)
    _threads: Threads = field(init=False)
    _outcomes: Outcomes = field(init=False)
    _showing: Showing = field(init=False)

    def __post_init__(self) -> None:
        work = self.work
        self._hosts = HostQueues(fetcher=work.fetcher, jobs=work.jobs)
        self._threads = Threads(stopping=work.retry.stopping)
        self._outcomes = Outcomes(events=work.events, gave_up=work.gave_up)
        self._showing = Showing(
            dest=work.dest, retry=work.retry, events=work.events, threads=self._threads, outcomes=self._outcomes
        )

    def run(self, copies: Iterable[Copy]) -> BlobReport:
        """All of them; an interruption ends the waits and is raised again."""
        copies, work = tuple(copies), self.work
        pools = {
            "hash": _HASHERS,
            "copy": work.jobs,
            "fetch": work.fetcher.threads,
            "finish": work.jobs if work.dest.alone else 1,
        }
        with self._threads.started(pools):
            try:
                self._begin(copies)
                while self._outcomes.unfinished:
                    self._launch()
                    self._threads.hear()
            except BaseException:
                work.dest.keep()
                work.retry.stopping.set()
                raise
        if self._outcomes.has_failures:
            work.dest.keep()
        return self._outcomes.report()

    def _outlook(self) -> Outlook:
        """How far it is, for whoever watches from another thread."""
        done = left = 0
        for item in list(self._items.values()):
            done += item.done
            left += item.left
        return Outlook(done, left)

    # --- what there is to do

    def _begin(self, copies: tuple[Copy, ...]) -> None:
        images, items = under_way(copies, self.work.dest, in_order=self.work.in_order)
        self._items.update((item.need.blob.digest, item) for item in items)
        self._outcomes.unfinished.update(dict.fromkeys(images))
        self.work.events.watch(self._outlook)
        for image in images:
            self._check_room(image)
        for item in items:
            if item.is_wanted:
                self._look(item)
        for image in list(self._outcomes.unfinished):
            self._show_if_complete(image)

    def _check_room(self, image: ImageUnderWay) -> None:
        try:
            self.work.dest.check_room(image.copy)
        except ToolError as error:
            self._outcomes.fail(image, error, 1)

    def _look(self, item: BlobUnderWay) -> None:
        """What is there already, or what an earlier run has left, is not believed: it is hashed."""
        here = self.work.here
        if here is not None and here.may_have(item.need):
            self._threads.submit("hash", lambda: self._looked(item, is_valid=here.has(item.need)))
        else:
            self._wait(item)

    def _looked(self, item: BlobUnderWay, *, is_valid: bool) -> None:
        self._threads.post(lambda: self._proved(item) if is_valid else self._wait(item))

    def _wait(self, item: BlobUnderWay) -> None:
        """For its turn: to be copied here, or to come from where it is."""
        (source, repository), here = item.sources[0], self.work.here
        item.is_due = True
        if here is not None and not isinstance(source, RegistryEndpoint):
            self._threads.submit("copy", lambda: self._copy_here(item, here, source))
            return
        if not item.travels or item.travel.end is not source or item.travel.repository != repository:
            item.travels.append(Travel(blob=item.need.blob, end=source, repository=repository))
        self._hosts.add(item)

    # --- who works

    def _launch(self) -> None:
        if self.work.retry.stopping.is_set():
            raise ToolError("the copy was stopped: regwrap is stopping")
        for batch in self._hosts.due():
            fetch = partial(self.work.fetcher.fetch, batch.travels, self, parallel=batch.parallel)
            self._threads.submit("fetch", fetch)

    def _copy_here(self, item: BlobUnderWay, here: Here, source: BlobSource) -> None:
        blob = item.need.blob
        self._threads.post(lambda: self._begun(item))
        try:
            item.copied, item.local = here.copy_here(source, blob), blob.size
        except (ToolError, IntegrityError) as error:
            failure = error
            self._threads.post(lambda: self._failed(item, failure))
        else:
            self._threads.post(lambda: self._proved(item))

    def _prove(self, item: BlobUnderWay, here: Here) -> None:
        blob = item.need.blob
        if here.accept(blob):
            self._threads.post(lambda: self._proved(item))
        else:
            item.travel.begins_anew()
            error = damaged_on_the_way(item.travel.where, blob, blob.size)
            self._threads.post(lambda: self._failed(item, error))

    # --- what a batch tells, from its thread

    def begun(self, travel: Travel) -> None:
        self._threads.post(lambda: self._begun(self._item(travel)))

    def complete(self, travel: Travel) -> None:
        here = self.work.here
        if here is None:
            raise TypeError("what goes into a registry is proved by it")
        self._threads.post(lambda: self._hosts.ended(travel))  # before it can be wanted once more
        self._threads.submit("hash", lambda: self._prove(self._item(travel), here))

    def proved(self, travel: Travel) -> None:
        self._ended(travel, self._proved)

    def again(self, travel: Travel) -> None:
        self._ended(travel, self._wait)

    def is_wanted(self) -> bool:
        return bool(self._outcomes.unfinished)

    def failed_to_come(self, travel: Travel, error: RegwrapError) -> None:
        self._ended(travel, lambda item: self._failed(item, error))

    def refused(self, travel: Travel, errors: Mapping[str, RegwrapError]) -> None:
        self._ended(travel, lambda item: self._refused(item, errors))

    def _ended(self, travel: Travel, then: Callable[[BlobUnderWay], None]) -> None:
        """`then`, before there is room for another one: what has failed decides what is begun."""

        def heard() -> None:
            self._hosts.ended(travel)
            then(self._item(travel))

        self._threads.post(heard)

    def _item(self, travel: Travel) -> BlobUnderWay:
        return self._items[travel.blob.digest]

    # --- what came of it, in the deciding thread

    def _begun(self, item: BlobUnderWay) -> None:
        if item.images:
            self._outcomes.start(next(iter(item.images)))

    def _proved(self, item: BlobUnderWay) -> None:
        images, item.images = item.images, {}
        for image in images:
            image.open.discard(item)
            self._show_if_complete(image)

    def _show_if_complete(self, image: ImageUnderWay) -> None:
        if not image.open:
            self._showing.show(image)

    def _failed(self, item: BlobUnderWay, error: RegwrapError) -> None:
        """Once more, from another place, or not at all."""
        if not item.is_wanted or self.work.retry.stopping.is_set():
            return
        if self._may_pass(error, item):
            self._again(item, error)
        elif len(item.sources) > 1:
            item.sources.popleft()
            item.attempt = 1
            self._wait(item)
        else:
            for image in list(item.images):
                self._outcomes.give_up(image, error, item.attempt)

    def _refused(self, item: BlobUnderWay, errors: Mapping[str, RegwrapError]) -> None:
        """By some repositories: the others have the blob, and their images go on."""
        passing: ToolError | None = None
        for image in list(item.images):
            error = errors.get(image.copy.entry.dest.repository)
            if error is None:
                del item.images[image]
                image.open.discard(item)
                self._show_if_complete(image)
            elif self._may_pass(error, item):
                passing = error
            elif not self.work.retry.stopping.is_set():
                self._outcomes.give_up(image, error, item.attempt)
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
