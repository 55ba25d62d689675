"""Images side by side, as a report draws them."""

from dataclasses import replace

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
