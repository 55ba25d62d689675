"""A signal is raised once, not where it would be lost or leave a process behind, and never only printed."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from regwrap.core.errors import Interrupted
from regwrap.core.interruption import (
    end_if_interrupted,
    let_signals_be,
    raise_again,
    uninterrupted,
)
from regwrap.storage.stage import temporary_stage
from regwrap.storage.tree import Tree
from tests.interruptions import interrupted_at

if TYPE_CHECKING:
    import sys

pytestmark = pytest.mark.usefixtures("handled_signals")


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append("started")

    with pytest.raises(Interrupted, match="15"):
        work()
    assert done == ["started"]


def test_the_outermost_block_counts() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")

    with pytest.raises(Interrupted, match="2"):
        work()
    assert done == ["inner"]


def test_a_block_of_another_thread_makes_nothing_wait() -> None:
    entered, over = threading.Event(), threading.Event()

    def other() -> None:
        with uninterrupted():
            entered.set()
            over.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    over.set()
    thread.join()


def test_an_error_of_the_block_counts_more_than_the_signal() -> None:
    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        work()
    with pytest.raises(Interrupted), uninterrupted():
        pass


def test_an_interruption_that_was_only_printed_comes_again() -> None:
    printed = SimpleNamespace(exc_value=Interrupted(signal.SIGHUP))

    def work() -> None:  # a busy machine may be interrupted before the next line
        assert raise_again(cast("sys.UnraisableHookArgs", printed))
        time.sleep(10)

    with pytest.raises(Interrupted, match="1"):
        work()
    assert not raise_again(cast("sys.UnraisableHookArgs", SimpleNamespace(exc_value=ValueError())))


def test_a_second_signal_ends_a_program_that_does_not_come_to_its_end() -> None:
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_after_the_run_a_signal_just_ends_the_process() -> None:
    let_signals_be()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("delay", [0.0, 0.0002, 0.001, 0.002, 0.004, 0.008])
def test_a_signal_at_any_moment_leaves_no_stage(tmp_path: Path, delay: float) -> None:
    (tmp_path / "own").mkdir()

    def work() -> None:
        with temporary_stage(Tree(tmp_path / "own"), "stage") as stage:
            for number in range(500):
                os.close(stage.create(f"{number}"))
            signal.setitimer(signal.ITIMER_REAL, max(delay, 1e-6))
        while True:
            time.sleep(0.01)  # it comes here at the latest

    signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        work()
    assert list((tmp_path / "own").iterdir()) == []


def test_a_signal_at_any_call_leaves_no_stage(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()

    def work() -> None:
        with temporary_stage(Tree(own), "stage"):
            pass

    work()
    number = 1
    while interrupted_at(number, work):
        assert list(own.iterdir()) == []
        number += 1
    assert number > 5


def test_other_threads_hear_of_an_interruption_the_main_one_only_once() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(end_if_interrupted).result()
        with pytest.raises(Interrupted, match="15"):
            signal.raise_signal(signal.SIGTERM)
        end_if_interrupted()  # it tidies up
        with pytest.raises(Interrupted, match="15"):
            pool.submit(end_if_interrupted).result()
        let_signals_be()
        pool.submit(end_if_interrupted).result()


def test_nor_before_a_block_has_ended_that_makes_signals_wait() -> None:
    def work() -> None:
        with ThreadPoolExecutor(1) as pool, uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            pool.submit(end_if_interrupted).result()
            done.append("its threads too")

    done: list[str] = []
    with pytest.raises(Interrupted):
        work()
    assert done
