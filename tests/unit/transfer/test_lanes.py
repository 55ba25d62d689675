"""Images side by side, as a report draws them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from regwrap.transfer.lanes import in_lanes
from regwrap.transfer.run import Copied, Failed
from tests.unit.transfer.test_plan import copy, entry


def shown(name: str, start: float, seconds: float) -> Copied:
    return Copied(copy=copy(f"{name}:1"), sent=0, attempts=1, seconds=seconds, start=start)


def test_each_is_in_the_first_lane_that_is_free() -> None:
    images = [("a", 0, 4), ("c", 4, 1), ("b", 1, 2), ("d", 3, 9), ("e", 5, 9), ("f", 6, 1)]
    found = in_lanes([shown(*image) for image in images])
    assert [(str(item.copy.entry.dest), item.worker) for item in found if isinstance(item, Copied)] == [
        ("a:1", 0), ("b:1", 1), ("d:1", 1), ("c:1", 0), ("e:1", 0), ("f:1", 2),
    ]  # fmt: skip


def test_what_was_never_begun_is_in_none() -> None:
    failed = Failed(entry=entry("a:1"), error="no", hint="", attempts=1)
    assert [item.worker for item in in_lanes([failed, replace(failed, seconds=1)])] == [None, 0]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), max_size=40))
def test_no_lane_before_it_was_free(times: list[tuple[int, int]]) -> None:
    ends: list[float] = []
    for item in in_lanes([shown("a", *pair) for pair in times]):
        assert isinstance(item, Copied)
        assert item.worker == next((lane for lane, end in enumerate(ends) if end <= item.start), len(ends))
        ends[item.worker : item.worker + 1] = [item.start + item.seconds]


class Seconds(float):
    """Counts how often two of them are compared."""

    compared: ClassVar[int] = 0

    def __add__(self, other: float) -> Seconds:
        return Seconds(float(self) + other)

    def __eq__(self, other: object) -> bool:
        Seconds.compared += 1
        return float(self) == other

    def __lt__(self, other: float) -> bool:
        Seconds.compared += 1
        return float(self) < other

    def __le__(self, other: float) -> bool:
        Seconds.compared += 1
        return float(self) <= other

    __hash__ = float.__hash__


def test_four_times_the_images_at_once_are_four_times_the_work() -> None:
    few, many = (compared(count) for count in (50, 200))
    assert many / few < 4 * 1.6  # a heap's depth grows too


def compared(count: int) -> int:
    before = Seconds.compared
    in_lanes([shown("a", Seconds(0), 9) for _ in range(count)])
    return Seconds.compared - before
