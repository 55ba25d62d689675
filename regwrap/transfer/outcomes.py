"""What comes of each image of a run of blobs: it is copied, has failed, or is left to skopeo. The listener is told.

Used by the deciding thread alone; others may ask whether there are `unfinished` images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from regwrap.core.errors import HostDownError, RegwrapError, ToolError
from regwrap.registry.credentials import UnsureError
from regwrap.transfer.blob_work import BlobReport
from regwrap.transfer.lanes import in_lanes
from regwrap.transfer.run import Copied, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from regwrap.transfer.job import Events
    from regwrap.transfer.under_way import ImageUnderWay


@dataclass(slots=True, kw_only=True)
class Outcomes:
    """Of all images of a run, which are `unfinished` at first."""

    events: Events
    gave_up: Callable[[ToolError], ToolError]
    unfinished: dict[ImageUnderWay, None] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _copied: list[Copied] = field(default_factory=list)
    _failed: list[tuple[ImageUnderWay, Failed]] = field(default_factory=list)
    _left: list[ImageUnderWay] = field(default_factory=list)

    @property
    def has_failures(self) -> bool:
        return bool(self._failed)

    def report(self) -> BlobReport:
        failed = (replace(failed, sent=image.sent) for image, failed in self._failed)
        return BlobReport(
            outcomes=in_lanes((*self._copied, *failed)),
            left=tuple(image.copy for image in self._left),
            sent={image.copy.entry.dest: image.sent for image in self._left},
        )

    def start(self, image: ImageUnderWay) -> None:
        if image.started is None:
            image.started = time.monotonic()
            self.events.started(image.copy)

    def succeed(self, image: ImageUnderWay) -> None:
        started = image.started or self._began
        outcome = Copied(copy=image.copy, sent=image.sent, attempts=image.attempts, seconds=time.monotonic() - started)
        self._copied.append(replace(outcome, start=started - self._began))
        del self.unfinished[image]
        self.events.copied(outcome)

    def give_up(self, image: ImageUnderWay, error: RegwrapError, attempts: int) -> None:
        """It was tried to the end: it has failed, or only skopeo can fetch it."""
        if isinstance(error, UnsureError):
            self._left.append(image)
            self._drop(image)
        else:
            self.fail(image, self.gave_up(error) if isinstance(error, ToolError) else error, attempts)

    def fail(self, image: ImageUnderWay, error: RegwrapError, attempts: int) -> None:
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
        self._failed.append((image, failed))
        self.events.failed(failed)

    def _drop(self, image: ImageUnderWay) -> None:
        """What only this image needs is not begun any more."""
        del self.unfinished[image]
        for item in image.open:
            item.images.pop(image, None)
