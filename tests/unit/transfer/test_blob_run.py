"""A run of blobs as such: in which order they are asked for, what is tried again and from where, and what each image
is said to have cost. The destination is a shelf in memory, and whoever brings blobs does what the test says."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from regwrap.core.closure import closure_of
from regwrap.core.errors import HostDownError, IntegrityError, RegwrapError, ToolError
from regwrap.core.listener import Outlook
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Destination, Digest
from regwrap.registry.credentials import UnsureError
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.registry.probe import Probe
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.transfer.blob_work import BlobReport, BlobWork
from regwrap.transfer.by_curl import BatchEvents, Travel
from regwrap.transfer.needs import Need
from regwrap.transfer.plan import Copy, Reason
from regwrap.transfer.run import Copied, Failed
from regwrap.transfer.run_blobs import BlobRun
from tests.builders import Image, make_image, make_layer
from tests.fakes import NOT_ASKED
from tests.unit.transfer.between import plain
from tests.unit.transfer.test_plan import entry
from tests.unit.transfer.test_sync import Heard

if TYPE_CHECKING:
    from regwrap.transfer.by_curl import BlobSource

BASE = make_layer("base")
APP, TOOL = make_image("app", layers=[BASE, make_layer("app")]), make_image("tool", layers=[BASE, make_layer("tool")])
OWN, SHARED = Digest.of(APP.blobs[2]), Digest.of(BASE)


def registry(name: str, pace: float | None = None) -> RegistryEndpoint:
    known = replace(plain(name), requests_per_second=pace)
    probe = Probe(registry=known, timeout=5, connections=1)
    return RegistryEndpoint(registry=known, probe=probe, skopeo=NOT_ASKED)


FIRST, SECOND = registry("first"), registry("second")


class Here:
    """A source on this machine."""

    name = "here"


def copy_of(name: str, image: Image, *, there: Sequence[bytes] = ()) -> Copy:
    closure = closure_of(image.top, {Digest.of(raw): raw for raw in image.manifests}.get)
    assert closure is not None
    known = {Digest.of(blob) for blob in there}
    missing = tuple(blob for blob in closure.blobs if blob.digest not in known)
    return Copy(entry=entry(name), digest=image.top, reason=Reason.ABSENT, closure=closure, missing=missing)


@dataclass
class Shelf:
    """What has come; `wrong` are blobs that are not right the first time, `finishing` hears of each commit."""

    places: Callable[[Copy], Sequence[object]]
    blobs: set[Digest] = field(default_factory=set)
    shown: list[str] = field(default_factory=list)
    wrong: list[Digest] = field(default_factory=list)
    unproved: dict[str, RegwrapError] = field(default_factory=dict)
    no_room: set[str] = field(default_factory=set)
    finishing: Callable[[list[str]], None] = lambda _names: None
    looked: list[Digest] = field(default_factory=list)
    kept: bool = False
    copying: Callable[[Descriptor], int] = lambda blob: blob.size
    looking: Callable[[], None] = lambda: None
    alone: bool = False

    def keep(self) -> None:
        self.kept = True

    def wanted(self, copy: Copy) -> Sequence[Descriptor]:
        return copy.closure.blobs

    def lane(self, copy: Copy) -> str:
        return copy.entry.dest.repository if self.alone else ""

    def sources_of(self, need: Need) -> Iterator[tuple["BlobSource", str]]:
        for copy in need.copies:
            for place in self.places(copy):
                yield place, copy.entry.source.repository  # type: ignore[misc]  # of one here only its name is asked

    def check_room(self, copy: Copy) -> None:
        if f"{copy.entry.dest}" in self.no_room:
            raise ToolError("no space")

    def may_have(self, need: Need) -> bool:
        return need.is_there

    def has(self, need: Need) -> bool:
        self.looked.append(need.blob.digest)
        self.looking()
        return need.blob.digest in self.blobs

    def accept(self, blob: Descriptor) -> bool:
        if blob.digest in self.wrong:
            self.wrong.remove(blob.digest)
            return False
        self.blobs.add(blob.digest)
        return True

    def copy_here(self, source: "BlobSource", blob: Descriptor) -> int:
        assert isinstance(source, Here)
        self.blobs.add(blob.digest)
        return self.copying(blob)

    def finish(self, copies: Sequence[Copy]) -> None:
        names = [f"{copy.entry.dest}" for copy in copies]
        self.finishing(names)
        assert all(blob.digest in self.blobs for copy in copies for blob in copy.closure.blobs)
        self.shown += names

    def prove(self, copy: Copy) -> None:
        if error := self.unproved.get(f"{copy.entry.dest}"):
            raise error


Ending = Callable[[Travel, BatchEvents], None]


@dataclass
class Bringer:
    """Brings what it is asked for, unless a blob still has `errors`, by host and digest; one is used up each time. One
    that is called says itself how that travel ends."""

    shelf: Shelf
    errors: dict[tuple[str, Digest], deque[RegwrapError | Ending]] = field(default_factory=dict)
    batches: list[tuple[str, list[Digest], int]] = field(default_factory=list)
    most: float = math.inf
    rooms: list[tuple[list[int], int, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def threads(self) -> int:
        return 4

    def has_room(self, left: Sequence[int], parallel: int, hosts: int) -> bool:
        self.rooms.append((list(left), parallel, hosts))
        return not left

    def enough(self, waiting: int) -> float:
        assert waiting >= 0
        return self.most

    def fetch(self, travels: Sequence[Travel], events: BatchEvents, *, parallel: int) -> None:
        with self._lock:
            host = travels[0].end.name
            self.batches.append((host, [travel.blob.digest for travel in travels], parallel))
        assert all(travel.end.name == host for travel in travels)
        for travel in travels:
            self._bring(travel, events)

    def _bring(self, travel: Travel, events: BatchEvents) -> None:
        waiting = self.errors.get((travel.end.name, travel.blob.digest))
        error = waiting.popleft() if waiting else None
        if isinstance(error, RegwrapError):
            events.failed_to_come(travel, error)
        elif error is not None:
            error(travel, events)
        else:
            events.begun(travel)
            travel.came += travel.blob.size
            events.complete(travel)

    def asked(self, digest: Digest) -> list[str]:
        return [host for host, digests, _parallel in self.batches if digest in digests]


@dataclass
class Ground:
    shelf: Shelf
    bringer: Bringer
    told: Heard = field(default_factory=Heard)
    attempts: int = 1
    wait: float = 0.0001
    jobs: int = 2
    in_order: bool = False
    given_up: list[ToolError] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, *copies: Copy) -> BlobReport:
        return self.made().run(copies)

    def made(self) -> BlobRun:
        policy = RetryPolicy(attempts=self.attempts, wait=self.wait, max_wait=self.wait)
        work = BlobWork(
            dest=self.shelf,
            here=self.shelf,
            fetcher=self.bringer,
            jobs=self.jobs,
            retry=Retry(policy, self.stopping),
            events=self.told,
            gave_up=self.gave_up,
            in_order=self.in_order,
        )
        return BlobRun(work=work)

    def gave_up(self, error: ToolError) -> ToolError:
        self.given_up.append(error)
        return HostDownError("first is down", host="first") if error.outage else error


def ground(*places: object) -> Ground:
    shelf = Shelf(lambda _copy: places or (FIRST,))
    return Ground(shelf, Bringer(shelf))


def by_name(report: BlobReport) -> dict[str, Copied | Failed]:
    return {f"{(item.copy.entry if isinstance(item, Copied) else item.entry).dest}": item for item in report.outcomes}


def failure(report: BlobReport, name: str) -> Failed:
    found = by_name(report)[name]
    assert isinstance(found, Failed)
    return found


def success(report: BlobReport, name: str) -> Copied:
    found = by_name(report)[name]
    assert isinstance(found, Copied)
    return found


def again(travel: Travel, events: BatchEvents) -> None:
    events.again(travel)


def passing(message: str = "503") -> ToolError:
    return ToolError(message, transient=True, host="first")


# --- what is made sure at the end


def test_an_image_that_is_not_what_was_committed_has_failed_and_the_others_of_its_commit_have_not() -> None:
    """Somebody else wrote into the directory meanwhile: `copied` would be a lie."""
    case = ground()
    case.shelf.unproved["b:1"] = IntegrityError("b:1 does not point to it after the copy", hint="look who writes there")
    report = case.run(*(copy_of(name, APP) for name in ("a:1", "b:1", "c:1")))
    assert failure(report, "b:1").error == "b:1 does not point to it after the copy"
    assert failure(report, "b:1").hint == "look who writes there"
    assert isinstance(by_name(report)["a:1"], Copied)
    assert isinstance(by_name(report)["c:1"], Copied)
    assert case.shelf.kept, "what has come is for the next run"


def test_a_commit_that_fails_fails_its_images_alone() -> None:
    case = ground()

    def full(names: list[str]) -> None:
        if "a:1" in names:
            raise ToolError("no space left")

    case.shelf.finishing = full
    report = case.run(copy_of("a:1", APP), copy_of("b:1", make_image("other")))
    assert failure(report, "a:1").error == "no space left"
    assert isinstance(by_name(report)["b:1"], Copied)
    assert case.shelf.shown == ["b:1"]


def test_where_each_image_is_made_visible_alone_one_that_is_refused_takes_no_other_with_it() -> None:
    case = ground()
    case.shelf.alone = True
    groups: list[list[str]] = []

    def refused(names: list[str]) -> None:
        groups.append(names)
        if names == ["b:1"]:
            raise ToolError("403")

    case.shelf.finishing = refused
    report = case.run(*(copy_of(f"{name}:1", APP) for name in "abc"))
    assert sorted(groups) == [["a:1"], ["b:1"], ["c:1"]]
    assert {name for name, item in by_name(report).items() if isinstance(item, Failed)} == {"b:1"}


def test_images_of_one_lane_are_made_visible_one_after_the_other_and_of_two_side_by_side() -> None:
    """docker-registry writes the links of a repository in place: two pushes into it would disturb each other."""
    case = ground()
    case.shelf.alone, case.jobs = True, 3
    busy, seen, met = set[str](), list[frozenset[str]](), threading.Barrier(2)

    def noted(names: list[str]) -> None:
        (name,) = names
        busy.add(name)
        seen.append(frozenset(busy))
        if name in {"a:1", "b:1"}:
            met.wait(30)
        busy.remove(name)

    case.shelf.finishing = noted
    case.run(*(copy_of(name, APP) for name in ("a:1", "b:1", "a:2", "a:3")))
    assert met.n_waiting == 0
    assert not any({"a:1", "a:2", "a:3"} & set(names) > {name} for names in seen for name in names)


@pytest.mark.slow
def test_what_only_passes_is_tried_again_when_an_image_is_made_visible_and_proved() -> None:
    case = ground()
    case.attempts = 3
    case.shelf.alone = True
    errors = [passing("one"), passing("two")]

    def busy(_names: list[str]) -> None:
        if errors:
            raise errors.pop(0)

    case.shelf.finishing = busy
    report = case.run(copy_of("a:1", APP))
    assert success(report, "a:1").attempts == 3
    assert [line for line in case.told.said if "retrying" in line] == ["retrying a:1 1 one", "retrying a:1 2 two"]
    case.shelf.unproved["b:1"] = passing("still busy")
    report = case.run(copy_of("b:1", TOOL))
    assert (failure(report, "b:1").error, failure(report, "b:1").attempts) == ("still busy", 3)
    assert [error.message for error in case.given_up] == ["still busy"]


def test_an_image_whose_manifest_only_skopeo_can_put_is_left_to_it() -> None:
    case = ground()
    case.shelf.unproved["a:1"] = UnsureError("a helper has the login")
    report = case.run(copy_of("a:1", APP), copy_of("b:1", TOOL))
    assert [f"{copy.entry.dest}" for copy in report.left] == ["a:1"]
    assert list(by_name(report)) == ["b:1"]


def test_a_run_that_brings_all_keeps_nothing_for_the_next() -> None:
    case = ground()
    case.run(copy_of("a:1", APP))
    assert not case.shelf.kept


def test_images_that_become_whole_at_once_share_a_commit() -> None:
    """Each commit waits for the disk four times: an archive of a thousand tags of one image would take minutes."""
    case = ground()
    groups: list[list[str]] = []
    case.shelf.finishing = groups.append
    case.run(*(copy_of(f"{name}:1", APP) for name in "abcd"))
    assert groups == [["a:1"], ["b:1", "c:1", "d:1"]]


# --- what is there already


def test_what_seems_to_be_there_is_looked_at_and_comes_where_it_is_not_right() -> None:
    case = ground()
    case.shelf.blobs.add(SHARED)
    report = case.run(copy_of("a:1", APP, there=[BASE, APP.blobs[2]]))
    assert sorted(case.shelf.looked) == sorted([SHARED, OWN])
    assert case.bringer.asked(SHARED) == []
    assert len(case.bringer.asked(OWN)) == 1
    assert success(report, "a:1").sent == len(APP.blobs[0]) + len(APP.blobs[2])


def test_an_image_without_room_is_not_begun_and_takes_no_other_with_it() -> None:
    case = ground()
    case.shelf.no_room = {"a:1"}
    report = case.run(copy_of("a:1", APP), copy_of("b:1", TOOL))
    assert failure(report, "a:1").error == "no space"
    assert failure(report, "a:1").attempts == 1
    assert case.bringer.asked(OWN) == []
    assert isinstance(by_name(report)["b:1"], Copied)


def test_what_lies_on_this_machine_is_taken_from_here_and_not_from_a_registry() -> None:
    here = Here()
    case = ground(FIRST, here)
    report = case.run(copy_of("a:1", APP))
    assert case.bringer.batches == []
    assert success(report, "a:1").sent == sum(map(len, APP.blobs))
    assert sorted(case.told.said)[-1] == "started a:1"


@pytest.mark.parametrize("kind", [IntegrityError, ToolError])
def test_what_is_damaged_here_comes_from_the_registry(kind: type[IntegrityError | ToolError]) -> None:
    case = ground(Here(), FIRST)

    def damaged(blob: Descriptor) -> int:
        raise kind(f"{blob.digest.short} is damaged here")

    case.shelf.copying = damaged
    report = case.run(copy_of("a:1", APP))
    assert {host for host, _digests, _parallel in case.bringer.batches} == {"first"}
    assert isinstance(by_name(report)["a:1"], Copied)


# --- what is tried again


def test_a_blob_is_tried_as_often_as_was_said_and_each_try_is_told() -> None:
    case = ground()
    case.attempts = 3
    case.bringer.errors["first", SHARED] = deque([passing("one"), passing("two")])
    report = case.run(copy_of("a:1", APP), copy_of("b:1", TOOL), copy_of("c:1", make_image("other")))
    assert {name: item.attempts for name, item in by_name(report).items()} == {"a:1": 3, "b:1": 3, "c:1": 1}
    tries = [line for line in case.told.said if line.startswith("retrying")]
    assert [line.split(" ", 2)[2] for line in tries] == ["1 one", "2 two"]
    assert case.given_up == []


def test_a_blob_that_fails_each_time_says_how_often() -> None:
    case = ground()
    case.attempts = 2
    case.bringer.errors["first", SHARED] = deque([passing("one"), passing("two"), passing("three")])
    report = case.run(copy_of("a:1", APP))
    assert (failure(report, "a:1").error, failure(report, "a:1").attempts) == ("two", 2)
    assert [error.message for error in case.given_up] == ["two"]


def test_a_final_answer_is_not_asked_for_again() -> None:
    case = ground()
    case.attempts = 3
    case.bringer.errors["first", OWN] = deque([ToolError("403")])
    assert failure(case.run(copy_of("a:1", APP)), "a:1").error == "403"
    assert case.bringer.asked(OWN) == ["first"]


def test_a_blob_waits_before_it_is_tried_again() -> None:
    """A server that is overloaded is not asked in a loop."""
    case = ground()
    case.attempts, case.wait = 2, 1000.0

    def fails_and_stops_soon(travel: Travel, events: BatchEvents) -> None:
        events.failed_to_come(travel, passing())
        while not any(line.startswith("retrying") for line in case.told.said):
            time.sleep(0.001)
        for _ in range(20):  # the run looks again each time
            time.sleep(0.001)
            events.begun(travel)
        case.stopping.set()
        events.begun(travel)

    case.bringer.errors["first", OWN] = deque([fails_and_stops_soon])
    with pytest.raises(ToolError, match="stopped"):
        case.run(copy_of("a:1", APP))
    assert case.bringer.asked(OWN) == ["first"]


def test_a_blob_that_arrives_damaged_is_fetched_again() -> None:
    case = ground()
    case.attempts = 2
    case.shelf.wrong = [OWN]
    report = case.run(copy_of("team/app:1", APP))
    assert success(report, "team/app:1").attempts == 2
    assert any(f"first/team/app: blob {OWN.short} arrived damaged" in line for line in case.told.said)


@pytest.mark.slow
def test_what_one_registry_does_not_give_another_does_with_all_its_attempts() -> None:
    case = ground(FIRST, SECOND)
    case.attempts = 2
    case.bringer.errors["first", OWN] = deque([passing("busy"), ToolError("404")])
    case.bringer.errors["second", OWN] = deque([passing("busy")])
    report = case.run(copy_of("a:1", APP))
    assert case.bringer.asked(OWN) == ["first", "first", "second", "second"]
    assert isinstance(by_name(report)["a:1"], Copied)


def test_what_nobody_gives_was_tried_as_often_as_at_the_most_patient_place() -> None:
    case = ground(FIRST, SECOND)
    case.attempts = 3
    case.bringer.errors["first", OWN] = deque([passing("busy"), passing("busy"), ToolError("404")])
    case.bringer.errors["second", OWN] = deque([ToolError("gone")])
    found = failure(case.run(copy_of("a:1", APP)), "a:1")
    assert (found.error, found.attempts) == ("gone", 3)
    assert 0 <= found.start < 30
    assert 0 < found.seconds < 30


def test_a_blob_of_two_repositories_is_asked_for_in_both() -> None:
    """A registry may give it to who may read one of them, and not the other."""
    case, asked = ground(), list[str]()

    def denied(travel: Travel, events: BatchEvents) -> None:
        asked.append(travel.repository)
        events.failed_to_come(travel, ToolError("403"))

    case.bringer.errors["first", SHARED] = deque([denied, denied, denied])
    case.run(copy_of("team/app:1", APP), copy_of("team/tool:1", TOOL))
    assert sorted(asked) == ["team/app", "team/tool"]


def test_what_fails_once_nobody_needs_it_any_more_is_no_failure_of_its_own() -> None:
    case = ground()
    case.attempts = 2
    errors = [ToolError("403"), passing("503"), ToolError("404")]
    for digest, error in zip(sorted(Digest.of(blob) for blob in APP.blobs), errors, strict=True):
        case.bringer.errors["first", digest] = deque([error])
    case.in_order = True
    assert failure(case.run(copy_of("a:1", APP)), "a:1").error == "403"
    assert [line for line in case.told.said if not line.startswith("started")] == ["failed a:1"]


def test_who_brings_blobs_hears_when_nobody_waits_for_them_any_more() -> None:
    """A layer of gigabytes would come to its end for an image that has failed."""
    case, wanted = ground(), list[bool]()

    def fails(travel: Travel, events: BatchEvents) -> None:
        wanted.append(events.is_wanted())
        events.failed_to_come(travel, ToolError("403"))
        deadline = time.monotonic() + 20
        while "failed a:1" not in case.told.said:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        wanted.append(events.is_wanted())

    case.bringer.errors["first", OWN] = deque([fails])
    case.run(copy_of("a:1", APP))
    assert wanted == [True, False]


def test_the_same_place_is_not_asked_twice_for_a_blob_of_two_images() -> None:
    case = ground()
    case.bringer.errors["first", SHARED] = deque([ToolError("404"), ToolError("404"), ToolError("404")])
    report = case.run(copy_of("team/app:1", APP), copy_of("team/app:2", TOOL))
    assert len(case.bringer.asked(SHARED)) == 1
    assert {type(item) for item in by_name(report).values()} == {Failed}


def test_a_host_that_is_down_is_named_in_the_report() -> None:
    case = ground()
    case.bringer.errors["first", OWN] = deque([ToolError("refused", transient=True, outage=True, host="first")])
    found = failure(case.run(copy_of("a:1", APP)), "a:1")
    assert (found.error, found.down) == ("first is down", "first")


def test_what_was_no_failure_costs_no_attempt() -> None:
    case = ground()
    case.bringer.errors["first", OWN] = deque([again, again])
    report = case.run(copy_of("a:1", APP))
    assert len(case.bringer.asked(OWN)) == 3
    assert success(report, "a:1").attempts == 1
    assert not any(line.startswith("retrying") for line in case.told.said)


def test_what_a_registry_only_tells_skopeo_is_left_to_it_with_all_images_that_need_it() -> None:
    case = ground()
    case.bringer.errors["first", SHARED] = deque([UnsureError("a helper has the login")] * 2)
    report = case.run(copy_of("a:1", APP), copy_of("b:1", TOOL), copy_of("c:1", make_image("other")))
    assert sorted(f"{copy.entry.dest}" for copy in report.left) == ["a:1", "b:1"]
    assert list(by_name(report)) == ["c:1"]
    assert set(report.sent) == {Destination("a", "1"), Destination("b", "1")}
    assert not case.shelf.kept


def test_what_only_a_failed_image_needs_is_not_fetched_any_more() -> None:
    case = ground()
    case.in_order = True
    case.bringer.most = 1
    first, *later = sorted(Digest.of(blob) for blob in APP.blobs)
    case.bringer.errors["first", first] = deque([ToolError("403")])
    case.run(copy_of("a:1", APP))
    assert [case.bringer.asked(digest) for digest in later] == [[], []]


# --- in which order, and how many at once


def test_what_a_blob_fails_with_is_heard_before_the_next_one_is_begun() -> None:
    """Of an image that has failed nothing more is asked, whatever the run hears between a blob's begin and its end."""
    case = ground()
    case.bringer.most = 1  # each in a batch of its own

    def fails_later(travel: Travel, events: BatchEvents) -> None:
        looks, deadline = len(case.bringer.rooms), time.monotonic() + 60
        events.begun(travel)
        while len(case.bringer.rooms) == looks and time.monotonic() < deadline:
            time.sleep(0.001)
        events.failed_to_come(travel, ToolError("403"))

    for blob in APP.blobs:
        case.bringer.errors["first", Digest.of(blob)] = deque([fails_later])
    assert failure(case.run(copy_of("a:1", APP)), "a:1").error == "403"
    assert len(case.bringer.batches) == 1
    assert case.bringer.rooms[1][0] == [1]


def test_blobs_come_in_the_order_of_their_digests_where_a_pipe_wants_them_so() -> None:
    case = ground()
    case.in_order = True
    case.run(copy_of("a:1", APP), copy_of("b:1", TOOL))
    asked = [digest for _host, digests, _parallel in case.bringer.batches for digest in digests]
    assert asked == sorted(Digest.of(blob) for blob in {*APP.blobs, *TOOL.blobs})


def test_a_start_of_curl_has_so_many_blobs_and_the_next_the_rest() -> None:
    """Tokens live for minutes, and each blob has an open pipe."""
    layers = [make_layer(f"{number}") for number in range(40)]
    case = ground()
    case.jobs = 1
    case.run(copy_of("a:1", make_image("many", layers=layers)))
    assert [len(digests) for _host, digests, _parallel in case.bringer.batches] == [32, 9]
    case = ground()
    case.jobs = 5
    case.run(copy_of("a:1", make_image("many", layers=layers)))
    assert [(len(digests), parallel) for _host, digests, parallel in case.bringer.batches] == [(40, 5), (1, 5)]


def test_a_batch_ends_with_the_bytes_that_are_enough() -> None:
    case = ground()
    case.bringer.most = 1
    case.run(copy_of("a:1", APP))
    assert [len(digests) for _host, digests, _parallel in case.bringer.batches] == [1, 1, 1]


def test_a_host_that_wants_its_pace_kept_gets_one_request_at_a_time() -> None:
    case = ground(registry("slow", pace=1000.0))
    case.jobs = 4
    case.run(copy_of("a:1", APP))
    assert [len(digests) for _host, digests, _parallel in case.bringer.batches] == [1, 1, 1]


def test_registries_share_what_may_come_at_the_same_time() -> None:
    case = ground()
    case.jobs = 6
    case.shelf.places = lambda copy: [FIRST if copy.entry.dest.repository == "a" else SECOND]
    case.run(copy_of("a:1", APP), copy_of("b:1", make_image("other")))
    assert {(host, parallel) for host, _digests, parallel in case.bringer.batches} == {("first", 3), ("second", 3)}
    assert {hosts for _left, _parallel, hosts in case.bringer.rooms} == {2}


def test_one_job_asks_each_of_two_registries_for_one_blob_at_a_time() -> None:
    case = ground()
    case.jobs = 1
    case.shelf.places = lambda copy: [FIRST if copy.entry.dest.repository == "a" else SECOND]
    case.run(copy_of("a:1", APP), copy_of("b:1", make_image("other")))
    assert {(host, parallel) for host, _digests, parallel in case.bringer.batches} == {("first", 1), ("second", 1)}


def test_a_registry_that_bears_less_is_asked_for_less_at_the_same_time() -> None:
    """Its answer of 429 has halved what it is asked for."""
    few = registry("few")
    few.probe.limiter.rate.limit = 2.5
    case = ground(few)
    case.jobs = 6
    case.run(copy_of("a:1", APP))
    assert {parallel for _host, _digests, parallel in case.bringer.batches} == {2}


def test_what_a_registry_that_is_done_had_is_for_the_others() -> None:
    case = ground()
    case.jobs, case.bringer.most = 6, 1
    case.shelf.places = lambda copy: [FIRST if copy.entry.dest.repository == "a" else SECOND]

    def waits_for_the_other(travel: Travel, events: BatchEvents) -> None:
        deadline = time.monotonic() + 20
        while "copied a:1" not in case.told.said:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        events.again(travel)

    case.bringer.errors["second", OWN] = deque([waits_for_the_other])
    case.run(copy_of("a:1", make_image("other")), copy_of("b:1", APP))
    parallels = [parallel for host, _digests, parallel in case.bringer.batches if host == "second"]
    assert (parallels[0], parallels[-1]) == (3, 6)


# --- what is told


def test_what_two_images_need_is_done_once() -> None:
    case, seen = ground(), list[Outlook]()
    case.shelf.finishing = lambda _names: seen.append(case.told.looks[-1]())
    case.run(copy_of("a:1", APP), copy_of("b:1", APP))
    assert {*seen, case.told.looks[-1]()} == {Outlook(sum(map(len, APP.blobs)), 0)}


def test_what_has_to_travel_again_is_not_done_and_counts_as_sent() -> None:
    """500, 1000, 1500 of 1,000 bytes would be shown after three tries."""
    case = ground()
    case.attempts = 3
    case.shelf.wrong = [OWN, OWN]
    report = case.run(copy_of("a:1", APP))
    assert case.told.looks[-1]() == Outlook(sum(map(len, APP.blobs)), 0)
    assert success(report, "a:1").sent == sum(map(len, APP.blobs)) + 2 * len(APP.blobs[2])


def test_what_only_an_image_needs_that_has_failed_is_not_left() -> None:
    case = ground()
    case.bringer.errors["first", OWN] = deque([ToolError("403")])
    case.run(copy_of("a:1", APP))
    assert case.told.said[-1] == "failed a:1"
    assert case.told.looks[-1]().left == 0


def test_an_image_is_begun_with_its_first_byte_and_told_once() -> None:
    case = ground()
    report = case.run(copy_of("a:1", APP), copy_of("b:1", TOOL))
    assert sorted(line for line in case.told.said if line.startswith("started")) == ["started a:1", "started b:1"]
    for item in by_name(report).values():
        assert item.start >= 0
        assert 0 < item.seconds < 30


def test_what_an_image_waited_before_its_first_byte_is_none_of_its_time() -> None:
    case = ground()

    def late(travel: Travel, events: BatchEvents) -> None:
        time.sleep(0.02)
        events.begun(travel)
        travel.came += travel.blob.size
        events.complete(travel)

    for blob in APP.blobs:
        case.bringer.errors["first", Digest.of(blob)] = deque([late])
    report = case.run(copy_of("a:1", APP))
    assert 0.02 <= success(report, "a:1").start < 30


def test_an_image_that_only_has_to_be_shown_is_begun_then() -> None:
    case = ground()
    case.shelf.blobs |= {Digest.of(blob) for blob in APP.blobs}
    case.run(copy_of("a:1", APP, there=APP.blobs))
    assert case.told.said == ["started a:1", "copied a:1"]
    assert case.bringer.batches == []


def test_what_failed_before_it_began_took_no_time() -> None:
    case = ground()
    case.bringer.errors["first", OWN] = deque([ToolError("403")])
    case.in_order, case.bringer.most = True, 1
    case.shelf.no_room = {"a:1"}
    found = failure(case.run(copy_of("a:1", APP)), "a:1")
    assert (found.seconds, found.start, found.sent) == (0, 0, 0)


def test_an_interruption_stops_all_and_keeps_what_has_come() -> None:
    case = ground()

    def interrupted(_names: list[str]) -> None:
        raise KeyboardInterrupt

    case.shelf.finishing = interrupted
    with pytest.raises(KeyboardInterrupt):
        case.run(copy_of("a:1", APP))
    assert case.shelf.kept
    assert case.stopping.is_set()


@dataclass
class Interrupting(Heard):
    """Ctrl-C with the first byte, once `may_come` is set."""

    may_come: threading.Event = field(default_factory=threading.Event)

    def started(self, copy: Copy) -> None:
        assert self.may_come.wait(20), copy
        raise KeyboardInterrupt


def test_after_an_interruption_nothing_is_begun_that_waits_for_its_turn() -> None:
    """Ctrl-C would take as long as a terabyte takes to be copied."""
    case, copied = ground(Here()), list[Descriptor]()
    image = make_image("many", layers=[make_layer(f"{number}") for number in range(60)])
    case.told = told = Interrupting()
    run = case.made()

    def waits() -> None:
        assert case.stopping.wait(20), "what waits is told that nobody wants it before anybody is waited for"

    def copying(blob: Descriptor) -> int:
        copied.append(blob)
        waits()
        return blob.size

    def looking() -> None:
        told.may_come.set()
        waits()

    case.shelf.copying, case.shelf.looking = copying, looking
    with pytest.raises(KeyboardInterrupt):
        run.run((copy_of("a:1", image, there=image.blobs[:2]),))
    assert len(copied) < 10
