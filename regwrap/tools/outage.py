"""A host that is away for a while: one of those that need it asks whether it is there again, the others wait with it.

Whether it is away is not guessed from one failure: it is asked. A host that was never there is waited for less long,
as it may be none at all.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import HostDownError, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_AT_FIRST: Final = 60.0


@dataclass(slots=True)
class Outage:
    """Of one host; safe to use from several threads. `ask` says whether it is there; without it nobody waits.

    `longest` in seconds. `log` hears a line when it is away, and one when it is back.
    """

    host: str
    longest: float
    stopping: threading.Event
    log: Callable[[str], None] = lambda _line: None
    ask: Callable[[], bool] | None = None
    was_there: bool = False
    is_away: bool = False
    is_over: bool = False
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, error: ToolError) -> bool:
        """Wait until the host is back; False where it has not been away. Raises HostDownError when it stays away."""
        if self.ask is None or not self.longest:
            return False
        is_alone = self._asking.acquire(blocking=False)
        if not is_alone:
            self._asking.acquire()
        try:
            if self.is_over:
                raise self.down(error)
            return self._waited(error) or not is_alone
        finally:
            self._asking.release()

    def down(self, error: ToolError) -> HostDownError:
        return host_down(self.host, error)

    def _waited(self, error: ToolError) -> bool:
        ask, pause, began = self.ask, _FIRST_PAUSE, time.monotonic()
        if ask is None or ask():
            return False
        longest = self.longest if self.was_there else min(self.longest, _AT_FIRST)
        self.is_away = True
        self.log(f"{self.host} does not answer ({_first_line(error)}); waiting up to {longest:.0f} s for it")
        try:
            while time.monotonic() - began < longest:
                if self.stopping.wait(pause):
                    raise error
                if ask():
                    self.log(f"{self.host} answers again after {time.monotonic() - began:.0f} s")
                    return True
                pause = min(2 * pause, _LONGEST_PAUSE)
            self.is_over = True
            raise self.down(error)
        finally:
            self.is_away = False


def host_down(host: str, error: ToolError | None) -> HostDownError:
    """What is said of all that needs the host, after `error`, the last that came of it."""
    again = "rerun the command when it answers again; finished work is not repeated"
    return HostDownError(
        f"{host} is down",
        detail=f"{error or ''}",
        hint=f"{error.hint}; then {again}" if error and error.hint else again,
        host=host,
    )


@dataclass(slots=True)
class Outages:
    """One Outage a host, for the length of a run."""

    longest: float
    stopping: threading.Event
    log: Callable[[str], None]
    _known: dict[str, Outage] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, host: str) -> Outage:
        with self._lock:
            return self._known.setdefault(host, Outage(host, self.longest, self.stopping, self.log))

    def wait(self, error: ToolError) -> bool:
        """Whether the host that `error` is about was away and is back; see `Outage.wait`."""
        with self._lock:
            known = self._known.get(error.host)
        return known is not None and known.wait(error)


def _first_line(error: ToolError) -> str:
    return (error.detail.strip() or error.message).partition("\n")[0][-160:]
