"""How much work something is, counted, so that no clock tells it."""

import sys
import threading
from collections.abc import Callable
from types import FrameType


def calls_of(work: Callable[[], object], name: str = "") -> int:
    """Of Python's functions and of those in C, in all threads; or only of Python's functions with a name."""
    count = 0

    def called(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_name == name if name else event in {"call", "c_call"}

    threading.setprofile(called)
    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return count
