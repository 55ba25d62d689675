"""How often and how long apart: the only importer of tenacity. It never reads an error's text."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from regwrap.core.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable

    import tenacity

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` in all; waits between them grow from `wait` to `max_wait` seconds, with jitter.

    `stopping` ends all waits at once when the run is being stopped, and nothing is tried again. `on_give_up` hears the
    error of what was tried to the end, and says what to raise.
    """

    attempts: int = 4
    wait: float = 1.0
    max_wait: float = 30.0
    stopping: threading.Event = field(default_factory=threading.Event, compare=False)
    on_give_up: Callable[[ToolError], ToolError] = field(default=lambda error: error, compare=False)

    def call(self, work: Callable[[], T], *, on_retry: Callable[[int, ToolError], None]) -> T:
        """`work()`, again while it raises a transient ToolError. Raises the last error, or what `on_give_up` makes
        of it."""
        try:
            return work()
        except ToolError as error:  # so rare that the library is loaded only now
            if not error.transient:
                raise
            return self._again(work, error, on_retry)

    def _again(self, work: Callable[[], T], first: ToolError, on_retry: Callable[[int, ToolError], None]) -> T:
        """What `call` does once the first attempt has failed with `first`."""
        import tenacity  # most runs try nothing twice

        failed = [first]
        last: ToolError | None = None

        def attempt() -> T:
            if failed:
                raise failed.pop()
            return work()

        def before_sleep(state: tenacity.RetryCallState) -> None:
            nonlocal last
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, ToolError):
                last = error
                on_retry(state.attempt_number, error)

        def sleep(seconds: float) -> None:
            if self.stopping.wait(seconds) and last is not None:
                raise last

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, ToolError) and e.transient),
            stop=tenacity.stop_after_attempt(self.attempts) | tenacity.stop_when_event_set(self.stopping),
            wait=tenacity.wait_random_exponential(multiplier=self.wait, max=self.max_wait),
            sleep=sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except ToolError as error:
            verdict = self.on_give_up(error) if error.transient and not self.stopping.is_set() else error
            if verdict is error:
                raise
            raise verdict from error
