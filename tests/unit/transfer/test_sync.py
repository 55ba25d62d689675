"""Carrying out a plan: workers, claims, retries, and failures that stay with their image."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from regwrap.core.errors import ImagesFailedError, IntegrityError, Interrupted, RegwrapError, ToolError
from regwrap.core.listener import Outlook
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.transfer.plan import Copy, Observation, Plan, Unseen, make_plan
from regwrap.transfer.run import Copied, Failed, SyncReport, nothing_copied, run_plan
from tests.unit.transfer.test_plan import blob, entry, lacking, whole

BASE = blob("base", 1000)


@dataclass
class ListeningCopier:
    """Takes a little while for each copy, and notes who was under way together. `errors` are raised, one a call.

    Those that are `meeting` wait until all of them are under way: a busy machine starts threads when it likes.
    """

    errors: dict[str, list[RegwrapError]] = field(default_factory=dict)
    exclusive_repositories: bool = False
    seconds: float = 0.01
    order: list[str] = field(default_factory=list)
    together: set[frozenset[str]] = field(default_factory=set)
    most: int = 0
    during: Callable[[str], None] = lambda _name: None
    meeting: frozenset[str] = frozenset()
    _running: set[str] = field(default_factory=set)
    _carried: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _all_there: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self._all_there = threading.Barrier(max(1, len(self.meeting)))

    def copy_image(self, copy: Copy) -> None:
        name = str(copy.entry.dest)
        with self._lock:
            self.order.append(name)
            self.together |= {frozenset({name, other}) for other in self._running}
            self._running.add(name)
            self.most = max(self.most, len(self._running))
        try:
            self.during(name)
            if name in self.meeting:
                self._all_there.wait(30)
            time.sleep(self.seconds)
            if self.errors.get(name):
                raise self.errors[name].pop(0)
        finally:
            with self._lock:
                self._running.discard(name)
        self._carried.add(name)

    def sent(self, copy: Copy) -> int:
        return copy.bytes_missing if f"{copy.entry.dest}" in self._carried else 0

    def bytes_under_way(self) -> int:
        return 0


@dataclass
class Heard:
    """What the events said, in their order."""

    said: list[str] = field(default_factory=list)
    looks: list[Callable[[], Outlook]] = field(default_factory=list)

    def watch(self, look: Callable[[], Outlook], /) -> None:
        self.looks.append(look)

    def started(self, copy: Copy) -> None:
        self.said.append(f"started {copy.entry.dest}")

    def retrying(self, copy: Copy, attempt: int, error: ToolError) -> None:
        self.said.append(f"retrying {copy.entry.dest} {attempt} {error}")

    def copied(self, outcome: Copied) -> None:
        self.said.append(f"copied {outcome.copy.entry.dest}")

    def failed(self, outcome: Failed) -> None:
        self.said.append(f"failed {outcome.entry.dest}")


def plan_of(images: dict[str, Sequence[Descriptor]], *others: Observation) -> Plan:
    return make_plan((*(lacking(name, missing=missing) for name, missing in images.items()), *others))


def run(
    plan: Plan, copier: ListeningCopier, *, jobs: int = 8, attempts: int = 3, heard: Heard | None = None
) -> SyncReport:
    return carried(plan, copier, jobs=jobs, retry=retry_of(attempts, 0.0001), heard=heard)


def retry_of(attempts: int, wait: float) -> Retry:
    return Retry(RetryPolicy(attempts=attempts, wait=wait, max_wait=wait), threading.Event())


def carried(plan: Plan, copier: ListeningCopier, *, jobs: int, retry: Retry, heard: Heard | None = None) -> SyncReport:
    return run_plan(plan, copier, jobs=jobs, retry=retry, events=heard or Heard(), gave_up=lambda error: error)


def copied_names(report: SyncReport) -> list[str]:
    return sorted(str(item.copy.entry.dest) for item in report.copied)


def transient(text: str = "lost") -> ToolError:
    return ToolError(text, transient=True)


# --- outcomes


def test_nothing_to_do() -> None:
    report = run(plan_of({}), ListeningCopier())
    assert (report.copied, report.skipped, report.failed, report.sent) == ((), (), (), 0)


@pytest.mark.parametrize("jobs", [1, 8])
@pytest.mark.parametrize("error", [ToolError("broke"), IntegrityError("broke"), ImagesFailedError("broke")])
def test_one_failure_stops_no_other(jobs: int, error: RegwrapError) -> None:
    images: dict[str, Sequence[Descriptor]] = {f"a/{n}:1": [blob(f"{n}", 10)] for n in range(5)}
    copier = ListeningCopier({"a/2:1": [error]})
    report = run(plan_of(images), copier, jobs=jobs)
    assert copied_names(report) == ["a/0:1", "a/1:1", "a/3:1", "a/4:1"]
    assert report.failed == (Failed(entry=entry("a/2:1"), error="broke", hint="", attempts=1),)
    assert report.sent == 40
    assert len(copier.order) == 5


def test_what_was_not_seen_and_what_is_there_are_in_the_report() -> None:
    unseen = Unseen(entry=entry("a/no:1"), error="absent", hint="look")
    plan = plan_of({"a/b:1": []}, unseen, whole("a/same:1"))
    report = run(plan, ListeningCopier())
    assert report.skipped == plan.skips
    assert report.failed == (Failed(entry=unseen.entry, error="absent", hint="look", attempts=1),)


def test_a_plan_of_nothing_takes_no_time_and_is_told_in_full() -> None:
    unseen = Unseen(entry=entry("a/no:1"), error="absent", hint="look")
    plan = plan_of({}, unseen, whole("a/same:1"))
    failed = Failed(entry=unseen.entry, error="absent", hint="look", attempts=1)
    assert nothing_copied(plan) == SyncReport(copied=(), skipped=plan.skips, failed=(failed,), seconds=0)


def test_events_tell_the_whole_story() -> None:
    heard = Heard()
    copier = ListeningCopier({"a/b:1": [transient(), transient("again")], "a/c:1": [ToolError("broke")]})
    run(plan_of({"a/b:1": [], "a/c:1": []}), copier, jobs=1, heard=heard)
    assert heard.said == [
        "started a/b:1",
        "retrying a/b:1 1 lost",
        "retrying a/b:1 2 again",
        "copied a/b:1",
        "started a/c:1",
        "failed a/c:1",
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_what_ends_while_the_run_is_being_stopped_is_kept_and_told_nobody(fails: bool) -> None:
    """What Ctrl-C ended did not fail."""
    retry, heard = retry_of(1, 0.0001), Heard()
    errors: dict[str, list[RegwrapError]] = {"a/b:1": [ToolError("stopped")]} if fails else {}
    copier = ListeningCopier(errors, during=lambda _name: retry.stopping.set(), seconds=0)
    report = carried(plan_of({"a/b:1": []}), copier, jobs=1, retry=retry, heard=heard)
    assert (len(report.copied), len(report.failed)) == (int(not fails), int(fails))
    assert heard.said == ["started a/b:1"]


# --- retries


@pytest.mark.parametrize(("failures", "attempts", "done"), [(0, 1, True), (2, 3, True), (3, 3, False), (1, 1, False)])
def test_what_may_pass_is_tried_again(failures: int, attempts: int, done: bool) -> None:
    copier = ListeningCopier({"a/b:1": [transient() for _ in range(failures)]})
    report = run(plan_of({"a/b:1": []}), copier, attempts=attempts)
    assert len(copier.order) == min(failures + 1, attempts)
    outcome = report.copied[0] if done else report.failed[0]
    assert outcome.attempts == len(copier.order)


@pytest.mark.parametrize("error", [ToolError("final"), IntegrityError("final"), ImagesFailedError("final")])
def test_what_can_not_pass_is_not_tried_again(error: RegwrapError) -> None:
    copier = ListeningCopier({"a/b:1": [error]})
    assert run(plan_of({"a/b:1": []}), copier).failed[0].attempts == 1
    assert len(copier.order) == 1


# --- who may run together


def test_two_that_miss_the_same_blob_never_run_together() -> None:
    shared = {f"a/{n}:1": [BASE, blob(f"own-{n}", 1)] for n in range(2)}
    images: dict[str, Sequence[Descriptor]] = {**shared, "a/x:1": [blob("x", 1)], "a/y:1": [blob("y", 1)]}
    copier = ListeningCopier(meeting=frozenset({"a/x:1", "a/y:1"}))
    run(plan_of(images), copier)
    assert frozenset({"a/0:1", "a/1:1"}) not in copier.together
    assert frozenset({"a/x:1", "a/y:1"}) in copier.together


def test_a_blob_that_was_brought_is_no_claim_any_more() -> None:
    images: dict[str, Sequence[Descriptor]] = {f"a/{n}:1": [BASE] for n in range(5)}
    copier = ListeningCopier(meeting=frozenset(images) - {"a/0:1"})
    run(plan_of(images), copier)
    first, *others = copier.order
    assert not any(first in pair for pair in copier.together)
    assert copier.most == len(others)


def test_a_failed_first_copy_gives_its_claims_back_and_the_next_brings_them() -> None:
    images: dict[str, Sequence[Descriptor]] = {f"a/{n}:1": [BASE] for n in range(4)}
    copier = ListeningCopier({"a/0:1": [ToolError("broke")]}, meeting=frozenset({"a/2:1", "a/3:1"}))
    report = run(plan_of(images), copier)
    assert copied_names(report) == ["a/1:1", "a/2:1", "a/3:1"]
    assert copier.together == {frozenset({"a/2:1", "a/3:1"})}


@pytest.mark.parametrize("exclusive", [False, True])
def test_repositories_are_exclusive_where_the_carrier_says_so(exclusive: bool) -> None:
    images: dict[str, Sequence[Descriptor]] = {name: [] for name in ("a/b:1", "a/b:2", "c/d:1")}
    meeting = {"a/b:1", "c/d:1"} if exclusive else images.keys()
    copier = ListeningCopier(exclusive_repositories=exclusive, meeting=frozenset(meeting))
    run(plan_of(images), copier)
    assert (frozenset({"a/b:1", "a/b:2"}) in copier.together) != exclusive
    assert frozenset({"a/b:1", "c/d:1"}) in copier.together


def test_exclusive_repositories_keep_the_plans_order_among_each_other() -> None:
    images: dict[str, Sequence[Descriptor]] = {f"{name}:{n}": [] for n in range(3) for name in ("a/b", "c/d", "e")}
    plan, copier = plan_of(images), ListeningCopier(exclusive_repositories=True, seconds=0)
    report = run(plan, copier, jobs=1)
    assert copier.order == [str(copy.entry.dest) for copy in plan.copies]
    assert len(report.copied) == len(images)


def test_the_largest_image_comes_first_whatever_its_repository_is_called() -> None:
    """What takes longest must not begin last."""
    sizes = {"z/b:1": 100, "a/b:1": 70, "z/b:2": 50, "a/b:2": 20}
    images: dict[str, Sequence[Descriptor]] = {name: [blob(name, size)] for name, size in sizes.items()}
    copier = ListeningCopier(exclusive_repositories=True, seconds=0)
    run(plan_of(images), copier, jobs=1)
    assert copier.order == list(sizes)


@pytest.mark.parametrize("jobs", [1, 3])
def test_jobs_limit_how_many_run(jobs: int) -> None:
    images: dict[str, Sequence[Descriptor]] = {f"a/{n}:1": [] for n in range(9)}
    plan = plan_of(images)
    copier = ListeningCopier(meeting=frozenset(str(copy.entry.dest) for copy in plan.copies[:jobs]))
    run(plan, copier, jobs=jobs)
    assert copier.most == jobs


def test_one_job_keeps_the_plans_order() -> None:
    images: dict[str, Sequence[Descriptor]] = {f"a/{n}:1": [BASE, blob(f"own-{n}", n)] for n in range(6)}
    plan, copier = plan_of(images), ListeningCopier(seconds=0)
    run(plan, copier, jobs=1)
    assert copier.order == [str(copy.entry.dest) for copy in plan.copies]


def test_there_are_no_barriers() -> None:
    """A slow image keeps one worker busy, and the others go on with all that is left."""
    slow_may_end = threading.Event()
    images: dict[str, Sequence[Descriptor]] = {f"a/{n}:1": [blob(f"{n}", 100 - n)] for n in range(8)}

    def during(name: str) -> None:
        if name == "a/0:1":
            assert slow_may_end.wait(10)
        if name == "a/7:1":
            slow_may_end.set()

    report = run(plan_of(images), ListeningCopier(during=during), jobs=2)
    assert len(report.copied) == 8
    workers = {str(item.copy.entry.dest): item.worker for item in report.copied}
    assert workers == {"a/0:1": 0} | {f"a/{n}:1": 1 for n in range(1, 8)}


# --- bugs and Ctrl-C


@pytest.mark.parametrize("error", [Interrupted(2), ZeroDivisionError()])
def test_what_is_no_images_failure_ends_the_run(error: BaseException) -> None:
    images: dict[str, Sequence[Descriptor]] = {f"a/{n}:1": [blob(f"{n}", 100 - n)] for n in range(50)}

    def during(name: str) -> None:
        if name == "a/1:1":
            raise error

    copier, retry = ListeningCopier(during=during), retry_of(3, 60)
    with pytest.raises(type(error)):
        carried(plan_of(images), copier, jobs=2, retry=retry)
    assert retry.stopping.is_set()
    assert len(copier.order) < 10


def test_waits_between_attempts_end_with_the_run() -> None:
    def during(name: str) -> None:
        if name == "a/bug:1":
            time.sleep(0.1)
            raise ZeroDivisionError

    copier = ListeningCopier({"a/waits:1": [transient()]}, during=during)
    retry, started = retry_of(3, 10**6), time.monotonic()
    with pytest.raises(ZeroDivisionError):
        carried(plan_of({"a/bug:1": [], "a/waits:1": []}), copier, jobs=2, retry=retry)
    assert time.monotonic() - started < 60


def test_digests_of_claims_are_those_of_missing_blobs() -> None:
    (copy,) = plan_of({"a/b:1": [BASE]}).copies
    assert copy.claims == {Digest.of(b"base")}


def test_what_an_image_took_is_told_from_when_the_run_began() -> None:
    images: dict[str, Sequence[Descriptor]] = {"a/0:1": [blob("0", 9)], "a/1:1": [blob("1", 5)]}
    unseen = Unseen(entry=entry("a/no:1"), error="absent", hint="look")
    copier = ListeningCopier({"a/1:1": [ToolError("broke")]}, seconds=0.02)
    report = run(plan_of(images, unseen), copier, jobs=1)
    (copied,) = report.copied
    broke = next(failed for failed in report.failed if failed.error == "broke")
    absent = next(failed for failed in report.failed if failed.error == "absent")
    assert 0.01 < copied.seconds < 60
    assert 0.01 < broke.seconds < 60
    assert 0 <= copied.start < broke.start < report.seconds < 60
    assert (copied.worker, broke.worker) == (0, 0)
    assert (absent.seconds, absent.start, absent.worker) == (0, 0, None)
