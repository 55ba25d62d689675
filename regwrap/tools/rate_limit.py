"""How hard a host may be asked: slots, a pace, the pauses it demands, and when it counts as down.

`RateLimit` decides, from times that it is given; a `HostLimiter` makes threads wait for what it decides. "Too many
requests" halves what is asked of a host at the same time, each answer raises that a little again. A host that nothing
came from while an image was tried to the end is down: what else needs it fails at once.
"""

from __future__ import annotations

import email.utils
import math
import threading
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import HostDownError, ToolError
from regwrap.tools.authfile import known_login, login_advice
from regwrap.tools.login_limiter import LoginLimiter, Trial
from regwrap.tools.outage import Outage, Outages, host_down

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regwrap.core.location import Registry

# An interruption sets an event and notifies no condition, so waits are looked at again this often.
_LOOK_SECONDS: Final = 0.5
_GIVEN_UP: Final = 3


@dataclass(slots=True, kw_only=True)
class RateLimit:
    """What one host bears. Pure: all times are the caller's, in seconds of one clock.

    `most` at the same time (0: no limit), `interval` between two starts, `max_pause` bounds what the host may demand.
    """

    most: int = 0
    interval: float = 0.0
    max_pause: float = math.inf
    limit: float = math.inf
    running: int = 0
    down: bool = False
    _next_start: float = -math.inf
    _paused_until: float = -math.inf
    _halved_at: float = -math.inf
    _unreachable: bool = False
    _given_up: int = 0

    def __post_init__(self) -> None:
        self.limit = min(self.limit, self.most or math.inf)

    def delay(self, now: float, weight: int = 1) -> float:
        """Seconds until a start of `weight` connections may be worth it; infinite: when another has ended."""
        # what is heavier than the limit goes alone
        if self.running and self.running + weight > self.limit:
            return math.inf
        return max(0.0, self._next_start - now, self._paused_until - now)

    def start(self, now: float, weight: int = 1) -> None:
        self.running += weight
        self._next_start = max(now, self._next_start) + self.interval

    def end(self, weight: int = 1) -> None:
        self.running -= weight

    def answered(self) -> None:
        """An answer that is no complaint: a little more at the same time, by one for each round of answers."""
        self._unreachable, self._given_up = False, 0
        self.limit = min(self.limit + 1 / self.limit, self.most or math.inf)

    def pushed_back(self, now: float, *, started: float, pause: float) -> None:
        """The host wants less. Answers to what had started before the last halving say nothing new."""
        self._unreachable = False
        self._paused_until = max(self._paused_until, now + min(pause, self.max_pause))
        if started >= self._halved_at:
            self.limit = max(1.0, min(self.limit, self.running) // 2)
            self._halved_at = now

    def unreachable(self) -> None:
        """No connection came about."""
        self._unreachable = True

    def gave_up(self) -> None:
        """An image was tried to the end and failed by this host. One that cannot be reached is down then; one that
        fails in other ways only after several images in a row without a good answer: one image may be broken there."""
        self._given_up += 1
        self.down = self.down or self._unreachable or self._given_up >= _GIVEN_UP


@dataclass(slots=True, kw_only=True)
class HostLimiter:
    """The way to one host, common to all threads: everyone takes a slot, and says what came of it."""

    host: str
    rate: RateLimit = field(default_factory=RateLimit)
    stopping: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    outages: Outages | None = None
    on_pushed_back: Callable[[str, str], None] = lambda _host, _retry_after: None
    logins: LoginLimiter = field(init=False)
    outage: Outage = field(init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _last: ToolError | None = None
    _mine: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.logins = LoginLimiter(self.host, self.stopping)
        self.outage = self.outages.of(self.host) if self.outages else Outage(self.host, 0, self.stopping)

    @contextmanager
    def slot(self, weight: int = 1) -> Iterator[float]:
        """Wait for a slot, and hold it for the block; yields when it began. Raises HostDownError.

        A thread that has one already goes on with it, or it would wait for itself.
        """
        if getattr(self._mine, "has_slot", False):
            yield self.clock()
            return
        started = self._acquire(weight)
        self._mine.has_slot = True
        try:
            yield started
        finally:
            self._mine.has_slot = False
            with self._changed:
                self.rate.end(weight)
                self._changed.notify_all()

    def _acquire(self, weight: int) -> float:
        with self._changed:
            while (delay := self._delay(weight)) > 0:
                self._changed.wait(min(delay, _LOOK_SECONDS))
            started = self.clock()
            self.rate.start(started, weight)
            return started

    def _delay(self, weight: int) -> float:
        if self.rate.down:
            raise self._error()
        if self.stopping.is_set():
            raise ToolError(f"{self.host} was not asked: regwrap is stopping")
        if self.outage.is_away:
            return math.inf
        return self.rate.delay(self.clock(), weight)

    def answered(self) -> None:
        self.outage.was_there = True
        with self._changed:
            self.rate.answered()
            self._changed.notify_all()

    def pushed_back(self, started: float, retry_after: str) -> None:
        """The host answered 429 or 503; `retry_after` is the header's text, or empty."""
        with self._changed:
            pause = pause_of(retry_after, time.time())
            self.rate.pushed_back(self.clock(), started=started, pause=pause)
        self.on_pushed_back(self.host, retry_after)

    def unreachable(self) -> None:
        with self._changed:
            self.rate.unreachable()

    def gave_up(self, error: ToolError) -> ToolError:
        """What to say of an image that `error` ended: that the host is down, or `error` as it is."""
        with self._changed:
            self.rate.gave_up()
            if not self.rate.down:
                return error
            self._last = self._last or error
            self._changed.notify_all()
            return self._error()

    def _error(self) -> HostDownError:
        return host_down(self.host, self._last)


@dataclass(slots=True, kw_only=True)
class HostLimiters:
    """One HostLimiter a host, for the length of a run. `max_pause` bounds what a Retry-After may demand;
    `on_pushed_back` hears of each host that wants less, and of its Retry-After."""

    max_pause: float = 30.0
    stopping: threading.Event = field(default_factory=threading.Event)
    outages: Outages | None = None
    on_pushed_back: Callable[[str, str], None] = lambda _host, _retry_after: None
    _known: dict[str, HostLimiter] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, registry: Registry) -> HostLimiter:
        with self._lock:
            if registry.host not in self._known:
                pace = registry.requests_per_second
                rate = RateLimit(
                    most=registry.max_connections or 0, interval=1 / pace if pace else 0.0, max_pause=self.max_pause
                )
                self._known[registry.host] = HostLimiter(
                    host=registry.host,
                    rate=rate,
                    stopping=self.stopping,
                    outages=self.outages,
                    on_pushed_back=self.on_pushed_back,
                )
            return self._known[registry.host]

    def pushed_back(self, host: str, started: float, retry_after: str) -> None:
        """A host said so to somebody else of this run."""
        if limiter := self._known.get(host):
            limiter.pushed_back(started, retry_after)

    @contextmanager
    def slots(self, registries: Iterable[Registry], weight: int) -> Iterator[float]:
        """A slot at each of them. Always in the same order, so that no two wait for each other."""
        started = 0.0
        with ExitStack() as stack:
            for _host, registry in sorted({registry.host: registry for registry in registries}.items()):
                started = stack.enter_context(self.of(registry).slot(weight))
            yield started

    @contextmanager
    def trials(self, asked: Iterable[tuple[Registry, str]]) -> Iterator[tuple[Trial, ...]]:
        """The slot to try the login that counts for each repository of a registry."""
        with ExitStack() as stack:
            yield tuple(stack.enter_context(self._trial(registry, name)) for registry, name in asked)

    def has_accepted(self, registry: Registry, repository: str) -> bool:
        """Whether the registry has taken the login that counts for a repository."""
        login = known_login(registry, repository)
        return login is not None and self.of(registry).logins.is_accepted(login.shown)

    def _trial(self, registry: Registry, repository: str) -> AbstractContextManager[Trial]:
        login = known_login(registry, repository)
        entry = login.shown if login else ""
        return self.of(registry).logins.trial(entry, lambda: login_advice(registry, repository))

    def gave_up(self, error: ToolError) -> ToolError:
        """What to say of an image that was tried to the end; see `HostLimiter.gave_up`."""
        limiter = self._known.get(error.host) if error.transient and not self.stopping.is_set() else None
        return error if limiter is None else limiter.gave_up(error)


def pause_of(retry_after: str, now: float) -> float:
    """Seconds that a Retry-After header asks for: a number or an HTTP date (RFC 9110, 10.2.3). 0 for anything else."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
