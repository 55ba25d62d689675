"""Retries: how often, for which errors, and that nobody waits for a run that is stopping."""

import threading
import time

import pytest

from regwrap.core.errors import IntegrityError, Interrupted, ToolError
from regwrap.tools.retry import Retry, RetryPolicy


class Work:
    """Raises the errors given, one a call, and then returns its number of calls."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.retries: list[tuple[int, str]] = []

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls

    def on_retry(self, attempt: int, error: ToolError) -> None:
        self.retries.append((attempt, error.message))


def retry(attempts: int = 4, wait: float = 0.0001, stopping: threading.Event | None = None) -> Retry:
    return Retry(RetryPolicy(attempts=attempts, wait=wait, max_wait=wait), stopping or threading.Event())


def transient(text: str) -> ToolError:
    return ToolError(text, transient=True)


def test_success_at_once_is_no_retry() -> None:
    work = Work()
    assert retry().call(work, on_retry=work.on_retry) == 1
    assert work.retries == []


def test_a_transient_error_is_tried_again() -> None:
    work = Work(transient("one"), transient("two"))
    assert retry().call(work, on_retry=work.on_retry) == 3
    assert work.retries == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_count_the_first_and_the_last_error_is_raised(attempts: int) -> None:
    errors = [transient(str(number)) for number in range(attempts)]
    work = Work(*errors)
    with pytest.raises(ToolError) as raised:
        retry(attempts).call(work, on_retry=work.on_retry)
    assert raised.value is errors[-1]
    assert work.calls == attempts
    assert len(work.retries) == attempts - 1


@pytest.mark.parametrize("error", [ToolError("no"), IntegrityError("no"), ValueError("no"), Interrupted(2)])
def test_any_other_error_is_raised_at_once(error: BaseException) -> None:
    work = Work(error)
    with pytest.raises(type(error)) as raised:
        retry().call(work, on_retry=work.on_retry)
    assert raised.value is error
    assert (work.calls, work.retries) == (1, [])


def test_a_retry_can_be_used_again() -> None:
    both = retry(attempts=2)
    for work in (Work(transient("a")), Work(transient("b"))):
        assert both.call(work, on_retry=work.on_retry) == 2


def test_no_attempt_follows_once_the_run_is_being_stopped() -> None:
    stopping = threading.Event()
    stopping.set()
    work = Work(transient("one"))
    with pytest.raises(ToolError, match="one"):
        retry(wait=60, stopping=stopping).call(work, on_retry=work.on_retry)
    assert (work.calls, work.retries) == (1, [])


def test_stopping_ends_the_wait_at_once_and_nothing_is_tried_again() -> None:
    stopping, error = threading.Event(), transient("one")
    work = Work(error)
    started = time.monotonic()
    with pytest.raises(ToolError) as raised:
        retry(wait=600, stopping=stopping).call(work, on_retry=lambda _attempt, _error: stopping.set())
    assert raised.value is error
    assert work.calls == 1
    assert time.monotonic() - started < 60


def test_pauses_grow_up_to_the_longest() -> None:
    policy = RetryPolicy(wait=1, max_wait=5)
    longest = [max(policy.pause(attempt) for _ in range(200)) for attempt in (1, 2, 3, 9)]
    assert all(half < found <= most for half, found, most in zip((0.5, 1, 2, 2.5), longest, (1, 2, 4, 5), strict=True))


def test_a_final_error_after_a_transient_one_ends_it() -> None:
    """A 401 after a 503 is no reason to ask again."""
    work = Work(transient("busy"), ToolError("denied"))
    with pytest.raises(ToolError, match="denied"):
        retry().call(work, on_retry=work.on_retry)
    assert work.calls == 2
    assert work.retries == [(1, "busy")]
