"""How often and how long apart: the only importer of tenacity. It never reads an error's text."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from regwrap.core.errors import ToolError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from regwrap.tools.outage import Outages

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` in all; waits between them grow from `wait` to `max_wait` seconds, with jitter. `outage`: seconds that
    a host that is away is waited for, which is no attempt."""

    attempts: int = 4
    wait: float = 1.0
    max_wait: float = 30.0
    outage: float = 0.0

    def pause(self, attempt: int) -> float:
        """Seconds to wait after so many attempts."""
        import tenacity  # most runs try nothing twice

        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = attempt
        return tenacity.wait_random_exponential(multiplier=self.wait, max=self.max_wait)(state)


@dataclass(frozen=True, slots=True)
class Retry:
    """Tries again as `policy` says. Once `stopping` is set all waits end, and nothing is tried again.

    A host that is away is waited for by `outages`, which is no attempt.
    """

    policy: RetryPolicy
    stopping: threading.Event
    outages: Outages | None = None

    def call(self, work: Callable[[], T], on_retry: Callable[[int, ToolError], None] | None = None) -> T:
        """`work()`, again while it raises a transient ToolError. Raises the last error."""
        attempt, latest = 1, time.monotonic() + 2 * self.policy.outage
        while True:
            try:
                return work()
            except ToolError as error:
                if not error.transient or self.stopping.is_set():
                    raise
                # a host that comes and goes is no reason to try for ever
                if error.outage and self.outages and time.monotonic() < latest and self.outages.wait(error):
                    continue
                if attempt >= self.policy.attempts:
                    raise
                if on_retry is not None:
                    on_retry(attempt, error)
                if self.stopping.wait(self.policy.pause(attempt)):
                    raise
                attempt += 1
