"""A signal at each moment of some work at which Python would notice one."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

from regwrap.core.errors import Interrupted
from regwrap.core.interruption import handle_signals, let_signals_be


class _SignalAt:
    """SIGINT at the `number`-th of those moments: a call that begins, or one of C's that ends."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        if event in {"call", "c_return"}:
            self.left -= 1
            if not self.left:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)


def interrupted_at(number: int, work: Callable[[], object]) -> bool:
    """Whether `work` has so many moments; it was interrupted at this one, if that was not its last call's end. What
    Python does once in a process, as to compile a pattern, has moments that later runs have not: do it once before."""
    handle_signals()  # one signal is all that is ever raised
    moment, hook = _SignalAt(number), sys.unraisablehook
    sys.unraisablehook = lambda _unraisable: None  # what comes while Python finalises something, a run has once more
    sys.setprofile(moment)
    try:
        work()
    except Interrupted:
        assert not moment.left
    finally:
        sys.setprofile(None)
        sys.unraisablehook = hook
        let_signals_be()
    return not moment.left
