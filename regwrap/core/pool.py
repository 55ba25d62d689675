"""One way to work on many items at a time: ordered results, and an end as soon as one of them, or the user, ends it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    name: str,
    stopping: threading.Event | None = None,
) -> tuple[Result, ...]:
    """`work` on each item, `workers` at a time (threads called `name`); the results in the items' order.

    The first error, Ctrl-C included, is raised after all workers have ended. `stopping` is set before they are waited
    for, so that retries and waits in them end at once; items that no worker has begun are dropped.
    """
    items = list(items)
    if workers == 1 or len(items) < 2:
        return tuple(map(work, items))
    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix=name) as pool:
        try:
            return tuple(pool.map(work, items))
        except BaseException:
            if stopping is not None:
                stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
