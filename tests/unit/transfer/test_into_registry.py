"""Blobs and manifests into a registry that is in the test's own process: what is sent, counted, proved, and refused."""

import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from regwrap.bundle.by_repository import Piece
from regwrap.core.closure import Closure, closure_of
from regwrap.core.errors import ToolError
from regwrap.core.listener import Outlook
from regwrap.core.location import Registry, Timeouts
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Destination, Digest
from regwrap.registry.credentials import UnsureError
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.registry.probe import Probe
from regwrap.tools.rate_limit import HostLimiters
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.transfer.blob_index import BlobIndex
from regwrap.transfer.blob_work import BlobReport, BlobWork
from regwrap.transfer.by_curl import Travel
from regwrap.transfer.into_registry import BlobSender, RegistryDestination, SendingFetcher, targets_of
from regwrap.transfer.plan import Copy, Reason
from regwrap.transfer.run import Copied, Failed
from regwrap.transfer.run_blobs import BlobRun
from tests.answering import Answer, Asked, answering
from tests.builders import Image, make_image
from tests.fakeregistry import FakeRegistry, fake_registry
from tests.fakes import NOT_ASKED
from tests.unit.transfer.test_plan import entry
from tests.unit.transfer.test_sync import Heard

IMAGE = make_image("pushed")
BLOBS = {Digest.of(data): data for data in IMAGE.blobs}
SIZE = sum(map(len, IMAGE.blobs))


@dataclass
class Source:
    """Blobs in files of this machine. `unsure`: as where only skopeo knows how to ask."""

    root: Path
    blobs: dict[Digest, bytes] = field(default_factory=lambda: dict(BLOBS))
    unsure: bool = False
    name: str = "here"

    def blob(self, _repository: str, digest: Digest) -> Piece | None:
        if self.unsure:
            raise UnsureError("a credential helper")
        data = self.blobs.get(digest)
        if data is None:
            return None
        path = self.root / digest.hex
        path.write_bytes(b"before" + data)
        return Piece(file=path.open("rb"), offset=6, size=len(data))


@dataclass
class Pushing:
    """From `source`, or the registry `other`, into `dest`, which is `registry`."""

    registry: FakeRegistry
    dest: RegistryEndpoint
    source: Source
    other: RegistryEndpoint | None = None
    attempts: int = 1
    jobs: int = 1
    index: BlobIndex = field(default_factory=BlobIndex)
    stopping: threading.Event = field(default_factory=threading.Event)
    told: Heard = field(default_factory=Heard)
    limiters: HostLimiters = field(init=False)

    def __post_init__(self) -> None:
        self.limiters = HostLimiters(stopping=self.stopping)

    @property
    def sender(self) -> BlobSender:
        return BlobSender(
            dest=self.dest,
            index=self.index,
            limiters=self.limiters,
            timeouts=Timeouts(),
            stopping=self.stopping,
        )

    def push(self, *copies: Copy) -> BlobReport:
        retry = Retry(RetryPolicy(attempts=self.attempts, wait=0.0001, max_wait=0.0001), self.stopping)
        work = BlobWork(
            dest=RegistryDestination(dest=self.dest, source_of=lambda _entry: self.other or self.source),  # type: ignore[arg-type, return-value]  # only blobs are asked for
            here=None,
            fetcher=SendingFetcher(sender=self.sender, targets=targets_of(copies), jobs=self.jobs, retry=retry),
            jobs=self.jobs,
            retry=retry,
            events=self.told,
            gave_up=lambda error: error,
        )
        return BlobRun(work=work).run(copies)

    def sent(self, *names: str) -> list[int]:
        """What travelled for each image, none of which may fail."""
        report = self.push(*map(copy_to, names))
        copied = {f"{item.copy.entry.dest}": item for item in report.outcomes if isinstance(item, Copied)}
        assert sorted(copied) == sorted(names)
        return [copied[name].sent for name in names]

    def failure(self, name: str, image: Image = IMAGE) -> Failed:
        (failed,) = self.push(copy_to(name, image)).outcomes
        assert isinstance(failed, Failed)
        return failed


def endpoint_of(host: str, authfile: Path | None = None) -> RegistryEndpoint:
    where = Registry(host=host, tls_verify=False, plain_http=True, authfile=authfile)
    probe = Probe(registry=where, timeout=10, connections=2)
    return RegistryEndpoint(registry=where, probe=probe, skopeo=NOT_ASKED)


@pytest.fixture
def pushing(tmp_path: Path) -> Iterator[Pushing]:
    with fake_registry() as registry:
        dest = endpoint_of(registry.host)
        yield Pushing(registry, dest, Source(tmp_path))
        dest.probe.close()


@pytest.fixture
def source(pushing: Pushing) -> Iterator[FakeRegistry]:
    """Another registry, from which the images come."""
    with fake_registry() as registry:
        for name in ("a/b:1", "c/d:1"):
            registry.hold(name, IMAGE)
        end = pushing.other = endpoint_of(registry.host)
        yield registry
        end.probe.close()


def closure(image: Image) -> Closure:
    found = closure_of(image.top, {Digest.of(raw): raw for raw in image.manifests}.get)
    assert found is not None
    return found


def copy_to(name: str, image: Image = IMAGE) -> Copy:
    whole = closure(image)
    return Copy(entry=entry(name), digest=image.top, reason=Reason.ABSENT, closure=whole, missing=whole.blobs)


def test_blobs_come_before_the_manifest_and_all_that_was_sent_is_counted(pushing: Pushing) -> None:
    assert pushing.sent("a/b:1") == [SIZE]
    assert {digest for _name, digest in pushing.registry.blobs} == {str(digest) for digest in BLOBS}
    assert pushing.registry.manifests["a/b", "1"][1] == IMAGE.raw
    puts = pushing.registry.asked("^PUT")
    assert [" /v2/a/b/manifests/1" in put for put in puts] == [False] * len(BLOBS) + [True]


@pytest.mark.parametrize("refused", [[], [500]])
def test_all_blobs_are_done_before_the_manifest_goes(pushing: Pushing, refused: list[int]) -> None:
    seen = list[Outlook]()
    pushing.attempts, fewer = 2, list(refused)

    def fails(request: str) -> int | None:
        if "/manifests/1" in request:
            seen.append(pushing.told.looks[-1]())
        return fewer.pop() if fewer and request.startswith("PUT") else None

    pushing.registry.fails = fails
    pushing.sent("a/b:1")
    assert {*seen, pushing.told.looks[-1]()} == {Outlook(SIZE, 0)}


def test_what_a_failed_attempt_had_sent_is_not_done_and_counts_as_sent(pushing: Pushing) -> None:
    seen, refused = list[Outlook](), list[str]()
    pushing.attempts = 3
    largest = max(IMAGE.blobs, key=len)

    def fails(request: str) -> int | None:
        if request.startswith("POST"):
            seen.append(pushing.told.looks[-1]())
        if request.startswith("PUT") and Digest.of(largest).hex in request and len(refused) < 2:
            refused.append(request)
            return 503
        return None

    pushing.registry.fails = fails
    assert pushing.sent("a/b:1") == [SIZE + 2 * len(largest)]
    assert {outlook.done + outlook.left for outlook in seen} == {SIZE}
    assert max(outlook.done for outlook in seen) <= SIZE - min(map(len, IMAGE.blobs))
    assert pushing.told.looks[-1]() == Outlook(SIZE, 0)
    assert [line for line in pushing.told.said if line.startswith("retrying")] == [
        line for line in pushing.told.said if "answered 503" in line
    ]


def test_an_image_whose_blobs_are_all_there_needs_its_manifest_alone(pushing: Pushing) -> None:
    pushing.registry.hold("a/b:0", IMAGE)
    (copied,) = pushing.push(replace(copy_to("a/b:1"), missing=())).outcomes
    assert isinstance(copied, Copied)
    assert copied.sent == 0
    assert pushing.registry.has("a/b:1", IMAGE)
    assert pushing.registry.asked("^POST") == []


def test_what_takes_longest_is_sent_first(pushing: Pushing) -> None:
    layers = [random.Random(size).randbytes(size) for size in (300, 1000, 500, 2000)]
    image = make_image("sizes", layers=layers)
    pushing.source.blobs = {Digest.of(blob): blob for blob in image.blobs}
    pushing.push(copy_to("a/b:1", image))
    order = [request.rpartition("%3A")[2] for request in pushing.registry.asked("^PUT .*digest=")]
    assert order == [Digest.of(blob).hex for blob in sorted(image.blobs, key=len, reverse=True)]


def test_a_blob_is_sent_to_one_repository_and_taken_from_it_by_the_others(pushing: Pushing) -> None:
    assert sorted(pushing.sent("a/b:1", "c/d:1", "a/b:2")) == [0, 0, SIZE]
    assert len(pushing.registry.asked("^POST .*/blobs/uploads/.*mount=.*from=")) == len(BLOBS)
    assert len(pushing.registry.asked("^PUT .*digest=")) == len(BLOBS)
    assert len(pushing.registry.asked("^HEAD .*/blobs/")) == len(BLOBS), "a thousand tags share a layer: looked at once"
    assert {name for name, _digest in pushing.registry.blobs} == {"a/b", "c/d"}
    assert {name for name in pushing.registry.manifests if name[1] in {"1", "2"}} == {
        ("a/b", "1"), ("c/d", "1"), ("a/b", "2"),
    }  # fmt: skip


def test_uploads_are_as_many_as_may_be_each_by_a_thread(pushing: Pushing) -> None:
    retry = Retry(RetryPolicy(), pushing.stopping)
    fetcher = SendingFetcher(sender=NOT_ASKED, targets={}, jobs=3, retry=retry)
    assert fetcher.threads == 3
    assert [fetcher.has_room([1] * count, 3, 1) for count in (0, 2, 3)] == [True, True, False]
    assert fetcher.has_room([0] * 5, 1, 9)
    assert 0 < fetcher.enough(10**12) <= 1


def test_a_blob_is_wanted_in_each_repository_that_lacks_it_once() -> None:
    first, second, third = copy_to("a/b:1"), copy_to("a/b:2"), copy_to("c/d:1")
    third = replace(third, missing=third.missing[:1])
    targets = targets_of((first, second, third))
    assert set(targets) == set(BLOBS)
    shared = third.missing[0].digest
    assert {digest: [f"{to}" for to in found] for digest, found in targets.items()} == {
        digest: ["a/b:1", "c/d:1"] if digest == shared else ["a/b:1"] for digest in BLOBS
    }


@pytest.mark.parametrize("broken", ["a/b", "c/d", "e/f"])
def test_a_repository_that_fails_each_time_keeps_no_other_from_its_blobs(pushing: Pushing, broken: str) -> None:
    pushing.attempts = 3
    pushing.registry.fails = lambda request: 500 if request.startswith(f"POST /v2/{broken}/") else None
    names = {name: f"{name}:1" for name in ("a/b", "c/d", "e/f")}
    outcomes = pushing.push(*map(copy_to, names.values())).outcomes
    (failed,) = (item for item in outcomes if isinstance(item, Failed))
    assert (f"{failed.entry.dest}", failed.attempts) == (names.pop(broken), 3)
    copied = {f"{item.copy.entry.dest}": item.attempts for item in outcomes if isinstance(item, Copied)}
    assert set(copied) == set(names.values())
    assert all(pushing.registry.has(name, IMAGE) for name in copied)
    assert len(pushing.registry.asked("^PUT .*digest=")) == len(BLOBS)


@pytest.mark.parametrize("unsure", ["a/b", "c/d"])
def test_a_repository_that_only_skopeo_can_push_into_is_left_to_it_and_no_other(pushing: Pushing, unsure: str) -> None:
    """A 401 that says nothing of how to log in."""
    pushing.registry.fails = lambda request: 401 if request.startswith(f"POST /v2/{unsure}/") else None
    report = pushing.push(copy_to("a/b:1"), copy_to("c/d:1"))
    assert [f"{copy.entry.dest}" for copy in report.left] == [f"{unsure}:1"]
    (copied,) = report.outcomes
    assert isinstance(copied, Copied)
    assert pushing.registry.has(f"{copied.copy.entry.dest}", IMAGE)


def test_manifests_of_one_repository_are_put_one_after_the_other(pushing: Pushing) -> None:
    """docker-registry writes the links of a repository in place: two at once would disturb each other."""
    pushing.jobs = 4
    busy, together, lock, both = list[str](), set[tuple[str, ...]](), threading.Lock(), threading.Barrier(2)

    def watch(request: str) -> None:
        if request.startswith("PUT") and "/manifests/" in request:
            repository = request.split("/manifests/", maxsplit=1)[0]
            with lock:
                busy.append(repository)
                together.add(tuple(sorted(busy)))
            if request.endswith("/manifests/1"):
                both.wait(30)
            with lock:
                busy.remove(repository)

    pushing.registry.fails = watch
    pushing.sent("a/b:1", "c/d:1", "a/b:2", "a/b:3")
    assert not any(len(set(names)) < len(names) for names in together)


@pytest.mark.parametrize("status", [403, 413])
@pytest.mark.parametrize("denied", ["a/b", "c/d", "e/f"])
def test_who_may_not_push_into_one_repository_may_into_the_others(pushing: Pushing, denied: str, status: int) -> None:
    """All three images have the same layers: what one project refuses does not concern the next."""
    pushing.attempts = 3
    pushing.registry.fails = lambda request: status if request.startswith(f"POST /v2/{denied}/") else None
    names = {name: f"{name}:1" for name in ("a/b", "c/d", "e/f")}
    outcomes = pushing.push(*map(copy_to, names.values())).outcomes
    (failed,) = (item for item in outcomes if isinstance(item, Failed))
    assert f"{failed.entry.dest}" == names.pop(denied)
    assert f"{status}" in failed.error
    assert failed.attempts == 1
    copied = {f"{item.copy.entry.dest}" for item in outcomes if isinstance(item, Copied)}
    assert copied == set(names.values())
    assert all(pushing.registry.has(name, IMAGE) for name in copied)
    assert len(pushing.registry.asked("^PUT .*digest=")) == len(BLOBS)
    plain = pushing.registry.asked(f"^POST /v2/{denied}/")
    blobs = {request.partition("mount=")[2].partition("&")[0] for request in plain} - {""}
    assert len(blobs) <= 1, "with its first blob the image has failed: it is not asked for the others"


def test_a_connection_that_breaks_while_a_blob_is_mounted_costs_an_attempt_and_no_byte(pushing: Pushing) -> None:
    """What one repository has by then is not sent again, and the next takes it from there."""
    broken = list[str]()
    pushing.attempts = 2

    def breaks(request: str) -> None:
        if "mount=" in request and not broken:
            broken.append(request)
            raise ConnectionResetError

    pushing.registry.fails = breaks
    assert sorted(pushing.sent("a/b:1", "c/d:1", "e/f:1")) == [0, 0, SIZE]
    assert all(pushing.registry.has(name, IMAGE) for name in ("a/b:1", "c/d:1", "e/f:1"))
    assert any(line.startswith("retrying") for line in pushing.told.said)
    assert len(pushing.registry.asked("^PUT .*digest=")) == len(BLOBS)


@pytest.mark.parametrize("is_login", [False, True], ids=["no token server", "a login that is refused"])
def test_where_a_blob_may_not_be_taken_from_another_repository_it_is_sent(
    pushing: Pushing, tmp_path: Path, is_login: bool
) -> None:
    """The images of both would be left to skopeo, or fail, for the sake of a request that only saves bytes."""
    host = pushing.registry.host
    realm = f'realm="http://{host}/token",' if is_login else ""
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {host: {"auth": "bWU6c2VjcmV0"}}}))
    pushing.dest = endpoint_of(host, authfile)
    pushing.registry.challenge, pushing.registry.guarded = f'Bearer {realm}service="r"', "mount="
    pushing.registry.fails = lambda request: 401 if "/token" in request else None
    assert sum(pushing.sent("a/b:1", "c/d:1")) == 2 * SIZE
    assert all(pushing.registry.has(name, IMAGE) for name in ("a/b:1", "c/d:1"))
    pushing.dest.probe.close()


def test_an_image_that_is_refused_was_begun(pushing: Pushing) -> None:
    pushing.registry.fails = lambda request: 403 if request.startswith("POST") else None
    assert pushing.failure("a/b:1").seconds > 0
    assert pushing.told.said == ["started a/b:1", "failed a/b:1"]


def test_a_mount_that_is_refused_is_an_upload(pushing: Pushing) -> None:
    pushing.index.add("x/y", tuple(BLOBS))
    assert pushing.sent("a/b:1") == [SIZE]
    assert len(pushing.registry.asked("^DELETE .*/uploads/")) == len(BLOBS)


def test_where_nobody_but_skopeo_can_ask_the_image_is_left_to_it(pushing: Pushing) -> None:
    pushing.source.unsure = True
    report = pushing.push(copy_to("a/b:1"))
    assert [f"{copy.entry.dest}" for copy in report.left] == ["a/b:1"]
    assert report.outcomes == ()


@pytest.mark.parametrize("damage", ["other bytes", "cut", "gone"])
def test_damage_at_the_source_is_no_fault_of_the_registry(pushing: Pushing, damage: str) -> None:
    victim = next(iter(BLOBS))
    if damage == "gone":
        del pushing.source.blobs[victim]
    else:
        pushing.source.blobs[victim] = b"x" * (len(BLOBS[victim]) - (damage == "cut"))
    failed = pushing.failure("a/b:1")
    assert failed.error.startswith(f"a/b:1: blob {victim} is damaged at the source")
    assert "copy the bundle again" in failed.hint, "what lies here is a bundle, or was deployed from one"
    assert pushing.registry.manifests == {}


def test_a_registry_that_keeps_another_manifest_is_found_out(pushing: Pushing) -> None:
    other = make_image("other")
    pushing.registry.fails = lambda request: 201 if request == "PUT /v2/a/b/manifests/1" else None
    pushing.registry.manifests["a/b", "1"] = ("application/vnd.oci.image.manifest.v1+json", other.raw)
    assert f"is {other.top} after the copy, expected {IMAGE.top}" in pushing.failure("a/b:1").error


def test_nothing_is_sent_once_the_run_is_being_stopped(pushing: Pushing) -> None:
    pushing.stopping.set()
    with pytest.raises(ToolError, match="regwrap is stopping"):
        pushing.push(copy_to("a/b:1"))
    assert pushing.registry.blobs == {}


def test_an_upload_under_way_ends_when_the_run_is_stopped(pushing: Pushing) -> None:
    def stop(request: str) -> None:
        if request.startswith("POST"):
            pushing.stopping.set()

    pushing.registry.fails = stop
    with pytest.raises(ToolError, match="regwrap is stopping"):
        pushing.push(copy_to("a/b:1"))
    assert pushing.registry.blobs == {}
    assert not any(line.startswith("failed") for line in pushing.told.said), "what was stopped did not fail"


@pytest.mark.parametrize(
    ("status", "hint"),
    [(403, "no permission for this"), (405, "make it writable"), (412, "use another tag"), (413, "body limit")],
)
@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_a_refusal_says_what_to_do(pushing: Pushing, status: int, hint: str, what: str) -> None:
    pushing.attempts = 3
    pushing.registry.fails = lambda request: (
        status if request.startswith("PUT") and ("/manifests/" in request) == (what == "manifest") else None
    )
    failed = pushing.failure("a/b:1")
    assert f"answered {status} to {'the ' * (what == 'manifest')}{what}" in failed.error
    assert hint in failed.hint
    assert failed.attempts == 1


def test_a_manifest_is_put_again_where_the_registry_was_busy(pushing: Pushing) -> None:
    pushing.attempts = 3
    busy = [503, 502]
    pushing.registry.fails = lambda request: busy.pop(0) if busy and "PUT /v2/a/b/manifests" in request else None
    (copied,) = pushing.push(copy_to("a/b:1")).outcomes
    assert isinstance(copied, Copied)
    assert (copied.attempts, copied.sent) == (3, SIZE)
    assert len(pushing.registry.asked("^PUT .*digest=")) == len(BLOBS), "no blob is sent again for that"


@dataclass
class Resuming:
    """A registry that keeps what came of an upload. The first is cut off after ten bytes; of the pieces that come then
    one is refused, if `refuses`."""

    refuses: bool
    pieces: list[tuple[int, int]] = field(default_factory=list)
    kept: bytearray = field(default_factory=bytearray)
    is_cut: bool = False

    def __call__(self, asked: Asked) -> Answer:
        method, _, target = asked.line.partition(" ")
        place = {"Location": "/v2/a/b/blobs/uploads/one", "Range": f"0-{len(self.kept) - 1}"}
        if method == "GET":
            return Answer(204, place)
        if method == "POST":
            self.kept.clear()
            return Answer(202, place)
        if method == "PATCH":
            return self._piece(asked)
        if method == "PUT":
            return self._last(asked, target)
        return Answer(204)

    def _piece(self, asked: Asked) -> Answer:
        start = int(asked.headers["content-range"].partition("-")[0])
        self.pieces.append((start, len(asked.body)))
        if self.refuses and len(self.pieces) == 2:
            return Answer(416)
        assert start == len(self.kept)
        self.kept += asked.body
        return Answer(202, {"Range": f"0-{len(self.kept) - 1}"})

    def _last(self, asked: Asked, target: str) -> Answer:
        if not self.is_cut:
            self.is_cut = True
            self.kept += asked.body[:10]
            raise ConnectionResetError
        self.kept += asked.body
        is_valid = target.endswith(f"digest={quote(f'{Digest.of(bytes(self.kept))}', safe='')}")
        return Answer(201 if is_valid else 400)


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("from_registry", [False, True])
def test_an_upload_that_broke_goes_on_with_the_bytes_that_are_lacking(
    pushing: Pushing, source: FakeRegistry, *, from_registry: bool, refuses: bool
) -> None:
    """Piece by piece then; where the registry wants none of them, from the first byte on."""
    data = random.Random(1).randbytes(600)
    blob = Descriptor(media_type="", digest=Digest.of(data), size=len(data))
    pushing.source.blobs[blob.digest] = source.blobs["a/b", f"{blob.digest}"] = data
    resuming = Resuming(refuses)
    with answering(resuming) as server:
        pushing.dest = endpoint_of(server.host)
        pushing.dest.probe.uploads.piece = 256
        end = pushing.other if from_registry else pushing.source
        travel = Travel(blob=blob, end=end, repository="a/b")  # type: ignore[arg-type]  # only blobs are asked for
        with pytest.raises(ToolError) as raised:
            pushing.sender.send(travel, [Destination("a/b", "1")])
        assert raised.value.transient
        assert pushing.sender.send(travel, [Destination("a/b", "1")]) == {}
        pushing.dest.probe.close()
    assert bytes(resuming.kept) == data
    anew = [(0, 256), (256, 256), (512, 88)]
    assert resuming.pieces == ([(10, 256), (266, 256), *anew] if refuses else [(10, 256), (266, 256), (522, 78)])
    if from_registry:
        assert len(source.asked("^GET")) == 2 + refuses, "what is asked for next is read on"


def test_a_registry_that_refuses_right_bytes_of_a_file_is_named_and_not_asked_again(pushing: Pushing) -> None:
    pushing.attempts = 3
    pushing.registry.fails = lambda request: 400 if request.startswith("PUT") else None
    failed = pushing.failure("a/b:1")
    assert f"{pushing.registry.host} answered 400 to blob" in failed.error
    assert "damaged" not in failed.error
    assert failed.attempts == 1


# --- out of another registry


def test_what_the_source_does_not_give_is_asked_of_it_once(pushing: Pushing, source: FakeRegistry) -> None:
    """Whoever waits for the blob fails with it: no other repository can get it either."""
    largest = Digest.of(max(IMAGE.blobs, key=len))
    source.fails = lambda request: 403 if f"/blobs/{largest}" in request else None
    outcomes = pushing.push(copy_to("a/b:1"), copy_to("a/b:1 => c/d:1")).outcomes
    failed = [item.error.partition(": ")[2] for item in outcomes if isinstance(item, Failed)]
    assert len(failed) == 2
    assert all(error.startswith(f"{source.host} answered 403 to blob {largest.short} of ") for error in failed)
    assert len(source.asked(f"^GET .*/blobs/{largest}")) == 1


@pytest.mark.usefixtures("source")
def test_both_registries_count_an_upload_as_one_of_what_they_bear(pushing: Pushing) -> None:
    """`max_connections`, and what is left of it after a 429, hold for as long as bytes come."""
    assert pushing.other is not None
    endpoints, held = (pushing.other.registry, pushing.dest.registry), list[list[int]]()

    def look(request: str) -> None:
        if request.startswith("PUT") and "digest=" in request:
            held.append([pushing.limiters.of(end).rate.running for end in endpoints])

    pushing.registry.fails = look
    pushing.sent("a/b:1")
    assert held == [[1, 1]] * len(BLOBS)
    assert [pushing.limiters.of(end).rate.running for end in endpoints] == [0, 0]


def test_all_blobs_come_over_one_connection(pushing: Pushing, source: FakeRegistry) -> None:
    """A new one for each would be a handshake for each."""
    pushing.sent("a/b:1")
    assert len(source.asked("^GET .*/blobs/")) == len(BLOBS)
    assert source.connections == 1


def test_a_source_that_sends_more_than_a_blob_has_is_not_believed(pushing: Pushing, source: FakeRegistry) -> None:
    layer = bytes(256 * 1024)  # so much is read at once: the rest is behind it
    large = make_image("large", layers=[layer])
    source.hold("a/b:1", large)
    source.blobs["a/b", f"{Digest.of(layer)}"] += b"more"
    failed = pushing.failure("a/b:1", large)
    assert f"{source.host} sends more than the {len(layer)} bytes" in failed.error
    assert pushing.registry.manifests == {}


@pytest.mark.slow
def test_an_upload_that_ends_early_leaves_no_connection_to_the_source(pushing: Pushing, source: FakeRegistry) -> None:
    large = make_image("large", layers=[bytes(1024 * 1024)])
    source.hold("a/b:1", large)
    (blob,) = (blob for blob in closure(large).blobs if blob.size > 1024)
    assert pushing.other is not None
    pushing.registry.fails = lambda request: pushing.stopping.set() if request.startswith("POST") else None
    travel = Travel(blob=blob, end=pushing.other, repository="a/b")
    with pytest.raises(ToolError, match="regwrap is stopping"):
        pushing.sender.send(travel, [Destination("a/b", "1")])
    assert source.connections == 1
    assert connected_to(int(source.host.rpartition(":")[2])) == 0


def connected_to(port: int) -> int:
    """How many connections of this process lead there."""
    lines = (line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:])
    return sum(1 for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "01")
