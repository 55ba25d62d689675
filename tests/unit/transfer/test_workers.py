"""Orders and answers as values, and what a run makes of workers that are lost, and of a cluster that is gone."""

import pickle
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from regwrap.core.errors import HostDownError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.core.location import Location, Registry
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.registry.credentials import UnsureError
from regwrap.transfer.by_cluster import ClusterFetcher, shares_of
from regwrap.transfer.host_queues import HostQueue
from regwrap.transfer.needs import Need
from regwrap.transfer.orders import Answer, BlobAnswer, HashOrder, Refusal, registry_name
from regwrap.transfer.under_way import BlobUnderWay
from regwrap.transfer.workers import ClusterError, Workers, WorkerShare, all_shares
from tests.fakes import NOT_ASKED
from tests.unit.transfer.test_plan import blob

MB = 1024 * 1024
ORDER = HashOrder(run="r", root="/r", blobs=())
ANSWER = Answer(worker="w1", machine="m1", seconds=1.5, blobs=())


@dataclass
class Giving:
    """An executor that gives out futures as a test has made them."""

    future: "Future[Answer]" = field(default_factory=Future)
    submitted: list[object] = field(default_factory=list)

    def submit(self, _fn: object, /, *args: object) -> "Future[Answer]":
        self.submitted += args
        return self.future


def workers_with(executor: Giving, lost: Callable[[BaseException], RegwrapError] | None = None) -> Workers:
    return Workers(
        run="r",
        executor=executor,  # type: ignore[arg-type]  # it gives one answer, whatever is asked
        perform=lambda _order: ANSWER,
        count=lambda: 3,
        is_there=lambda: True,
        lost=lost or (lambda error: ToolError(f"gone: {error}", detail="d", hint="h", transient=True)),
        stopping=threading.Event(),
    )


def answered(*blobs: BlobAnswer, refusal: Refusal | None = None) -> Giving:
    giving = Giving()
    giving.future.set_result(replace(ANSWER, blobs=blobs, refusal=refusal))
    return giving


def failing(error: BaseException) -> Giving:
    giving = Giving()
    giving.future.set_exception(error)
    return giving


def test_each_worker_has_an_order_and_the_next_one() -> None:
    assert workers_with(Giving()).lanes == 6
    alone = workers_with(Giving())
    alone.count = lambda: 0
    assert alone.lanes == 2


def test_what_a_worker_did_is_added_up_by_machine_and_name() -> None:
    refused = Refusal(kind="tool", message="no")
    giving = answered(
        BlobAnswer(digest="a", came=5),
        BlobAnswer(digest="b", came=7, again=True),
        BlobAnswer(digest="c", came=1, refusal=refused),
    )
    workers = workers_with(giving)
    for _ in range(2):
        workers.answer(ORDER)
    assert giving.submitted == [ORDER, ORDER]
    (share,) = workers.shares
    assert share == WorkerShare(worker="w1", machine="m1", blobs=2, bytes_sent=26, failures=2, seconds=3.0)
    other = replace(share, worker="w0", seconds=0.0001)
    elsewhere = replace(share, machine="m0")
    assert all_shares((share, other, elsewhere)) == (elsewhere, other, share)
    assert share.and_also(other).seconds == 3.0


def test_a_worker_that_refuses_ends_the_run_and_is_named() -> None:
    refusal = Refusal.of(UsageError("no such directory", detail="/x", hint="mount it"))
    with pytest.raises(ClusterError, match=r"^worker w1 on m1: no such directory") as raised:
        workers_with(answered(refusal=refusal)).answer(ORDER)
    assert (raised.value.detail, raised.value.hint) == ("/x", "mount it")


def test_a_lost_order_is_worth_another_try_or_ends_the_run() -> None:
    with pytest.raises(ToolError, match="gone: killed") as raised:
        workers_with(failing(RuntimeError("killed"))).answer(ORDER)
    assert raised.value.transient
    for lost in (ToolError("all died of it", detail="d", hint="h"), UsageError("all died of it", detail="d", hint="h")):
        with pytest.raises(ClusterError, match="all died of it") as ended:
            workers_with(failing(RuntimeError("killed")), lambda _error, lost=lost: lost).answer(ORDER)  # type: ignore[misc]
        assert (ended.value.detail, ended.value.hint) == ("d", "h")


def test_a_run_that_is_stopped_waits_for_no_worker() -> None:
    giving = Giving()
    workers = workers_with(giving)
    workers.stopping.set()
    with pytest.raises(ToolError, match="a worker was not waited for: regwrap is stopping"):
        workers.answer(ORDER)
    assert giving.future.cancelled()
    giving.future.set_running_or_notify_cancel()
    with pytest.raises(ToolError, match="a worker was not waited for"):
        workers.answer(ORDER)  # cancelled by whoever ends the run


def test_an_order_that_the_cluster_gave_up_is_told_as_lost() -> None:
    giving = Giving()
    giving.future.cancel()
    giving.future.set_running_or_notify_cancel()
    with pytest.raises(ToolError, match="gone"):
        workers_with(giving).answer(ORDER)


def test_a_cluster_that_is_gone_is_not_waited_for() -> None:
    workers = workers_with(Giving(), lambda _error: UsageError("the scheduler is gone"))
    workers.is_there = lambda: False
    with pytest.raises(ClusterError, match="the scheduler is gone"):
        workers.answer(ORDER)


def test_bytes_are_told_of_to_who_hears_and_to_nobody_afterwards() -> None:
    workers, heard = workers_with(Giving()), list[int]()
    workers.hear("a", heard.append)
    workers.heard({"a": 5, "b": 7})
    workers.hear("a", None)
    workers.hear("never heard", None)
    workers.heard({"a": 9})
    assert heard == [5]


@pytest.mark.parametrize(
    "error",
    [
        ToolError("m", detail="d", hint="h", transient=True, host="r.io", outage=True),
        ToolError("m", detail="d", hint="h"),
        HostDownError("m", host="r.io"),
        IntegrityError("m", detail="d", hint="h"),
        UnsureError("m", hint="h"),
        RegwrapError("m", detail="d", hint="h"),
    ],
)
def test_an_error_is_the_same_one_behind_its_way(error: RegwrapError) -> None:
    """Whether it is tried again, and whether the host counts as away, depends on it."""
    again = pickle.loads(pickle.dumps(Refusal.of(error))).error()
    assert type(again) is type(error)
    for name in ("message", "detail", "hint", "transient", "host", "outage"):
        assert getattr(again, name, None) == getattr(error, name, None)


@pytest.mark.parametrize(
    ("name", "host", "plain_http", "asked"),
    [
        ("r.io", "r.io", False, "r.io"),
        ("r.io", "r.io", True, "http://r.io"),
        ("r.io:80", "r.io", True, "http://r.io"),
        ("ci", "r.io", True, "ci"),
        ("r.io:80", "r.io", False, "r.io:80"),
    ],
)
def test_a_registry_is_named_so_that_workers_ask_it_the_same_way(
    name: str, host: str, plain_http: bool, asked: str
) -> None:
    registry = Registry(host=host, tls_verify=True, plain_http=plain_http)
    found = registry_name(Location(name=name, registry=registry))
    assert (found.asked, found.host) == (asked, host)
    with pytest.raises(ValueError, match="a is no registry"):
        registry_name(Location(name="a", storage=Path("/a")))


def test_large_blobs_are_orders_of_their_own_and_small_ones_go_together() -> None:
    small = tuple(blob(f"small-{number}", MB) for number in range(8))
    large = tuple(blob(f"large-{number}", 900 * MB) for number in range(2))
    shares = shares_of((*small, *large), lanes=2)
    assert [len(share) for share in shares] == [1, 1, 8]
    assert {each.digest for share in shares[:2] for each in share} == {each.digest for each in large}
    assert shares_of((), lanes=2) == ()


def test_an_order_has_at_least_4_and_at_most_256_mb_and_32_blobs() -> None:
    tiny = [Descriptor(media_type="", digest=Digest.of(f"{n}".encode()), size=n % 7) for n in range(70)]
    assert [len(share) for share in shares_of(tiny, lanes=2)] == [32, 32, 6]
    assert shares_of(tiny, lanes=2) == shares_of(tiny[::-1], lanes=2), "the same orders whatever the order"
    sizes = [share[0].size for share in shares_of(tiny, lanes=2)]
    assert sizes == sorted(sizes, reverse=True)
    for size, count, expected in (
        (2 * MB, 4, [2, 2]),  # 4 MB are enough
        (4 * MB, 3, [1, 1, 1]),
        (4 * MB - 1, 3, [2, 1]),
        (100 * MB, 60, [3] * 20),  # at most 256 MB, whatever waits
        (256 * MB, 30, [1] * 30),
        (8 * MB, 8, [1] * 8),  # of 64 MB a sixteenth, which is 4
        (8 * MB, 64, [4] * 16),  # a sixteenth of 512
    ):
        blobs = [blob(f"{size}-{number}", size) for number in range(count)]
        assert [len(share) for share in shares_of(blobs, lanes=4)] == expected, (size, count)


def test_as_many_orders_are_out_as_all_workers_can_do_and_each_registry_has_one() -> None:
    workers = workers_with(Giving())
    fetcher = ClusterFetcher(workers=workers, limiters=NOT_ASKED, orders=NOT_ASKED, retry=NOT_ASKED)
    left = [1] * 10
    assert [fetcher.has_room(left[:count], 4, 1) for count in (0, 5, 6)] == [True, True, False]
    assert [fetcher.has_room(left[:count], 4, 2) for count in (2, 3)] == [True, False]
    assert [fetcher.has_room(left[:count], 4, 100) for count in (0, 1)] == [True, False]
    assert fetcher.enough(0) == 4 * MB
    assert fetcher.enough(24 * 10 * MB) == 10 * MB
    assert fetcher.enough(2**40) == 256 * MB
    assert fetcher.threads >= 100


def test_what_waits_for_a_host_is_known_in_bytes() -> None:
    """Orders are made as large as what waits allows: few for much, many for little."""
    queue = HostQueue()
    items = [waiting_for(name, size) for name, size in (("a", 5), ("b", 70), ("c", 900))]
    for item in items:
        queue.add(item)
    assert queue.bytes_waiting == 975
    assert queue.pop() is items[0]
    assert queue.pop() is items[1]
    assert queue.bytes_waiting == 900
    queue.put_back(items[:2])
    assert (queue.bytes_waiting, list(queue.waiting)) == (975, items)


def waiting_for(name: str, size: int) -> BlobUnderWay:
    need = Need(blob=blob(name, size), copies=(), is_there=False)
    return BlobUnderWay(need=need, images={}, sources=deque(), is_due=True)
