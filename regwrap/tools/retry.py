"""How often and how long apart: the only importer of tenacity. It never reads an error's text."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from regwrap.core.errors import ToolError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` in all; waits between them grow from `wait` to `max_wait` seconds, with jitter."""

    attempts: int = 4
    wait: float = 1.0
    max_wait: float = 30.0

    def pause(self, attempt: int) -> float:
        """Seconds to wait after so many attempts."""
        import tenacity  # most runs try nothing twice

        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = attempt
        return tenacity.wait_random_exponential(multiplier=self.wait, max=self.max_wait)(state)


@dataclass(frozen=True, slots=True)
class Retry:
    """Tries again as `policy` says. Once `stopping` is set all waits end, and nothing is tried again."""

    policy: RetryPolicy
    stopping: threading.Event

    def call(self, work: Callable[[], T], on_retry: Callable[[int, ToolError], None] | None = None) -> T:
        """`work()`, again while it raises a transient ToolError. Raises the last error."""
        for attempt in itertools.count(1):
            try:
                return work()
            except ToolError as error:
                if not error.transient or attempt >= self.policy.attempts or self.stopping.is_set():
                    raise
                if on_retry is not None:
                    on_retry(attempt, error)
                if self.stopping.wait(self.policy.pause(attempt)):
                    raise
        raise AssertionError("itertools.count has no end")
