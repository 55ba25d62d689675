"""Threads that work, and one that decides: it alone touches what they share, and hears from them what came of it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

_LOOK_SECONDS: Final = 0.5


@dataclass(slots=True, kw_only=True)
class Threads:
    """Pools of them, each for one kind of work. `stopping` is set when a run is to end."""

    stopping: threading.Event
    _pools: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    _inbox: SimpleQueue[Callable[[], None]] = field(default_factory=SimpleQueue)

    @contextmanager
    def started(self, pools: Mapping[str, int]) -> Iterator[None]:
        """So many of each kind. All that was submitted is done at the end, but nothing more once the run is to stop."""
        with ExitStack() as stack:
            for name, most in pools.items():
                self._pools[name] = stack.enter_context(ThreadPoolExecutor(most, thread_name_prefix=name))
            yield

    def submit(self, pool: str, work: Callable[[], None]) -> None:
        """What it raises is raised in the deciding thread. Nothing is begun any more once the run is to stop."""

        def begun() -> None:
            if not self.stopping.is_set():
                work()

        def ended(future: Future[None]) -> None:
            if not future.cancelled() and future.exception() is not None:
                self.post(future.result)

        self._pools[pool].submit(begun).add_done_callback(ended)

    def post(self, news: Callable[[], None]) -> None:
        """From any thread; the deciding one calls it."""
        self._inbox.put(news)

    def hear(self) -> None:
        """What was told, by the deciding thread. Waits a moment for the first of it."""
        try:
            self._inbox.get(timeout=_LOOK_SECONDS)()
            while True:
                self._inbox.get_nowait()()
        except Empty:
            pass
