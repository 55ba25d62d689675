"""Outcomes of images that were under way at the same time, side by side: in a lane no two of them overlap. Pure."""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from regwrap.transfer.run import Copied, Failed

if TYPE_CHECKING:
    from collections.abc import Sequence


def in_lanes(outcomes: Sequence[Copied | Failed]) -> tuple[Copied | Failed, ...]:
    """Each with the number of the first lane that is free when it begins, as its worker; what was never begun has
    none."""
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    return tuple(_placed(outcome, busy, free) for outcome in sorted(outcomes, key=_start_of))


def _start_of(outcome: Copied | Failed) -> float:
    return outcome.start


def _placed(outcome: Copied | Failed, busy: list[tuple[float, int]], free: list[int]) -> Copied | Failed:
    """Two heaps: when each `busy` lane ends, and the numbers of those that are `free`."""
    if isinstance(outcome, Failed) and not outcome.seconds:
        return outcome
    while busy and busy[0][0] <= outcome.start:
        heappush(free, heappop(busy)[1])
    lane = heappop(free) if free else len(busy)
    heappush(busy, (outcome.start + outcome.seconds, lane))
    return replace(outcome, worker=lane)
