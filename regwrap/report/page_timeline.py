"""What each worker did when: a lane a worker, a bar an image. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_html import Markup, joined, tag
from regwrap.report.page_names import names_apart
from regwrap.report.page_parts import figure, legend, share
from regwrap.report.record import ImageRecord, Outcome, RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BARS: Final = 2500
_LANES: Final = 64
_NARROWEST_NAMED: Final = 6  # percent
_TICKS: Final = 5
_STYLES: Final = {Outcome.COPIED: "copied", Outcome.REPLACED: "moved", Outcome.FAILED: "failed"}
_KEYS: Final = (
    (Outcome.COPIED, "copied"),
    (Outcome.REPLACED, "replaced: the archive's tag pointed to another image"),
    (Outcome.FAILED, "failed"),
)

Lanes = dict[int, list[ImageRecord]]


def timeline(record: RunRecord) -> Markup:
    """Nothing was copied, nothing is drawn."""
    worked = [image for image in record.images if image.outcome in _STYLES and image.end > image.start]
    if not worked:
        return tag("p", {"class": "quiet"}, "Nothing had to be copied.")
    end = max(image.end for image in worked)
    lanes = lanes_of(worked)
    about = _about(record, worked, lanes, end)
    short = names_apart(image.image for image in worked)
    shown = {name: short[name] for name in _bounded(worked)}
    drawn = [_lane(number, images, shown, end) for number, images in list(lanes.items())[:_LANES]]
    kept = {image.outcome for image in worked}
    again = [("retried", "again")] if any(image.attempts > 1 for image in worked) else []
    keys = legend([*((text, _STYLES[outcome]) for outcome, text in _KEYS if outcome in kept), *again])
    left_out = [
        *(
            [f"{counted(len(lanes) - _LANES, 'more worker is', 'more workers are')} not drawn."]
            if len(lanes) > _LANES
            else []
        ),
        *(_shortest(len(worked) - len(shown))),
    ]
    note = tag("p", {"class": "quiet"}, " ".join([f"{about}.", *left_out]))
    return joined((note, figure("timeline", about, joined((*drawn, _axis(end)))), keys))


def _about(record: RunRecord, worked: Sequence[ImageRecord], lanes: Lanes, end: float) -> str:
    """A lane of a run on a cluster is an image that is waited for, and no worker."""
    images = counted(len(worked), "image")
    if record.workers:
        return f"{images} in {end:.1f} s, at most {len(lanes)} at the same time"
    busy = share(sum(image.end - image.start for image in worked), end * len(lanes))
    total = f"{images} by {counted(len(lanes), 'worker')} in {end:.1f} s"
    return f"{total}; workers were busy {busy:.0f} % of that time"


def _shortest(count: int) -> list[str]:
    text = counted(count, "copy, the shortest, is", "shortest copies are", form=",")
    return [f"{text} not drawn."] if count else []


def lanes_of(images: Sequence[ImageRecord]) -> Lanes:
    """By worker, in their order in time. Where a report does not know the worker, the first that is free."""
    lanes: Lanes = defaultdict(list)
    free: dict[int, float] = {}
    for image in sorted(images, key=lambda image: (image.start, image.end)):
        worker = image.worker
        if worker is None:
            idle = (number for number, since in free.items() if since <= image.start)
            worker = next(idle, len(free))
            free[worker] = image.end
        lanes[worker].append(image)
    return dict(sorted(lanes.items()))


def _bounded(images: list[ImageRecord]) -> set[str]:
    """The names of those that are drawn: what failed, and the longest."""
    ordered = sorted(images, key=lambda image: (image.outcome != Outcome.FAILED, image.start - image.end))
    return {image.image for image in ordered[:_BARS]}


def _lane(number: int, images: Sequence[ImageRecord], shown: Mapping[str, str], end: float) -> Markup:
    bars = joined(_bar(image, shown[image.image], end) for image in images if image.image in shown)
    return tag("div", {"class": "lane"}, tag("span", {"class": "worker"}, f"{number + 1}"), tag("div", {}, bars))


def _bar(image: ImageRecord, name: str, end: float) -> Markup:
    left, width = share(image.start, end), share(image.end - image.start, end)
    tries = f", {counted(image.attempts, 'attempt')}" if image.attempts > 1 else ""
    words = (
        f"{image.image}: {image.outcome.shown}, {image.start:.1f} to {image.end:.1f} s, {human_bytes(image.bytes_sent)}"
    )
    style = f"{_STYLES[image.outcome]}{' again' if image.attempts > 1 else ''}"
    attributes = {"class": style, "style": f"left:{left:.3f}%;width:{width:.3f}%", "title": f"{words} sent{tries}"}
    return tag("i", attributes, name if width >= _NARROWEST_NAMED else "")


def _axis(end: float) -> Markup:
    ticks = (
        tag("span", {"style": f"left:{share(at, end):.3f}%"}, f"{at:g} s") for at in _ticks(end) if share(at, end) < 96
    )
    return tag("div", {"class": "axis"}, *ticks)


def _ticks(end: float) -> Iterator[float]:
    """At most seven round numbers, from 0 on."""
    scale = 10.0 ** math.floor(math.log10(end / _TICKS))
    step = next(factor * scale for factor in (1, 2, 5, 10) if end / (factor * scale) <= _TICKS + 1)
    yield from (number * step for number in range(int(end / step) + 1))
