"""The pool: what a user notices is the order, the first error, and a quick end."""

import threading
from collections.abc import Callable
from itertools import count

import pytest

from regwrap.core.pool import map_in_order, map_waiting


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert map_in_order(lambda n: n * n, range(20), workers=workers, name="square") == tuple(n * n for n in range(20))


@pytest.mark.parametrize("number", [2, 3])
def test_several_items_are_in_work_at_the_same_time(number: int) -> None:
    """Each of them waits until the others are there: one after the other they would wait for ever."""
    barrier = threading.Barrier(number, timeout=10)
    found = map_in_order(lambda _: barrier.wait(), range(number), workers=number, name="meet")
    assert sorted(found) == list(range(number))


def test_the_first_error_ends_the_waits_of_the_others_and_drops_what_has_not_begun() -> None:
    stopping, begun = threading.Event(), []
    waiting = threading.Barrier(2, timeout=10)

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            waiting.wait()
            raise ValueError("the first")
        if number == 1:
            waiting.wait()
        assert stopping.wait(10), "nobody told the other worker to stop"

    with pytest.raises(ValueError, match="the first"):
        map_in_order(work, range(50), workers=2, name="wait", stopping=stopping)
    assert stopping.is_set()
    assert len(begun) < 5


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_as_it_is_where_nobody_waits_to_be_stopped(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        map_in_order(lambda n: 1 // n, [1, 0], workers=workers, name="divide")
    with pytest.raises(ZeroDivisionError):
        map_waiting(lambda n: 1 // n, [1, 0, 1, 1], workers=workers, most=3)


# --- for answers that take long


def most_together(number: int, *, alone: int, together: int, clock: Callable[[], float]) -> int:
    """How many were in work at the same time. `alone` of them wait for nobody, the others until so many are there."""
    lock, running, most = threading.Lock(), 0, 0
    barrier = threading.Barrier(together, timeout=60)

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if item >= alone:
            barrier.wait()
        with lock:
            running -= 1
        return item

    found = map_waiting(work, range(number), workers=2, most=16, clock=clock)
    assert found == tuple(range(number))
    return most


def test_where_answers_take_long_more_are_waited_for() -> None:
    assert most_together(14 + 2 * 16, alone=14, together=16, clock=count(step=1.0).__next__) == 16


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_however_many_there_are_each_is_answered_once_and_in_its_place(seconds: float) -> None:
    for number in range(12):
        clock = count(step=seconds).__next__
        assert map_waiting(lambda n: n * n, range(number), workers=2, most=4, clock=clock) == tuple(
            n * n for n in range(number)
        )


def test_where_they_come_at_once_no_more_than_the_workers_ask() -> None:
    assert most_together(20, alone=0, together=2, clock=lambda: 1000.0) == 2


def test_an_error_among_many_that_wait_ends_them() -> None:
    stopping, begun = threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        map_waiting(work, range(50), workers=2, most=4, stopping=stopping)
    assert stopping.is_set()
    assert len(begun) < 8
