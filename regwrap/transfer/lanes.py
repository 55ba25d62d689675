"""Outcomes of images that were under way at the same time, side by side: in a lane no two of them overlap. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regwrap.transfer.run import Copied, Failed

if TYPE_CHECKING:
    from collections.abc import Sequence


def in_lanes(outcomes: Sequence[Copied | Failed]) -> tuple[Copied | Failed, ...]:
    """Each with the number of the first lane that is free when it begins, as its worker; what was never begun has
    none."""
    free: list[float] = []
    return tuple(_placed(outcome, free) for outcome in sorted(outcomes, key=_start_of))


def _start_of(outcome: Copied | Failed) -> float:
    return outcome.start


def _placed(outcome: Copied | Failed, free: list[float]) -> Copied | Failed:
    if isinstance(outcome, Failed) and not outcome.seconds:
        return outcome
    lane = next((number for number, since in enumerate(free) if since <= outcome.start), len(free))
    free[lane : lane + 1] = [outcome.start + outcome.seconds]
    return replace(outcome, worker=lane)
