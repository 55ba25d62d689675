"""Who is being answered: a bound for all connections, and time limits for those that only hold a place.

Nothing here waits: whoever finds no place stands in a queue, and as long as somebody does, connections give theirs up
that wait for a request, the address first that holds most.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CONNECTIONS: Final = 256
_MAX_WAITING: Final = 4096  # sockets, each a descriptor; beyond that a client is turned away
_HEAD_SECONDS: Final = 30.0  # for the head of a request, from its first byte or the end of the one before
_CROWDED_SECONDS: Final = 1.0  # the same while somebody waits for a place
_LONG_SECONDS: Final = 30.0  # an answer to an address that holds more than half of the places, while others wait


@dataclass(eq=False, slots=True)
class Guest:
    """One connection. `idle_since`: it waits for the head of a request; None while it is answered."""

    request: socket.socket
    address: str
    began: float = field(default_factory=time.monotonic)
    idle_since: float | None = field(default_factory=time.monotonic)

    def waits(self) -> None:
        self.idle_since = time.monotonic()

    def is_heard(self) -> None:
        self.idle_since, self.began = None, time.monotonic()

    def leave(self) -> None:
        """Its thread finds the connection at an end."""
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class ServerConnections:
    """Safe to use from several threads. `start` begins to answer a guest, in a thread of its own."""

    start: Callable[[Guest], None]
    limit: int = MAX_CONNECTIONS
    _guests: set[Guest] = field(default_factory=set)
    _waiting: deque[Guest] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def come(self, guest: Guest) -> None:
        with self._lock:
            has_place = len(self._guests) < self.limit
            if has_place:
                self._guests.add(guest)
            elif len(self._waiting) < min(_MAX_WAITING, 16 * self.limit):
                self._waiting.append(guest)
            else:
                guest.request.close()
        if has_place:
            self._begin(guest)
        else:
            self.look()

    def go(self, guest: Guest) -> None:
        """Its place is the next one's."""
        with self._lock:
            self._guests.discard(guest)
            following = self._next()
        if following is not None:
            self._begin(following)

    def is_crowded(self) -> bool:
        return len(self._guests) >= self.limit

    def look(self) -> None:
        """End what has had its time; called now and then."""
        now = time.monotonic()
        with self._lock:
            guests, is_waited_for = tuple(self._guests), len(self._waiting)
        patience = _CROWDED_SECONDS if is_waited_for else _HEAD_SECONDS
        idle = [g for g in guests if g.idle_since is not None and now - g.idle_since >= patience]
        held = Counter(guest.address for guest in guests)
        idle.sort(key=lambda guest: (-held[guest.address], guest.idle_since or now))
        for guest in idle[:is_waited_for] if is_waited_for else idle:
            guest.leave()
        if is_waited_for and not idle:
            greedy = [g for g in guests if held[g.address] > self.limit // 2 and now - g.began >= _LONG_SECONDS]
            if greedy and any(held[guest.address] <= self.limit // 2 for guest in tuple(self._waiting)):
                min(greedy, key=lambda guest: guest.began).leave()

    def close(self) -> None:
        """Nobody who waits is answered any more."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for guest in waiting:
            guest.request.close()

    def _begin(self, guest: Guest) -> None:
        guest.waits()
        try:
            self.start(guest)
        except BaseException:
            guest.request.close()
            self.go(guest)
            raise

    def _next(self) -> Guest | None:
        """The one of those who wait whose address holds least; the first of them."""
        if not self._waiting or len(self._guests) >= self.limit:
            return None
        held = Counter(guest.address for guest in self._guests)
        following = min(self._waiting, key=lambda guest: held[guest.address])
        self._waiting.remove(following)
        self._guests.add(following)
        return following
