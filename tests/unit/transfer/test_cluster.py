"""Blobs by the workers of a cluster: what comes, what is proved, what a worker refuses, and what a run makes of it."""

import errno
import json
import os
import pickle
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from regwrap.bundle.examine import verify_storage
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.volume_places import volumes_also_in
from regwrap.commands.push import PushOptions, push_images
from regwrap.commands.sync import SyncOptions
from regwrap.core.errors import ToolError
from regwrap.core.listener import SILENT
from regwrap.core.location import Location
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.lists.imagelist import parse_images
from regwrap.lists.naming import Naming
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from regwrap.transfer.at_worker import _Arriving
from regwrap.transfer.by_cluster import hash_by_workers
from regwrap.transfer.by_curl import Travel
from regwrap.transfer.endpoints import Endpoints, Writing
from regwrap.transfer.engines import transfer_images
from regwrap.transfer.fetch import BLOBS, Stage
from regwrap.transfer.orders import (
    Answer,
    BlobAnswer,
    FetchOrder,
    HashOrder,
    Order,
    PushedBack,
    PushOrder,
    SharedFiles,
)
from regwrap.transfer.push_at_worker import OpenedContents
from regwrap.transfer.workers import ClusterError, WorkerShare
from tests.builders import (
    flip,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    open_below,
    put,
    storage_problems,
)
from tests.bundles import make_bundle
from tests.fakes import NOT_ASKED, Scripted
from tests.lost import lose
from tests.unit.cli.programs import curl, skopeo_copy
from tests.unit.transfer.between import Between, between
from tests.unit.transfer.cluster import in_process
from tests.unit.transfer.test_archives import unpacks

BASE = make_layer("base")
APP, TOOL = make_image("app", layers=[BASE, make_layer("app")]), make_image("tool", layers=[BASE, make_layer("tool")])
MULTI = make_multi_image("multi")
OWN = Digest.of(APP.blobs[2])
PUSH = PushOptions(
    naming=Naming(prefix="site"), existing=Existing.FAIL, create_projects=False, hashed=False, dry_run=False
)
SIZE = sum(map(len, APP.blobs))


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root", {"team/app:1": APP, "team/tool:1": TOOL, "multi:1": MULTI}) as found:
        yield found


# --- into a storage that all of them have


@pytest.mark.slow
def test_workers_bring_a_storage_what_curl_would_and_are_counted(two: Between) -> None:
    two.scripted.launcher.answers.append(curl())
    with in_process(two.job(archive=two.directory)) as (inside, job):
        report = two.sync(job, "team/app:1", "team/tool:1", "multi:1")
    assert not storage_problems(two.root)
    assert {name: two.storage.resolve(name, "1") for name in ("team/app", "team/tool", "multi")} == {
        "team/app": APP.top, "team/tool": TOOL.top, "multi": MULTI.top,
    }  # fmt: skip
    blobs = {*APP.blobs, *TOOL.blobs, *MULTI.blobs}
    assert report.sent == sum(map(len, blobs))
    orders = [order for order in inside.orders if isinstance(order, FetchOrder)]
    assert report.workers == (
        WorkerShare(
            worker="w1", machine="m1", blobs=len(blobs), bytes_sent=report.sent, failures=0, seconds=len(orders)
        ),
    )
    asked = [blob.digest for order in orders for blob in order.blobs]
    assert sorted(asked) == sorted(f"{Digest.of(blob)}" for blob in blobs)
    assert {(order.source.asked, order.source.host) for order in orders} == {
        (f"http://{two.source.host}", two.source.host)
    }
    assert not (two.root / ".regwrap/sync").exists()


@pytest.mark.slow
def test_a_worker_s_blob_of_wrong_bytes_does_not_count(two: Between) -> None:
    two.scripted.launcher.answers.append(curl(changed={APP.blobs[2]: b"x" * len(APP.blobs[2])}))
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        result = two.run(job, "team/app:1", "team/tool:1").report
    assert result is not None
    (failed,) = result.failed
    assert failed.error.startswith(f"{two.source.host}/team/app: blob {OWN.short} arrived damaged")
    assert [line for line in two.told.said if "team/app" in line] == ["started team/app:1", "failed team/app:1"]
    assert two.storage.tags("team/app") == ()
    assert two.storage.blob_size(OWN) is None
    assert two.storage.resolve("team/tool", "1") == TOOL.top
    assert [share.failures for share in result.workers] == [1]


def test_what_is_refused_to_a_worker_is_told_of_the_image(two: Between) -> None:
    two.scripted.launcher.answers.append(curl())
    two.source.fails = lambda request: 403 if request.startswith("GET") and f"{OWN}" in request else None
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        said = two.failure(job, "team/app:1")
    assert f"answered 403 to blob {OWN.short} of team/app" in said
    assert "has no permission" in said


def test_a_registry_that_a_worker_cannot_reach_is_told_of_the_image(two: Between) -> None:
    """From where the client is all may be well: the worker is asked no more often than was said."""
    two.scripted.launcher.answers.append(curl())
    two.attempts, asked = 2, list[str]()

    def breaks(request: str) -> None:
        if request == "GET /v2/":  # by which a worker begins
            asked.append(request)
            raise ConnectionResetError

    two.source.fails = breaks
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        report = two.run(job, "team/app:1").report
    assert report is not None
    (failed,) = report.failed
    assert failed.error.startswith(f"{two.source.host} could not be reached")
    assert failed.attempts == 2
    assert two.started("curl") == []
    assert asked


def test_what_a_worker_cannot_ask_a_registry_the_client_s_skopeo_does(two: Between) -> None:
    two.source.challenge, two.source.guarded = 'Bearer service="x"', "^GET /v2/$"  # by which a worker begins
    two.scripted.launcher.answers += [curl(), skopeo_copy(APP)]
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        two.sync(job, "team/app:1")
    assert len(two.started("copy")) == 1
    assert not storage_problems(two.root)


@pytest.mark.slow
@pytest.mark.parametrize("marks", [("-dead", "-gone"), ("",)], ids=["lost workers", "an earlier run"])
def test_a_worker_goes_on_where_another_was_lost(two: Between, marks: tuple[str, ...]) -> None:
    """A worker that was lost may still write into its file: it is copied, and the copy is gone on with."""
    two.scripted.launcher.answers.append(curl())
    for blob in APP.blobs:
        for mark in marks:
            put(two.root / f".regwrap/sync/parts/{Digest.of(blob).hex}{mark}", blob[:5])
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        report = two.sync(job, "team/app:1")
    assert report.sent == SIZE - 5 * len(APP.blobs)
    started = b"".join(start.stdin for start in two.scripted.launcher.started)
    assert started.count(b'continue-at = "5"') == len(APP.blobs)
    assert not storage_problems(two.root)


def test_what_a_worker_has_begun_is_there_for_the_next(two: Between) -> None:
    two.scripted.launcher.answers.append(curl())
    for mark in ("", "-dead"):
        put(two.root / f".regwrap/sync/parts/{OWN.hex}{mark}", APP.blobs[2][:5])
    two.source.fails = lambda request: 403 if request.startswith("GET") and f"{OWN}" in request else None
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        two.failure(job, "team/app:1")
    parts = two.root / ".regwrap/sync/parts"
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == {OWN.hex: APP.blobs[2][:5]}
    assert list(parts.parent.glob("run-*")) == [], "what told the workers that it is the client's directory is gone"


def test_what_was_there_of_a_blob_is_there_after_a_worker_that_breaks(two: Between) -> None:
    """By its own name: a run without a cluster goes on with it too."""
    parts = put(two.root / f".regwrap/sync/parts/{OWN.hex}", APP.blobs[2][:5]).parent
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        assert "the script has no answer" in two.failure(job, "team/app:1")  # to curl
    assert [path.name for path in parts.iterdir()] == [OWN.hex]


@pytest.mark.slow
def test_a_worker_that_hashes_for_long_is_waited_for(two: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come would come again."""
    sync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(0.02)
        sync(descriptor)

    two.scripted.launcher.answers.append(curl())
    monkeypatch.setattr(os, "fsync", slow)
    with in_process(two.job(archive=two.directory)) as (inside, job):
        report = two.sync(job, "team/app:1")
    assert sum(len(order.blobs) for order in inside.orders if isinstance(order, FetchOrder)) == len(APP.blobs)
    assert report.sent == SIZE


@pytest.mark.parametrize(
    ("inside", "said"),
    [("", "cannot be used on this worker: No such file"), (".regwrap/sync", "is another directory than the client's")],
)
def test_a_worker_that_has_another_directory_by_that_path_ends_the_run(
    two: Between, tmp_path: Path, inside: str, said: str
) -> None:
    """Blobs would lie on the worker's own disk, and the client would show images without them."""
    elsewhere = make_storage(tmp_path / "elsewhere", {})
    (elsewhere / inside).mkdir(mode=0o700, parents=True, exist_ok=True)

    def swap(order: Order) -> Order:
        assert isinstance(order, FetchOrder)
        return replace(order, root=f"{elsewhere}")

    with in_process(two.job(archive=two.directory)) as (workers, job):
        workers.before = swap
        with pytest.raises(ClusterError, match=f"^worker w1 on m1: {elsewhere}.*{said}") as raised:
            two.run(job, "team/app:1")
    assert "give the workers the same directory by the same path" in raised.value.hint
    assert two.storage.tags("team/app") == ()
    assert (elsewhere / ".regwrap").exists() == bool(inside), "nothing is made in a directory that is not the client's"
    assert list(two.root.glob(".regwrap/sync/run-*")) == []


@pytest.mark.parametrize("is_registry", [True, False])
def test_a_worker_for_which_the_name_is_another_registry_ends_the_run(two: Between, *, is_registry: bool) -> None:
    place = Location(name="x", registry=two.place(two.dest).registry if is_registry else None)
    with in_process(two.job(archive=two.directory)) as (workers, job):
        workers.endpoints.job = replace(workers.job, location_of=lambda _name: place)
        said = two.dest.host if is_registry else "no registry"
        with pytest.raises(ClusterError, match=f"is {said} in the configuration of this worker") as raised:
            two.run(job, "team/app:1")
    assert "the same configuration" in raised.value.hint
    assert two.dest.requests == []


@pytest.mark.slow
def test_a_worker_that_is_lost_costs_its_order_an_attempt(two: Between) -> None:
    two.scripted.launcher.answers.append(curl())
    two.attempts = 2
    broken = [True]

    def die(order: Order) -> Order:
        if broken:
            broken.clear()
            raise RuntimeError("killed")
        return order

    with in_process(two.job(archive=two.directory)) as (inside, job):
        inside.before = die
        (copied,) = two.sync(job, "team/app:1").copied
    assert copied.attempts == 2
    assert any("the worker is gone: killed" in line for line in two.told.said)


@pytest.mark.slow
@pytest.mark.parametrize("into_registry", [False, True])
def test_a_host_that_pushes_a_worker_back_is_asked_less_by_all(two: Between, *, into_registry: bool) -> None:
    two.scripted.launcher.answers += [curl()]
    job = two.job() if into_registry else two.job(archive=two.directory)
    make_storage(two.root, {})
    heard: list[tuple[str, str]] = []
    with in_process(job) as (inside, job), ExitStack() as stack:
        inside.pushed_back.append(PushedBack(two.source.host, "0"))
        endpoints = Endpoints(job=job, stack=stack, on_pushed_back=lambda *told: heard.append(told))
        images = parse_images(b"team/app:1", "images.list")
        copies = two.run(job, "team/app:1", options=SyncOptions(dry_run=True)).plan
        dest = endpoints.of(job.archive)
        assert all(endpoints.source_of(entry) for entry in images.entries)
        report = transfer_images(copies, dest, endpoints=endpoints, writing=Writing())
    assert len(report.copied) == 1
    assert heard == [(two.source.host, "0")]


@pytest.mark.slow
@pytest.mark.parametrize("into_registry", [False, True])
def test_what_workers_ask_counts_as_asked_by_this_run(two: Between, *, into_registry: bool) -> None:
    """`max_connections` is a limit for the cluster as a whole."""
    two.scripted.launcher.answers.append(curl())
    make_storage(two.root, {})
    held: list[list[int]] = []
    with in_process(two.job() if into_registry else two.job(archive=two.directory)) as (inside, job), ExitStack() as st:
        endpoints = Endpoints(job=job, stack=st)
        plan = two.run(job, "team/app:1", options=SyncOptions(dry_run=True)).plan
        both = [endpoints.registry(two.place(registry)) for registry in (two.source, two.dest)]

        def look(order: Order) -> Order:
            held.append([end.probe.limiter.rate.running for end in both])
            return order

        inside.before = look
        transfer_images(plan, endpoints.of(job.archive), endpoints=endpoints, writing=Writing())
        assert [end.probe.limiter.rate.running for end in both] == [0, 0]
    assert {tuple(each) for each in held} == {(1, int(into_registry))}


@pytest.mark.parametrize(("refused", "rises"), [("", True), (f"/{OWN}", True), ("/", False)])
def test_a_good_answer_to_a_worker_raises_what_a_registry_is_asked_for(
    two: Between, refused: str, *, rises: bool
) -> None:
    """After a 429 it is asked less, and a little more with each answer: whoever gets that."""
    two.scripted.launcher.answers.append(curl())
    make_storage(two.root, {})
    with in_process(two.job(archive=two.directory)) as (_inside, job), ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        plan = two.run(job, "team/app:1", options=SyncOptions(dry_run=True)).plan
        rate = endpoints.registry(two.place(two.source)).probe.limiter.rate
        rate.limit = 2.0
        two.source.fails = lambda request: 403 if refused and f"/blobs{refused}" in request else None
        transfer_images(plan, endpoints.of(job.archive), endpoints=endpoints, writing=Writing())
    assert (rate.limit > 2) == rises


@pytest.mark.slow
def test_what_is_coming_at_a_worker_is_seen_here(two: Between) -> None:
    """The progress of a run of hours would stand still until whole orders end."""
    two.scripted.launcher.answers.append(curl())
    seen: list[int] = []
    with in_process(two.job(archive=two.directory)) as (inside, job):
        assert job.workers is not None
        heard = job.workers.heard

        def tell(order: Order) -> Order:
            assert isinstance(order, FetchOrder)
            for count in (3, 5):
                heard({blob.digest: count for blob in order.blobs})
            deadline = time.monotonic() + 20
            while "started team/app:1" not in two.told.said:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            seen.append(sum(5 for _blob in order.blobs))
            seen.append(two.told.looks[-1]().done)
            return order

        inside.before = tell
        report = two.sync(job, "team/app:1")
    assert sum(seen[1::2]) >= seen[0] > 0
    assert report.sent == SIZE, "what was told on the way does not count twice"
    assert [line for line in two.told.said if line.startswith("started")] == ["started team/app:1"]


def test_a_blob_that_a_worker_could_not_end_is_asked_for_again_and_has_not_failed(two: Between) -> None:
    two.scripted.launcher.answers.append(curl())
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        assert job.workers is not None
        perform, orders = job.workers.perform, list[Order]()

        def first_not(order: Order) -> Answer:
            orders.append(order)
            if len(orders) > 1:
                return perform(order)
            assert isinstance(order, FetchOrder)
            again = tuple(BlobAnswer(digest=blob.digest, came=2, renewals=1, again=True) for blob in order.blobs)
            return Answer(worker="w1", machine="m1", seconds=1, blobs=again)

        job.workers.perform = first_not
        (copied,) = two.sync(job, "team/app:1").copied
    assert copied.attempts == 1
    first, *later = (order for order in orders if isinstance(order, FetchOrder))
    renewals = {blob.digest: blob.renewals for order in later for blob in order.blobs}
    assert {renewals[blob.digest] for blob in first.blobs} == {1}
    assert copied.sent == SIZE + 2 * len(first.blobs)


@pytest.mark.slow
def test_a_blob_that_does_not_reach_a_worker_s_disk_does_not_count(
    two: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's sync does not reach what is in the memory of another machine."""

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    two.scripted.launcher.answers.append(curl())
    two.attempts = 2
    monkeypatch.setattr(os, "fsync", failing)
    with in_process(two.job(archive=two.directory)) as (_inside, job):
        report = two.run(job, "team/app:1").report
    assert report is not None
    (failed,) = report.failed
    assert f"{two.root}/.regwrap/sync: Input/output error" in failed.error
    assert failed.attempts == 2, "another worker may have a better way to the disk"
    assert two.storage.tags("team/app") == ()
    assert [name for name in open_below(two.root) if "/parts/" in name] == []


@pytest.mark.parametrize("staged", [False, True])
def test_a_blob_is_proved_once_and_where_another_worker_has_staged_it_too(tmp_path: Path, *, staged: bool) -> None:
    """One that was taken for lost, and was not."""
    stage, blob = Stage(Tree(tmp_path)), Descriptor(media_type="", digest=OWN, size=len(APP.blobs[2]))
    (tmp_path / BLOBS).mkdir(parents=True)
    put(tmp_path / (stage.blob(OWN) if staged else stage.part(OWN)), APP.blobs[2])
    travel = Travel(blob=blob, end=NOT_ASKED, repository="a")
    with ThreadPoolExecutor() as pool:
        arriving = _Arriving(stage=stage, around=Hearing([]), pool=pool)
        arriving.complete(travel)
    assert arriving.answer(travel) == BlobAnswer(digest=f"{OWN}")
    assert stage.is_valid(blob)
    assert [name for name in open_below(tmp_path) if OWN.hex in name] == []


@dataclass
class Hearing:
    came_so_far: list[dict[str, int]]

    def is_wanted(self) -> bool:
        return True

    def came(self, counts: Mapping[str, int]) -> None:
        self.came_so_far.append(dict(counts))


def test_a_worker_tells_twice_a_second_what_has_come_since_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    hearing = Hearing([])
    blob = Descriptor(media_type="", digest=OWN, size=9)
    travel = Travel(blob=blob, end=NOT_ASKED, repository="a", came=4)
    arriving = _Arriving(stage=NOT_ASKED, around=hearing, pool=NOT_ASKED)  # nothing is whole
    now[0] += 0.6
    assert arriving.is_wanted()
    arriving.begun(travel)
    other = Travel(blob=replace(blob, digest=Digest.of(BASE)), end=NOT_ASKED, repository="a")
    for step, began, count in ((0.0, travel, 4), (0.4, travel, 5), (0.2, other, 0), (0.6, other, 2), (0.6, other, 2)):
        if began not in arriving.begun_ones:
            arriving.begun(began)
        began.came = count
        now[0] += step
        assert arriving.is_wanted()
    assert hearing.came_so_far == [{f"{OWN}": 4}, {f"{OWN}": 5, f"{Digest.of(BASE)}": 0}, {f"{Digest.of(BASE)}": 2}]
    assert arriving.answer(travel).again
    for tell, again in ((arriving.proved, False), (arriving.again, True)):
        tell(travel)
        assert (arriving.answer(travel).again, arriving.answer(travel).refusal) == (again, None)
    arriving.failed_to_come(travel, ToolError("no"))
    assert not arriving.answer(travel).again
    assert arriving.answer(travel).refusal is not None


# --- into a registry


@pytest.mark.slow
def test_workers_send_each_blob_once_and_the_client_the_manifests(two: Between) -> None:
    with in_process(two.job()) as (inside, job):
        report = two.sync(job, "team/app:1 => site/app:v1", "team/tool:1 => site/app:v2", "multi:1")
    assert two.dest.has("site/app:v1", APP)
    assert two.dest.has("site/app:v2", TOOL)
    assert two.dest.has("multi:1", MULTI)
    blobs = {*APP.blobs, *TOOL.blobs, *MULTI.blobs}
    assert report.sent == sum(map(len, blobs))
    assert len(two.dest.asked("^PUT .*digest=")) == len(blobs)
    assert [(share.blobs, share.bytes_sent) for share in report.workers] == [(len(blobs), report.sent)]
    sends = [send for order in inside.orders if isinstance(order, PushOrder) for send in order.blobs]
    assert {f"{to}" for send in sends for to in send.to} >= {"site/app:v1", "multi:1"}
    assert {to.repository for send in sends for to in send.to} == {"site/app", "multi"}


@pytest.mark.slow
def test_a_worker_takes_from_another_repository_what_it_has(two: Between) -> None:
    with in_process(two.job()) as (inside, job):
        two.sync(job, "team/app:1 => one/app:1", "team/app:1 => two/app:1")
    assert two.dest.has("one/app:1", APP)
    assert two.dest.has("two/app:1", APP)
    sends = [send for order in inside.orders if isinstance(order, PushOrder) for send in order.blobs]
    assert [{to.repository for to in send.to} for send in sends] == [{"one/app", "two/app"}] * 3
    assert len(two.dest.asked("^PUT .*digest=")) == 3
    assert len(two.dest.asked(r"^POST /v2/(one|two)/app/.*mount=.*from=(?!\1)")) == 3, "one from the other"


@pytest.mark.slow
def test_what_one_repository_refuses_to_a_worker_does_not_concern_the_next(two: Between) -> None:
    two.dest.fails = lambda request: 403 if request.startswith("POST /v2/one/") else None
    with in_process(two.job()) as (_inside, job):
        report = two.run(job, "team/app:1 => one/app:1", "team/app:1 => two/app:1").report
    assert report is not None
    (failed,) = report.failed
    assert f"{failed.entry.dest}" == "one/app:1"
    assert "answered 403 to blob" in failed.error
    assert [f"{item.copy.entry.dest}" for item in report.copied] == ["two/app:1"]
    assert two.dest.has("two/app:1", APP)
    assert sum(share.failures for share in report.workers) >= 1


@pytest.mark.slow
def test_a_worker_is_told_which_repository_has_the_blob_already(two: Between) -> None:
    two.dest.hold("one/app:0", TOOL)
    with in_process(two.job()) as (inside, job):
        two.sync(job, "team/app:1 => one/app:1", "team/app:1 => two/app:1")
    sends = [send for order in inside.orders if isinstance(order, PushOrder) for send in order.blobs]
    (base,) = (send for send in sends if send.digest == f"{Digest.of(BASE)}")
    assert ([f"{to}" for to in base.to], base.mount) == (["two/app:1"], "one/app")
    assert {send.new for send in sends} == {("two/app",)}, "of the other the client has seen what it has"
    assert not two.dest.asked(f"^PUT .*digest={f'{Digest.of(BASE)}'.replace(':', '%3A')}")


@pytest.mark.slow
def test_what_a_worker_has_put_into_one_repository_is_not_asked_of_it_again(two: Between) -> None:
    two.attempts, busy = 2, [500]
    two.dest.fails = lambda request: busy.pop() if busy and request.startswith("PUT /v2/") else None
    with in_process(two.job()) as (inside, job):
        two.sync(job, "team/app:1 => one/app:1", "team/app:1 => two/app:1")
    assert two.dest.has("one/app:1", APP)
    assert two.dest.has("two/app:1", APP)
    sends = [send for order in inside.orders if isinstance(order, PushOrder) for send in order.blobs]
    (again,) = (send for send in sends if len(send.to) == 1)
    assert {again.to[0].repository, again.mount} == {"one/app", "two/app"}


@pytest.mark.slow
def test_what_a_worker_has_to_send_anew_is_not_done(two: Between) -> None:
    two.attempts, broken, seen = 2, list[str](), list[int]()

    def fails(request: str) -> None:
        if request.startswith("PUT") and "digest=" in request and not broken:
            broken.append(request)
            raise ConnectionResetError
        if "/manifests/" in request and request.startswith("PUT"):
            seen.append(two.told.looks[-1]().done)

    two.dest.fails = fails
    with in_process(two.job()) as (_inside, job):
        report = two.sync(job, "team/app:1")
    assert broken
    assert report.sent > SIZE
    assert seen == [SIZE]


def test_a_repository_that_is_new_is_asked_by_the_upload_whether_it_has_the_blob(two: Between) -> None:
    """Of a push that was interrupted it may have some."""
    two.dest.blobs["one/app", f"{OWN}"] = APP.blobs[2]
    with in_process(two.job()) as (_inside, job):
        report = two.sync(job, "team/app:1 => one/app:1")
    assert two.dest.has("one/app:1", APP)
    assert report.sent == SIZE - len(APP.blobs[2])


@pytest.mark.slow
def test_workers_read_a_storage_by_its_path(two: Between, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "old", {"multi:1": MULTI})
    with in_process(two.job(source=Location(name="old", storage=root))) as (inside, job):
        two.sync(job, "multi:1")
    assert two.dest.has("multi:1", MULTI)
    (order, *_rest) = inside.orders
    assert isinstance(order, PushOrder)
    assert order.source == SharedFiles(f"{root}")


def test_what_was_unpacked_here_is_sent_from_here(two: Between, tmp_path: Path) -> None:
    unpacks(two, APP)
    archive = put(tmp_path / "vendor.tar", b"whatever skopeo reads")
    with in_process(two.job()) as (inside, job):
        two.sync(job, f"docker-archive:{archive} => third/app:1")
    assert two.dest.has("third/app:1", APP)
    assert inside.orders == []


@pytest.mark.slow
def test_damage_of_a_worker_s_storage_is_told_of_the_image(two: Between, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "old", {"team/app:1": APP, "team/tool:1": TOOL})
    flip(Storage(root).blob_path(OWN))
    with in_process(two.job(source=Location(name="old", storage=root))) as (_inside, job):
        report = two.run(job, "team/app:1", "team/tool:1").report
    assert report is not None
    (failed,) = report.failed
    assert f"team/app:1: blob {OWN} is damaged at the source" in failed.error
    assert not two.dest.asked("PUT /v2/team/app/manifests")
    assert two.dest.has("team/tool:1", TOOL)
    assert sum(share.failures for share in report.workers) == 1
    assert failed.sent >= len(APP.blobs[2]), "what travelled and was refused has travelled"
    assert sum(share.bytes_sent for share in report.workers) == report.sent


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403])
def test_what_the_source_does_not_give_a_worker_is_told_of_the_images_or_left_to_skopeo(
    two: Between, status: int
) -> None:
    two.answers("copy")
    two.source.fails = lambda request: status if request.startswith("GET") and f"/blobs/{OWN}" in request else None
    two.before = lambda _argv: setattr(two.source, "fails", lambda _request: None)
    with in_process(two.job()) as (_inside, job):
        report = two.run(job, "team/app:1", "team/tool:1").report
    assert report is not None
    assert two.dest.has("team/tool:1", TOOL)
    assert two.dest.has("team/app:1", APP) == (status == 401)
    said = [failed.error for failed in report.failed]
    answered = f"team/app:1: {two.source.host} answered 403 to blob {OWN.short}"
    assert [error.startswith(answered) for error in said] == ([] if status == 401 else [True])


@pytest.mark.slow
def test_orders_have_no_credentials(two: Between, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {two.source.host: {"auth": "bWU6c2VjcmV0"}}}))
    source = two.place(two.source)
    assert source.registry is not None
    source = replace(source, registry=replace(source.registry, authfile=authfile))
    two.scripted.launcher.answers.append(curl())
    with in_process(two.job(archive=two.directory, source=source)) as (inside, job):
        two.sync(job, "team/app:1")
    sent = b"".join(map(pickle.dumps, inside.orders))
    assert two.source.host.encode() in sent
    for secret in (b"bWU6c2VjcmV0", b"secret", b"auth.json"):
        assert secret not in sent


@pytest.mark.slow
@pytest.mark.parametrize("change", ["none", "another release", "absent"])
def test_workers_push_the_release_that_the_client_has_and_no_other(two: Between, tmp_path: Path, change: str) -> None:
    """By the same path a worker may have last month's bundle."""
    bundle = make_bundle(tmp_path / "v1", {"team/app:1": APP, "multi:1": MULTI}, "v1")
    other = make_bundle(tmp_path / "v2", {"team/app:1": TOOL, "multi:1": MULTI}, "v2")
    there = {"none": bundle, "another release": other, "absent": tmp_path / "absent.tar"}[change]

    def swap(order: Order) -> Order:
        assert isinstance(order, PushOrder)
        assert isinstance(order.source, SharedFiles)
        return replace(order, source=replace(order.source, path=f"{there}"))

    with in_process(two.job()) as (workers, job):
        workers.before = swap
        if change == "none":
            report = push_images(job, bundle, two.place(two.dest), PUSH).report
            assert report is not None
            assert two.dest.has("site/team/app:1", APP)
            assert two.dest.has("site/multi:1", MULTI)
            assert sum(share.bytes_sent for share in report.workers) == report.sent > 0
            return
        said = "is another release than the client's" if change == "another release" else f"there is no {there}"
        with pytest.raises(ClusterError, match=said) as raised:
            push_images(job, bundle, two.place(two.dest), PUSH)
    assert "give the workers the bundle or storage by the same path" in raised.value.hint
    assert two.dest.manifests == {}


@pytest.mark.slow
def test_workers_look_for_volumes_where_the_client_does(two: Between, tmp_path: Path) -> None:
    """Two media, mounted on all machines: the workers read the bundle out of both."""
    bundle, media = make_bundle(tmp_path / "v1", {"team/app:1": APP}), [tmp_path / "one", tmp_path / "two"]
    data, name = bundle.read_bytes(), tmp_path / "none" / bundle.name
    cut = len(data) * 2 // 3
    for number, place in enumerate(media, start=1):
        place.mkdir()
        (place / f"{bundle.name}.{number:03}").write_bytes(data[:cut] if number == 1 else data[cut:])
    with in_process(two.job()) as (workers, job):
        with volumes_also_in(media):
            report = push_images(job, name, two.place(two.dest), PUSH).report
        assert report is not None
        assert two.dest.has("site/team/app:1", APP)
        assert sum(share.bytes_sent for share in report.workers) == report.sent > 0
        sent = [order.source for order in workers.orders if isinstance(order, PushOrder)]
        assert {files.volumes_from for files in sent if isinstance(files, SharedFiles)} == {tuple(map(str, media))}


@pytest.mark.slow
def test_an_upload_that_nobody_waits_for_is_not_begun(two: Between, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "old", {"team/app:1": APP})
    with in_process(two.job(source=Location(name="old", storage=root))) as (workers, job):
        workers.is_wanted = lambda: False
        said = two.failure(job, "team/app:1")
    assert "the upload was stopped: nobody waits for it" in said
    assert two.dest.asked("^P") == []


def test_what_a_worker_reads_is_opened_once_for_all_orders(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "v1", {"team/app:1": APP})
    with ExitStack() as stack, opened_bundle(bundle) as opened:
        contents, files = OpenedContents(stack), SharedFiles(f"{bundle}", f"{opened.contents.id}")
        first = contents.of(files)
        assert contents.of(replace(files)) is first
        assert contents.of(SharedFiles(f"{tmp_path / 'v1/archive'}")) is not first


# --- hashing


def test_workers_name_the_blobs_that_have_other_bytes(two: Between) -> None:
    make_storage(two.root, {"team/app:1": APP, "team/tool:1": TOOL})
    flip(two.storage.blob_path(OWN))
    blobs = [(Digest.of(blob), len(blob)) for blob in {*APP.blobs, *TOOL.blobs}]
    counted: list[int] = []
    with in_process(two.job()) as (_inside, job):
        assert job.workers is not None
        wrong = hash_by_workers(job.workers, two.root, blobs, counted.append)
    assert wrong == {OWN: ""}
    assert sum(counted) == sum(size for _digest, size in blobs)


def test_why_a_worker_cannot_read_a_blob_is_told(two: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the report calls it damaged, where its disk has failed."""
    make_storage(two.root, {"team/app:1": APP})
    lose(monkeypatch, two.storage.blob_path(OWN))
    with in_process(two.job()) as (_inside, job):
        assert job.workers is not None
        by_workers = partial(hash_by_workers, job.workers, two.root)
        report = verify_storage(two.root, None, SILENT, hash_elsewhere=by_workers)
    path = layout.blob_path(OWN)
    assert report.problems == (f"team/app:1: blob {OWN} cannot be read: Input/output error ({path})",)


def test_a_worker_that_has_another_storage_says_so(two: Between) -> None:
    make_storage(two.root, {"team/app:1": APP})
    with in_process(two.job()) as (inside, job):
        assert job.workers is not None
        blobs = [(OWN, len(APP.blobs[2]) + 1)]
        with pytest.raises(ClusterError, match="is another directory than the client's"):
            hash_by_workers(job.workers, two.root, blobs, lambda _count: None)
        with pytest.raises(ClusterError, match=f"there is no {two.root}/none on this worker"):
            hash_by_workers(job.workers, two.root / "none", blobs, lambda _count: None)
        inside.is_wanted = lambda: False
        answer = inside.perform(HashOrder(run="r", root=f"{two.root}", blobs=((f"{OWN}", 5),)))
    assert [(said.again, said.came) for said in answer.blobs] == [(True, 0)]
