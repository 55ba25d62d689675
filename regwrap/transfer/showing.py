"""Make images visible whose blobs are all there, and prove that they are: lane by lane, so that no two disturb each
other, and of one lane all that are ready by then, so that they share the syncs of a storage."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, ToolError
from regwrap.registry.credentials import UnsureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from regwrap.tools.retry import Retry
    from regwrap.transfer.blob_work import BlobDestination
    from regwrap.transfer.job import Events
    from regwrap.transfer.outcomes import Outcomes
    from regwrap.transfer.threads import Threads
    from regwrap.transfer.under_way import ImageUnderWay


@dataclass(slots=True, kw_only=True)
class Showing:
    """The deciding thread calls `show` once for each image; what comes of it is among the outcomes. The work is done in
    `threads` that are called "finish"."""

    dest: BlobDestination
    retry: Retry
    events: Events
    threads: Threads
    outcomes: Outcomes
    _ready: dict[str, deque[ImageUnderWay]] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)

    def show(self, image: ImageUnderWay) -> None:
        lane = self.dest.lane(image.copy)
        self._ready.setdefault(lane, deque()).append(image)
        self._next(lane)

    def _next(self, lane: str) -> None:
        if lane not in self._ready or lane in self._busy:
            return
        ready = self._ready[lane]
        group = [ready.popleft() for _image in range(1 if self.dest.alone else len(ready))]
        if not ready:
            del self._ready[lane]
        self._busy.add(lane)
        for image in group:
            self.outcomes.start(image)
        self.threads.submit("finish", lambda: self._finish(lane, group))

    # --- in a thread that works

    def _finish(self, lane: str, group: list[ImageUnderWay]) -> None:
        error = self._tried(group, lambda: self.dest.finish([image.copy for image in group]))
        problems = dict.fromkeys(group, error)
        if error is None:
            problems = {image: self._tried([image], partial(self.dest.prove, image.copy)) for image in group}
        self.threads.post(lambda: self._finished(lane, problems))

    def _tried(self, images: list[ImageUnderWay], work: Callable[[], None]) -> RegwrapError | None:
        """The error that remains."""

        def on_retry(attempt: int, error: ToolError) -> None:
            self.threads.post(lambda: self._tries_again(images, attempt, error))

        try:
            self.retry.call(work, on_retry=on_retry)
        except (ToolError, IntegrityError, UnsureError, ImagesFailedError) as error:
            return error
        return None

    # --- what came of it, in the deciding thread

    def _tries_again(self, images: list[ImageUnderWay], attempt: int, error: ToolError) -> None:
        for image in images:
            image.attempts = max(image.attempts, attempt + 1)
            self.events.retrying(image.copy, attempt, error)

    def _finished(self, lane: str, problems: Mapping[ImageUnderWay, RegwrapError | None]) -> None:
        self._busy.discard(lane)
        for image, error in problems.items():
            if error is None:
                self.outcomes.succeed(image)
            elif not self.retry.stopping.is_set():  # what an interruption ended did not fail
                self.outcomes.give_up(image, error, image.attempts)
        self._next(lane)
