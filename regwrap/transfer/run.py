"""Run a Plan: workers, retries, outcomes. One image's failure is a value and never stops the others.

Two copies that miss the same blob do not run at the same time: the first fetches it, the others then find it. There
are no barriers: what can start, starts, in the plan's order.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from regwrap.core.errors import HostDownError, ImagesFailedError, IntegrityError, ToolError
from regwrap.core.listener import Outlook
from regwrap.core.moves import TagMove

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from regwrap.core.model import Digest
    from regwrap.core.release_id import ReleaseId
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.tools.retry import Retry
    from regwrap.transfer.job import Events
    from regwrap.transfer.plan import Copy, Drifted, Plan, Skip
    from regwrap.transfer.workers import WorkerShare


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """`sent` in bytes, `seconds` with all attempts, `start` in seconds since the run began to copy. `worker` is a
    number from 0 on: two images of one worker never overlap."""

    copy: Copy
    sent: int
    attempts: int
    seconds: float
    start: float = field(default=0, compare=False)
    worker: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`down`: the host that is, if that is why. `sent` bytes travelled for it all the same. `worker` is None where no
    copy was begun."""

    entry: ImageEntry
    error: str
    hint: str
    attempts: int
    down: str = ""
    sent: int = 0
    seconds: float = field(default=0, compare=False)
    start: float = field(default=0, compare=False)
    worker: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What came of a plan: every image is in exactly one of the first three. `moved` are tags that are others at the
    source than what was copied. `release` is what the images are, or become. `workers` are a cluster's."""

    copied: tuple[Copied, ...]
    skipped: tuple[Skip, ...]
    failed: tuple[Failed, ...]
    seconds: float
    moved: tuple[Drifted, ...] = ()
    release: ReleaseId | None = None
    workers: tuple[WorkerShare, ...] = ()

    @property
    def replaced(self) -> tuple[TagMove, ...]:
        """Tags of the destination that were another image before."""
        found = ((item.copy.entry.dest, item.copy) for item in self.copied)
        moves = (TagMove(image=f"{dest}", old=copy.replaced, new=copy.digest) for dest, copy in found)
        return tuple(sorted((move for move in moves if move.old is not None), key=lambda move: move.image))

    @property
    def sent(self) -> int:
        """Bytes that travelled."""
        return sum(item.sent for item in self.copied) + sum(item.sent for item in self.failed)


def run_plan(
    plan: Plan,
    copier: ImageCopier,
    *,
    jobs: int,
    retry: Retry,
    events: Events,
    gave_up: Callable[[ToolError], ToolError],
) -> SyncReport:
    """Copy what the plan says, `jobs` at a time. An interruption ends the waits and is raised again. `gave_up` says
    whether a host is down, when an image was tried to the end."""
    started, remaining = time.monotonic(), _Remaining.of(plan.copies)
    events.watch(lambda: remaining.outlook(copier.bytes_under_way()))
    work = _Work(copier=copier, retry=retry, events=events, gave_up=gave_up, began=started, remaining=remaining)
    outcomes = _run_ready(_Queue.of(plan.copies, by_repository=copier.exclusive_repositories), work.copy, jobs, retry)
    return report_of(plan, outcomes, time.monotonic() - started)


def report_of(plan: Plan, outcomes: Sequence[Copied | Failed], seconds: float) -> SyncReport:
    """What came of the plan, its copies having come to `outcomes`."""
    failed = [*(o for o in outcomes if isinstance(o, Failed)), *_unseen(plan)]
    return SyncReport(
        copied=tuple(o for o in outcomes if isinstance(o, Copied)),
        skipped=plan.skips,
        failed=tuple(sorted(failed, key=lambda f: (f.entry.line, f.entry.dest))),
        seconds=seconds,
    )


def nothing_copied(plan: Plan) -> SyncReport:
    """What comes of a plan without copies."""
    return SyncReport(copied=(), skipped=plan.skips, failed=tuple(_unseen(plan)), seconds=0)


def _unseen(plan: Plan) -> list[Failed]:
    return [Failed(entry=u.entry, error=u.error, hint=u.hint, attempts=1, down=u.down) for u in plan.unseen]


@dataclass(slots=True, kw_only=True)
class _Remaining:
    """`sizes` of the blobs that unfinished copies miss, and how many of them do; `sent` bytes travelled for others."""

    sizes: dict[Digest, int]
    users: Counter[Digest]
    sent: int = 0
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, copies: Sequence[Copy]) -> _Remaining:
        return cls(
            sizes={blob.digest: blob.size for copy in copies for blob in copy.missing},
            users=Counter(digest for copy in copies for digest in copy.claims),
        )

    def end(self, copy: Copy, outcome: Copied | Failed) -> None:
        """What nobody else waits for of one that has failed does not come any more."""
        with self._lock:
            self.sent += outcome.sent
            for digest in copy.claims:
                self.users[digest] -= 1
                if isinstance(outcome, Copied) or not self.users[digest]:
                    self.sizes.pop(digest, None)

    def outlook(self, under_way: int) -> Outlook:
        with self._lock:
            return Outlook(self.sent + under_way, max(0, sum(self.sizes.values()) - under_way))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    copier: ImageCopier
    retry: Retry
    gave_up: Callable[[ToolError], ToolError]
    events: Events
    began: float
    remaining: _Remaining

    def copy(self, copy: Copy, worker: int) -> Copied | Failed:
        started, attempts = time.monotonic(), 1
        start = started - self.began

        def on_retry(attempt: int, error: ToolError) -> None:
            nonlocal attempts
            attempts = attempt + 1
            self.events.retrying(copy, attempt, error)

        self.events.started(copy)
        outcome: Copied | Failed
        try:
            self.retry.call(lambda: self.copier.copy_image(copy), on_retry=on_retry)
            copied = Copied(copy=copy, sent=self.copier.sent(copy), attempts=attempts, seconds=0)
            outcome = replace(copied, seconds=time.monotonic() - started, start=start, worker=worker)
        except (ToolError, IntegrityError, ImagesFailedError) as error:
            last = self.gave_up(error) if isinstance(error, ToolError) else error
            sent = self.copier.sent(copy)
            failed = Failed(entry=copy.entry, error=str(last), hint=last.hint, attempts=attempts, sent=sent)
            down = last.host if isinstance(last, HostDownError) else ""
            outcome = replace(failed, down=down, seconds=time.monotonic() - started, start=start, worker=worker)
        if self.retry.stopping.is_set():  # what an interruption ended did not fail
            return outcome
        self.remaining.end(copy, outcome)
        if isinstance(outcome, Copied):
            self.events.copied(outcome)
        else:
            self.events.failed(outcome)
        return outcome


@dataclass(slots=True)
class _Queue:
    """The copies that wait, and the blobs that those under way have claimed.

    They wait in lines, of which the first may start: a repository is a line where two copies into one may not run at
    once, else each copy is one of its own. `heads` are the lines that may go on, in the plan's order.
    """

    lines: dict[Hashable, deque[tuple[int, Copy]]]
    by_repository: bool
    heads: list[tuple[int, Hashable]]
    copied_blobs: set[Digest] = field(default_factory=set)
    claimed: set[Digest] = field(default_factory=set)

    @classmethod
    def of(cls, copies: Sequence[Copy], *, by_repository: bool) -> _Queue:
        lines: dict[Hashable, deque[tuple[int, Copy]]] = {}
        for place, copy in enumerate(copies):
            lines.setdefault(_line_of(copy, by_repository=by_repository), deque()).append((place, copy))
        heads = [(line[0][0], key) for key, line in lines.items()]
        return cls(lines=lines, by_repository=by_repository, heads=heads)

    def pop(self) -> Copy | None:
        """The first copy that nothing under way disturbs."""
        for at, (_place, key) in enumerate(self.heads):
            copy = self.lines[key][0][1]
            missing = copy.claims - self.copied_blobs
            if self.claimed.isdisjoint(missing):
                self.claimed |= missing
                del self.heads[at]
                self.lines[key].popleft()
                return copy
        return None

    def give_back(self, copy: Copy, *, done: bool) -> None:
        self.claimed -= copy.claims
        if done:
            self.copied_blobs |= copy.claims
        key = _line_of(copy, by_repository=self.by_repository)
        if line := self.lines[key]:
            insort(self.heads, (line[0][0], key), key=lambda head: head[0])
        else:
            del self.lines[key]

    def is_empty(self) -> bool:
        return not self.lines


def _line_of(copy: Copy, *, by_repository: bool) -> Hashable:
    return copy.entry.dest.repository if by_repository else copy.entry.dest


def _run_ready(
    queue: _Queue, work: Callable[[Copy, int], Copied | Failed], jobs: int, retry: Retry
) -> list[Copied | Failed]:
    outcomes: list[Copied | Failed] = []
    running: dict[Future[Copied | Failed], tuple[Copy, int]] = {}
    idle = set(range(jobs))
    with ThreadPoolExecutor(jobs, thread_name_prefix="copy") as pool:
        try:
            while not queue.is_empty():
                while len(running) < jobs and (copy := queue.pop()) is not None:
                    worker = min(idle)
                    idle.remove(worker)
                    running[pool.submit(work, copy, worker)] = (copy, worker)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    (copy, worker), outcome = running.pop(future), future.result()
                    idle.add(worker)
                    queue.give_back(copy, done=isinstance(outcome, Copied))
                    outcomes.append(outcome)
        except BaseException:
            retry.stopping.set()  # all that was begun runs; the rest was never handed to the pool
            raise
    return outcomes


class ImageCopier(Protocol):
    """Copies one image to the destination; the same call again is harmless."""

    exclusive_repositories: bool
    """Whether two copies into one repository must not run at the same time."""

    def copy_image(self, copy: Copy) -> None:
        """Raises ToolError, IntegrityError or ImagesFailedError."""

    def sent(self, copy: Copy) -> int:
        """Bytes that travelled for it so far, in all tries."""

    def bytes_under_way(self) -> int:
        """Bytes of unfinished copies so far, for who watches."""
