"""Signals as exceptions in the main thread, and the moments at which they have to wait.

Python runs a handler between any two instructions of the main thread. Most code can stand an exception there; starting
a program cannot: a process that nobody knows yet would be left, and what is raised in a hook around a fork is only
printed. Other threads hear of it where they ask.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from regwrap.core.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from sys import UnraisableHookArgs
    from types import FrameType

T = TypeVar("T")

_AGAIN_SECONDS: Final = 0.01
_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class _Waiting:
    """How many blocks make signals wait, the one that waits, and the one that was raised."""

    blocks: int = 0
    number: int = 0
    raised: int = 0


_WAITING: Final = _Waiting()


def handle_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise Interrupted, once; a second one ends regwrap at once, and its
    children die with it. What nohup ignores stays ignored."""
    _WAITING.raised = 0
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def let_signals_be() -> None:
    """The run is over: a signal that comes now just ends the process."""
    _WAITING.raised = 0
    for number in _NUMBERS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal that comes in the block is raised at its end. Only the main thread is ever interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _WAITING.blocks += 1
    try:
        yield
    finally:
        _WAITING.blocks -= 1
    if not _WAITING.blocks and _WAITING.number:
        number, _WAITING.number = _WAITING.number, 0
        _raise(number)


def is_interrupted() -> bool:
    """Whether the run has been, for its other threads: who waits for them is the main one, which never hears yes."""
    return bool(_WAITING.raised) and threading.current_thread() is not threading.main_thread()


def end_if_interrupted() -> None:
    """For work that takes long without a wait in it, between two of its steps. Raises Interrupted."""
    if is_interrupted():
        raise Interrupted(_WAITING.raised)


@contextmanager
def held(acquire: Callable[[], T], let_go: Callable[[T], None]) -> Iterator[T]:
    """What `acquire` gives, for the block; `let_go` has it in the end. A signal finds it not there yet, or known:
    making a file takes a while, and nobody would know its name."""
    acquired: list[T] = []

    def end() -> None:
        while acquired:
            let_go(acquired.pop())

    try:
        with uninterrupted():
            acquired.append(acquire())
        yield acquired[0]
    finally:
        try:
            with uninterrupted():
                end()
        except Interrupted:
            end()  # it came before that began: no second one is raised
            raise


def raise_again(unraisable: UnraisableHookArgs) -> bool:
    """For sys.unraisablehook: an interruption that Python could only print, in a finaliser for one, comes once more."""
    error = unraisable.exc_value
    if not isinstance(error, Interrupted):
        return False
    number = error.signum
    signal.signal(signal.SIGALRM, lambda _number, frame: _interrupt(number, frame))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    return True


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    if _WAITING.blocks:
        _WAITING.number = number
        return
    _raise(number)


def _raise(number: int) -> NoReturn:
    _WAITING.raised = number
    raise Interrupted(number)
