"""How often a login may be tried: registries lock accounts, so three refusals in a row are the last.

Until a login has been accepted once, one request at a time tries it, whoever sends it: our own requests or a skopeo.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_REFUSALS: Final = 3
_LOOK_SECONDS: Final = 0.5  # an interruption notifies no condition
_PATIENCE: Final = 60  # who tries it may wait for a slot that we hold


@dataclass(slots=True)
class Trial:
    """One request with a login. Whoever sent it says what came of it; nothing: it says nothing of the login."""

    was_accepted: bool | None = None


@dataclass(slots=True)
class LoginLimiter:
    """For one host; safe to use from several threads. An entry is the authfile's key, a name that can be shown."""

    host: str
    stopping: threading.Event = field(default_factory=threading.Event)
    _accepted: set[str] = field(default_factory=set)
    _refusals: Counter[str] = field(default_factory=Counter)
    _tried: dict[str, int] = field(default_factory=dict)  # by the thread that does
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def is_accepted(self, entry: str) -> bool:
        """Whether a request with the login was."""
        return entry in self._accepted

    @contextmanager
    def trial(self, entry: str, advice: Callable[[], str]) -> Iterator[Trial]:
        """Wait for its slot, and hold it for the block. Raises ToolError once the entry was refused too often."""
        if not entry or entry in self._accepted or self._tried.get(entry) == threading.get_ident():
            yield Trial()
            return
        self._acquire(entry, advice)
        trial = Trial()
        try:
            yield trial
        finally:
            self._end(entry, trial)

    def _acquire(self, entry: str, advice: Callable[[], str]) -> None:
        latest = time.monotonic() + _PATIENCE
        with self._changed:
            while entry in self._tried and time.monotonic() < latest and not self.stopping.is_set():
                self._changed.wait(_LOOK_SECONDS)
            if self._refusals[entry] >= _MOST_REFUSALS:
                raise ToolError(
                    f"{self.host} has refused the login {entry} {_MOST_REFUSALS} times, and is not asked again",
                    hint=advice(),
                )
            if entry not in self._accepted:
                self._tried[entry] = threading.get_ident()

    def _end(self, entry: str, trial: Trial) -> None:
        with self._changed:
            if self._tried.get(entry) == threading.get_ident():
                del self._tried[entry]
            if trial.was_accepted:
                self._accepted.add(entry)
            elif trial.was_accepted is False:
                self._refusals[entry] += 1
            self._changed.notify_all()
