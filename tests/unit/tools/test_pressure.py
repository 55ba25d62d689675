"""How hard a host is asked: halving, creeping up, pauses, pace, and when it counts as down. All times are given."""

import math
import threading
from dataclasses import dataclass

import pytest

from regwrap.core.errors import HostDownError, ToolError
from regwrap.core.place import Registry
from regwrap.tools.pressure import Gates, HostGate, Pressure, pause_of


def full(pressure: Pressure, now: float = 0.0, weight: int = 1) -> int:
    """Start as many as may run at `now`; how many run then."""
    while pressure.delay(now, weight) == 0:
        assert pressure.running < 1000
        pressure.start(now, weight)
    return pressure.running


def test_without_a_budget_nothing_waits() -> None:
    pressure = Pressure()
    for _ in range(500):
        assert pressure.delay(0.0) == 0
        pressure.start(0.0)


def test_a_budget_bounds_what_runs_together() -> None:
    pressure = Pressure(most=3)
    assert full(pressure) == 3
    assert pressure.delay(0.0) == math.inf
    pressure.end()
    assert pressure.delay(0.0) == 0


def test_what_is_heavier_than_the_budget_goes_alone() -> None:
    pressure = Pressure(most=4)
    assert full(pressure, weight=6) == 6
    assert pressure.delay(0.0) == math.inf
    pressure.end(6)
    assert pressure.delay(0.0, 6) == 0


def test_a_pace_spaces_the_starts() -> None:
    pressure = Pressure(interval=0.5)
    starts = []
    now = 10.0
    for _ in range(4):
        now += pressure.delay(now)
        starts.append(now)
        pressure.start(now)
    assert starts == [10.0, 10.5, 11.0, 11.5]


def test_too_many_requests_halve_once_a_round_and_answers_raise_it_again() -> None:
    pressure = Pressure(most=16)
    assert full(pressure) == 16
    for _ in range(16):  # all of one round complain
        pressure.pushed_back(5.0, started=0.0, pause=0)
    for _ in range(16):
        pressure.end()
    assert pressure.limit == 8
    assert full(pressure, now=5.0) == 8
    pressure.pushed_back(6.0, started=5.0, pause=0)
    assert pressure.limit == 4
    for _ in range(5):
        pressure.answered()
    assert 5 <= pressure.limit < 6
    for _ in range(1000):
        pressure.answered()
    assert pressure.limit == 16


def test_without_a_budget_half_of_what_ran_is_the_limit() -> None:
    pressure = Pressure()
    for _ in range(10):
        pressure.start(0.0)
    pressure.pushed_back(1.0, started=0.0, pause=0)
    assert pressure.limit == 5


def test_one_always_may_run() -> None:
    pressure = Pressure()
    for second in range(10):
        pressure.pushed_back(float(second), started=float(second), pause=0)
    assert full(pressure, now=20.0) == 1


def test_a_demanded_pause_is_kept_and_bounded() -> None:
    pressure = Pressure(max_pause=30)
    pressure.pushed_back(100.0, started=99.0, pause=7)
    assert pressure.delay(101.0) == 6
    assert pressure.delay(107.0) == 0
    pressure.pushed_back(200.0, started=199.0, pause=86400)
    assert pressure.delay(200.0) == 30


def test_a_host_that_cannot_be_reached_is_down_once_an_image_is_given_up() -> None:
    pressure = Pressure()
    for _ in range(100):
        pressure.unreachable()
    assert not pressure.down
    pressure.gave_up()
    assert pressure.down


def test_an_answer_from_the_host_means_that_it_is_not_down() -> None:
    pressure = Pressure()
    pressure.unreachable()
    pressure.answered()
    pressure.gave_up()
    assert not pressure.down


def test_one_image_that_is_broken_there_is_no_reason_but_several_in_a_row_are() -> None:
    pressure = Pressure()
    pressure.gave_up()
    pressure.gave_up()
    pressure.answered()
    pressure.gave_up()
    pressure.gave_up()
    assert not pressure.down
    pressure.gave_up()
    assert pressure.down


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_host_that_is_down_gives_no_turns_and_says_why() -> None:
    gate = HostGate(host="r.example", clock=Clock())
    with gate.turn():
        gate.unreachable()
    error = gate.gave_up(ToolError("r.example could not be reached", detail="refused", transient=True))
    assert isinstance(error, HostDownError)
    with pytest.raises(HostDownError, match=r"r\.example is down: refused") as raised, gate.turn():
        pass
    assert not raised.value.transient
    assert "run the same command" in raised.value.hint


def test_a_turn_that_fails_is_given_back() -> None:
    gate = HostGate(host="r.example", pressure=Pressure(most=1), clock=Clock())
    with pytest.raises(ZeroDivisionError), gate.turn():
        raise ZeroDivisionError
    with gate.turn():
        assert gate.pressure.running == 1
    assert gate.pressure.running == 0


def test_who_waits_for_a_turn_gets_it_when_another_ends() -> None:
    gate = HostGate(host="r.example", pressure=Pressure(most=1))
    got = threading.Event()

    def wait() -> None:
        with gate.turn():
            got.set()

    with gate.turn():
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not got.is_set()
    assert got.wait(10)
    waiter.join()


def test_stopping_ends_the_wait_for_a_turn() -> None:
    stopping = threading.Event()
    gate = HostGate(host="r.example", pressure=Pressure(interval=10**6), stopping=stopping)
    with gate.turn():
        pass
    stopping.set()
    with pytest.raises(ToolError, match="being stopped"), gate.turn():
        pass


def test_each_host_has_a_gate_of_its_own_with_its_budget() -> None:
    gates = Gates()
    plain = Registry(host="a.example", tls_verify=True)
    bounded = Registry(host="b.example", tls_verify=True, max_connections=2, requests_per_second=4)
    assert gates.of(plain) is gates.of(plain)
    assert gates.of(plain).pressure.limit == math.inf
    assert (gates.of(bounded).pressure.limit, gates.of(bounded).pressure.interval) == (2, 0.25)
    with gates.turns((bounded, plain, bounded), 1):
        assert gates.of(bounded).pressure.running == gates.of(plain).pressure.running == 1


def test_an_error_of_no_known_host_stays_what_it_is() -> None:
    error = ToolError("broke", transient=True)
    assert Gates().gave_up(error) is error


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
