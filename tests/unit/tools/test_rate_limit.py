"""How hard a host is asked: halving, creeping up, pauses, pace, and when it counts as down. All times are given."""

import math
import threading
from dataclasses import dataclass

import pytest

from regwrap.core.errors import HostDownError, ToolError
from regwrap.core.location import Registry
from regwrap.tools.rate_limit import HostLimiter, HostLimiters, RateLimit, pause_of


def full(rate: RateLimit, now: float = 0.0, weight: int = 1) -> int:
    """Start as many as may run at `now`; how many run then."""
    while rate.delay(now, weight) == 0:
        assert rate.running < 1000
        rate.start(now, weight)
    return rate.running


def test_without_a_budget_nothing_waits() -> None:
    rate = RateLimit()
    for _ in range(500):
        assert rate.delay(0.0) == 0
        rate.start(0.0)


def test_a_budget_bounds_what_runs_together() -> None:
    rate = RateLimit(most=3)
    assert full(rate) == 3
    assert rate.delay(0.0) == math.inf
    rate.end()
    assert rate.delay(0.0) == 0


def test_what_is_heavier_than_the_budget_goes_alone() -> None:
    rate = RateLimit(most=4)
    assert full(rate, weight=6) == 6
    assert rate.delay(0.0) == math.inf
    rate.end(6)
    assert rate.delay(0.0, 6) == 0


def test_a_pace_spaces_the_starts() -> None:
    rate = RateLimit(interval=0.5)
    starts = []
    now = 10.0
    for _ in range(4):
        now += rate.delay(now)
        starts.append(now)
        rate.start(now)
    assert starts == [10.0, 10.5, 11.0, 11.5]


def test_too_many_requests_halve_once_a_round_and_answers_raise_it_again() -> None:
    rate = RateLimit(most=16)
    assert full(rate) == 16
    for _ in range(16):  # all of one round complain
        rate.pushed_back(5.0, started=0.0, pause=0)
    for _ in range(16):
        rate.end()
    assert rate.limit == 8
    assert full(rate, now=5.0) == 8
    rate.pushed_back(6.0, started=5.0, pause=0)
    assert rate.limit == 4
    for _ in range(5):
        rate.answered()
    assert 5 <= rate.limit < 6
    for _ in range(1000):
        rate.answered()
    assert rate.limit == 16


def test_without_a_budget_half_of_what_ran_is_the_limit() -> None:
    rate = RateLimit()
    for _ in range(10):
        rate.start(0.0)
    rate.pushed_back(1.0, started=0.0, pause=0)
    assert rate.limit == 5


def test_one_always_may_run() -> None:
    rate = RateLimit()
    for second in range(10):
        rate.pushed_back(float(second), started=float(second), pause=0)
    assert full(rate, now=20.0) == 1


def test_a_demanded_pause_is_kept_and_bounded() -> None:
    rate = RateLimit(max_pause=30)
    rate.pushed_back(100.0, started=99.0, pause=7)
    assert rate.delay(101.0) == 6
    assert rate.delay(107.0) == 0
    rate.pushed_back(200.0, started=199.0, pause=86400)
    assert rate.delay(200.0) == 30


def test_a_host_that_cannot_be_reached_is_down_once_an_image_is_given_up() -> None:
    rate = RateLimit()
    for _ in range(100):
        rate.unreachable()
    assert not rate.down
    rate.gave_up()
    assert rate.down


def test_an_answer_from_the_host_means_that_it_is_not_down() -> None:
    rate = RateLimit()
    rate.unreachable()
    rate.answered()
    rate.gave_up()
    assert not rate.down


def test_one_image_that_is_broken_there_is_no_reason_but_several_in_a_row_are() -> None:
    rate = RateLimit()
    rate.gave_up()
    rate.gave_up()
    rate.answered()
    rate.gave_up()
    rate.gave_up()
    assert not rate.down
    rate.gave_up()
    assert rate.down


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_host_that_is_down_gives_no_slots_and_says_why() -> None:
    limiter = HostLimiter(host="r.example", clock=Clock())
    with limiter.slot():
        limiter.unreachable()
    error = limiter.gave_up(ToolError("r.example could not be reached", detail="refused", transient=True))
    assert isinstance(error, HostDownError)
    with (
        pytest.raises(HostDownError, match=r"r\.example is down: r\.example could not be reached: refused") as raised,
        limiter.slot(),
    ):
        pass
    assert not raised.value.transient
    assert "rerun the command" in raised.value.hint


def test_a_slot_that_fails_is_given_back() -> None:
    limiter = HostLimiter(host="r.example", rate=RateLimit(most=1), clock=Clock())
    with pytest.raises(ZeroDivisionError), limiter.slot():
        raise ZeroDivisionError
    with limiter.slot():
        assert limiter.rate.running == 1
    assert limiter.rate.running == 0


def test_who_waits_for_a_slot_gets_it_when_another_ends() -> None:
    limiter = HostLimiter(host="r.example", rate=RateLimit(most=1))
    got = threading.Event()

    def wait() -> None:
        with limiter.slot():
            got.set()

    with limiter.slot():
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not got.is_set()
    assert got.wait(10)
    waiter.join()


def test_stopping_ends_the_wait_for_a_slot() -> None:
    stopping = threading.Event()
    limiter = HostLimiter(host="r.example", rate=RateLimit(interval=10**6), stopping=stopping)
    with limiter.slot():
        pass
    stopping.set()
    with pytest.raises(ToolError, match="is stopping"), limiter.slot():
        pass


def test_each_host_has_a_limiter_of_its_own_with_its_budget() -> None:
    limiters = HostLimiters()
    plain = Registry(host="a.example", tls_verify=True)
    bounded = Registry(host="b.example", tls_verify=True, max_connections=2, requests_per_second=4)
    assert limiters.of(plain) is limiters.of(plain)
    assert limiters.of(plain).rate.limit == math.inf
    assert (limiters.of(bounded).rate.limit, limiters.of(bounded).rate.interval) == (2, 0.25)
    with limiters.slots((bounded, plain, bounded), 1):
        assert limiters.of(bounded).rate.running == limiters.of(plain).rate.running == 1


def test_an_error_of_no_known_host_stays_what_it_is() -> None:
    error = ToolError("broke", transient=True)
    assert HostLimiters().gave_up(error) is error


def test_only_what_was_tried_to_the_end_speaks_against_a_host() -> None:
    """Images that it refuses, or that an interruption ended, are no reason to leave out all others."""
    host, limiters = Registry(host="a.example", tls_verify=True), HostLimiters()
    limiter = limiters.of(host)
    refused, broke = (ToolError("no", transient=transient, host=host.host) for transient in (False, True))
    limiters.stopping.set()
    assert [limiters.gave_up(error) for error in 3 * [refused, broke]] == 3 * [refused, broke]
    limiters.stopping.clear()
    assert [limiters.gave_up(refused) for _ in range(3)] == 3 * [refused]
    assert not limiter.rate.down
    assert [limiters.gave_up(broke) for _ in range(2)] == 2 * [broke]
    assert isinstance(limiters.gave_up(broke), HostDownError)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("1.5", 0),
        ("²", 0),
        ("9" * 400, 999_999_999),
        ("Tue, 99 Nov 2026 12:00:30 GMT", 0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert pause_of(text, now=1795521600.0) == seconds


def test_a_thread_that_has_a_slot_does_not_wait_for_itself() -> None:
    limiter, done = HostLimiter(host="h", rate=RateLimit(most=1)), threading.Event()

    def work() -> None:
        with limiter.slot(), limiter.slot():
            done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ended = done.wait(5)
    limiter.stopping.set()
    thread.join(5)
    assert ended
    assert limiter.rate.running == 0
