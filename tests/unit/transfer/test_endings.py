"""How the blobs of a batch end: what failed with a host that is away waits for it, once and together."""

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from regwrap.core.errors import HostDownError, IntegrityError, RegwrapError, ToolError
from regwrap.tools.outage import Outages
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.transfer.by_curl import BlobFetcher, Endings, Travel
from tests.fakes import NOT_ASKED
from tests.unit.transfer.test_plan import blob

HOST = "r.io"


@dataclass
class Heard:
    """What the events of a batch said, in order."""

    said: list[str] = field(default_factory=list)
    errors: list[RegwrapError] = field(default_factory=list)

    def begun(self, travel: Travel) -> None:
        self.said.append(f"begun {travel.repository}")

    def complete(self, travel: Travel) -> None:
        self.said.append(f"whole {travel.repository}")

    def proved(self, travel: Travel) -> None:
        self.said.append(f"proved {travel.repository}")

    def again(self, travel: Travel) -> None:
        self.said.append(f"again {travel.repository}")

    def is_wanted(self) -> bool:
        return True

    def refused(self, travel: Travel, errors: Mapping[str, RegwrapError]) -> None:
        self.said.append(f"refused {travel.repository} {sorted(errors)}")

    def failed_to_come(self, travel: Travel, error: RegwrapError) -> None:
        self.said.append(f"failed {travel.repository}")
        self.errors.append(error)


@dataclass
class Batch:
    """Three blobs; `answers` are what the host says when it is asked whether it is there."""

    answers: list[bool]
    heard: Heard = field(default_factory=Heard)
    stopping: threading.Event = field(default_factory=threading.Event)
    asked: int = 0

    def __post_init__(self) -> None:
        self.outages = Outages(600, self.stopping, lambda _line: None)
        self.outages.of(HOST).ask = self.ask
        policy = RetryPolicy(attempts=1, wait=0, max_wait=0, outage=600)
        self.endings = Endings(events=self.heard, retry=Retry(policy, self.stopping, outages=self.outages))
        self.travels = [Travel(blob=blob(name, 5), end=NOT_ASKED, repository=name) for name in "abc"]

    def ask(self) -> bool:
        self.asked += 1
        return self.answers.pop(0)


def away(message: str = "refused") -> ToolError:
    return ToolError(message, transient=True, host=HOST, outage=True)


@pytest.mark.exhaustive
def test_what_failed_with_a_host_that_is_back_is_asked_for_again() -> None:
    batch = Batch([False, True])
    for travel in batch.travels:
        batch.endings.fails(travel, away())
    assert batch.heard.said == []
    batch.endings.wait_for_host()
    assert batch.heard.said == ["again a", "again b", "again c"]
    assert batch.asked == 2, "once for all of them"


def test_a_host_that_was_never_away_makes_them_fail_as_they_did() -> None:
    batch = Batch([True])
    batch.endings.fails(batch.travels[0], away("one"))
    batch.endings.fails(batch.travels[1], away("two"))
    batch.endings.wait_for_host()
    assert batch.heard.said == ["failed a", "failed b"]
    assert [error.message for error in batch.heard.errors] == ["one", "two"]


def test_a_host_that_stays_away_is_the_reason_of_all() -> None:
    batch = Batch([])
    batch.outages.of(HOST).is_over = True  # it was waited for to the end before
    for travel in batch.travels:
        batch.endings.fails(travel, away())
    batch.endings.wait_for_host()
    assert batch.heard.said == ["failed a", "failed b", "failed c"]
    assert all(isinstance(error, HostDownError) and error.host == HOST for error in batch.heard.errors)


@pytest.mark.parametrize(
    "error",
    [
        ToolError("403", host=HOST),
        ToolError("500", transient=True, host=HOST),
        ToolError("odd", outage=True, host=HOST),
        IntegrityError("damaged"),
    ],
)
def test_any_other_failure_waits_for_nobody(error: RegwrapError) -> None:
    batch = Batch([])
    batch.endings.fails(batch.travels[0], error)
    assert batch.heard.said == ["failed a"]
    batch.endings.wait_for_host()
    assert (batch.heard.said, batch.asked) == (["failed a"], 0)


def test_a_run_that_is_stopped_asks_nobody() -> None:
    batch = Batch([])
    batch.stopping.set()
    batch.endings.fails(batch.travels[0], away("own"))
    batch.endings.wait_for_host()
    assert (batch.heard.said, batch.asked) == (["failed a"], 0)
    assert batch.heard.errors[0].message == "own"


def test_where_nobody_waits_for_hosts_it_fails_at_once() -> None:
    batch = Batch([])
    batch.endings.retry = Retry(RetryPolicy(attempts=1, wait=0, max_wait=0), batch.stopping)
    batch.endings.fails(batch.travels[0], away("own"))
    batch.endings.wait_for_host()
    assert batch.heard.errors[0].message == "own"


def test_a_host_that_comes_and_goes_is_not_asked_for_ever() -> None:
    batch = Batch([])
    travel = batch.travels[0]
    assert travel.may_wait(100)
    assert travel.may_wait(100)
    travel._latest = 1.0  # long ago
    assert not travel.may_wait(100)
    assert not Travel(blob=travel.blob, end=travel.end, repository="a").may_wait(0)


def test_a_host_that_comes_and_goes_is_waited_for_twice_as_long_as_one_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    travel, waits = Batch([]).travels[0], list[bool]()
    for seconds in (0, 100, 99, 1):
        now[0] += seconds
        waits.append(travel.may_wait(100))
    assert waits == [True, True, True, False]


def test_the_next_start_of_curl_begins_when_there_is_room_and_no_third_one() -> None:
    """Tokens live for minutes: what waits behind others for its turn has an old one."""
    fetcher = BlobFetcher(curl=NOT_ASKED, parts=NOT_ASKED, scratch=NOT_ASKED, retry=NOT_ASKED)
    rooms = {counts: fetcher.has_room(counts, 4, 9) for counts in ((), (3,), (4,), (1, 1), (0, 0))}
    assert rooms == {(): True, (3,): True, (4,): False, (1, 1): False, (0, 0): False}
    assert fetcher.enough(0) == math.inf
    assert fetcher.threads > 32, "so many registries are read at the same time"
