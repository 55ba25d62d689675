"""One way to work on many items at a time: ordered results, and an end as soon as one of them, or the user, ends it."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

_SLOW_SECONDS: Final = 0.015  # longer than what a machine of its own takes for a question
_WAITING: Final = "wait"

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


def map_waiting(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    most: int,
    stopping: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Result, ...]:
    """The same for work that waits for answers: `workers` at a time at first, one more for each that took long, `most`
    at last. Where answers come at once more threads would only stand in each other's way, and one
    worker stays one."""
    items = list(items)
    if workers == 1 or most <= workers or len(items) <= workers:
        return map_in_order(work, items, workers=workers, name=_WAITING, stopping=stopping)
    futures: list[Future[Result]] = []
    ended, done, allowed = SimpleQueue[float](), 0, workers

    def timed(item: Item) -> Result:
        started, seconds = clock(), math.inf
        try:
            result = work(item)
            seconds = clock() - started
        finally:
            ended.put(seconds)
        return result

    with ThreadPoolExecutor(min(most, len(items)), thread_name_prefix=_WAITING) as pool:
        try:
            while len(futures) < len(items):
                while len(futures) < min(len(items), done + allowed):
                    futures.append(pool.submit(timed, items[len(futures)]))
                seconds, done = ended.get(), done + 1
                if seconds == math.inf:
                    break  # it failed: no more is begun
                allowed = min(most, allowed + (seconds > _SLOW_SECONDS))
            return tuple(future.result() for future in futures)
        except BaseException:
            if stopping is not None:
                stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
