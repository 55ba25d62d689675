"""A sync between registries that fail in every way: at the source and at the destination, what is asked and what skopeo
copies. Each image ends right or with the cause named, others go on, and nothing half is left."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from regwrap.core.location import Timeouts
from regwrap.core.model import Digest
from tests.builders import Image, make_image, make_layer, make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.faultserver import Fault, FaultProxy, faulty_proxy
from tests.tools.test_probe_real import close, probe_of
from tests.tools.test_sync_real import Bench, assert_served, at, big_image, make_bench

pytestmark = pytest.mark.tools

IMAGES: dict[str, Image] = {"a/one:1": big_image("one", 300_000), "b/two:1": make_image("two", kind="docker")}
LAYER = Digest.of(IMAGES["a/one:1"].blobs[1])
ONE_LAYER = f"GET .*{LAYER.hex}"


PATIENT = Timeouts(stall=20, copy=60, request=10, lock=5)
# for what stays silent: it is waited for that long, and a busy machine must not be taken for it
QUICK = Timeouts(stall=3, copy=60, request=3, lock=5)


@dataclass(frozen=True)
class Ends:
    """`source` and `dest` are proxies in front of two registries; `bench` syncs from one to the other, `into` an
    archive directory."""

    source: FaultProxy
    dest: FaultProxy
    dest_host: str
    dest_root: Path
    bench: Bench
    into: Bench

    def assert_all_arrived(self, images: Mapping[str, Image] = IMAGES) -> None:
        assert_served(self.dest_host, images)
        assert storage_problems(self.dest_root) == set()


StartEnds = Callable[..., Ends]


@pytest.fixture
def ends(tmp_path: Path, loopback_registry: StartRegistry) -> Iterator[StartEnds]:
    with ExitStack() as stack:

        def start(
            source: tuple[Fault, ...] = (), dest: tuple[Fault, ...] = (), images: Mapping[str, Image] = IMAGES
        ) -> Ends:
            upstream = loopback_registry(make_storage(tmp_path / "source", images)).host
            into = loopback_registry(tmp_path / "dest")
            first = stack.enter_context(faulty_proxy(upstream, source))
            second = stack.enter_context(faulty_proxy(into.host, dest))
            waits = any(fault.kind in {"silent", "stall"} for fault in (*source, *dest))
            timeouts = QUICK if waits else PATIENT
            bench = make_bench(tmp_path, at(first.host), at(second.host)).changed(timeouts=timeouts)
            return Ends(first, second, into.host, into.root, bench, bench.into(tmp_path / "archive"))

        yield start


PASSING = [
    pytest.param(Fault("refuse", "X", times=2, status=500), id="500"),
    pytest.param(Fault("refuse", "X", times=2, status=502), id="502"),
    pytest.param(Fault("refuse", "X", times=2, status=503), id="503"),
    pytest.param(Fault("refuse", "X", times=1, status=408), id="408"),
    pytest.param(Fault("refuse", "X", times=2, status=429, headers=(("Retry-After", "0"),)), id="429-at-once"),
    pytest.param(Fault("refuse", "X", times=1, status=429), id="429"),
    pytest.param(Fault("silent", "X", times=1), id="silent"),
    pytest.param(Fault("reset", "X", times=2), id="reset"),
]


def on(fault: Fault, pattern: str) -> Fault:
    return replace(fault, pattern=pattern)


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("pattern", ["HEAD .*/manifests/", "GET .*/manifests/", ONE_LAYER], ids=["head", "get", "blob"])
def test_what_passes_at_the_source_is_tried_again(ends: StartEnds, fault: Fault, pattern: str) -> None:
    """Into a storage a new image is asked for by its manifest alone, into a registry by its tag first."""
    started = ends(source=(on(fault, pattern),))
    if pattern.startswith("HEAD"):
        assert len(started.bench.synced(*IMAGES).copied) == len(IMAGES)
        started.assert_all_arrived()
    else:
        assert len(started.into.synced(*IMAGES).copied) == len(IMAGES)
        assert storage_problems(started.into.archive) == set()
    assert len(started.source.asked(pattern)) > fault.times


ASKED = ("HEAD .*/manifests/", "HEAD .*/blobs/", "POST", "PATCH", "PUT .*/blobs/", "PUT .*/manifests/")


@pytest.mark.parametrize("number", range(2 * len(PASSING)))
def test_what_passes_at_the_destination_is_tried_again(ends: StartEnds, number: int) -> None:
    """Each fault at two kinds of requests, and each kind of request with two faults or three."""
    (fault,) = PASSING[number // 2].values
    assert isinstance(fault, Fault)
    started = ends(dest=(on(fault, ASKED[(number // 2 + 3 * (number % 2)) % len(ASKED)]),))
    assert len(started.bench.synced(*IMAGES).copied) == len(IMAGES)
    started.assert_all_arrived()


def test_only_one_of_many_requests_fails(ends: StartEnds) -> None:
    started = ends(dest=(Fault("reset", "HEAD .*/blobs/", first=3, times=1),))
    started.bench.synced(*IMAGES)
    started.assert_all_arrived()


@pytest.mark.parametrize("kind", ["cut", "stall"])
def test_a_blob_that_breaks_off_is_ended_and_tried_again(ends: StartEnds, kind: Literal["cut", "stall"]) -> None:
    started = ends(source=(Fault(kind, ONE_LAYER, times=1, at=100_000),))
    report = started.bench.synced(*IMAGES)
    # skopeo 1.18 may ask for the rest of a blob by itself, 1.9 never does
    assert sum(copied.attempts for copied in report.copied) in ({2, 3} if kind == "cut" else {3})
    assert len(started.source.asked(ONE_LAYER)) == 2
    started.assert_all_arrived()


def test_an_upload_whose_source_breaks_off_is_cancelled(ends: StartEnds) -> None:
    """So soon that asking for the rest, as skopeo 1.18 does, never comes to the end."""
    started = ends(source=(Fault("cut", ONE_LAYER, at=1_000),))
    few = started.bench.trying(2, 0.01, 0.02)
    assert [str(failed.entry.dest) for failed in few.report(*IMAGES).failed] == ["a/one:1"]
    assert started.dest.asked("a/one/blobs/uploads/")[-1].startswith("DELETE ")


@pytest.mark.parametrize("pattern", [ONE_LAYER, "GET .*one/manifests/"])
def test_wrong_bytes_for_a_digest_are_not_taken(ends: StartEnds, pattern: str) -> None:
    started = ends(source=(Fault("flip", pattern),))
    report = started.bench.report(*IMAGES)
    assert [str(failed.entry.dest) for failed in report.failed] == ["a/one:1"]
    assert [str(copied.copy.entry.dest) for copied in report.copied] == ["b/two:1"]
    assert storage_problems(started.dest_root) == set()


LASTING = [
    pytest.param(Fault("refuse", "X", status=401), "unauthorized|401|authentication required", id="401"),
    pytest.param(Fault("refuse", "X", status=403), "403|denied", id="403"),
    pytest.param(Fault("refuse", "X", status=404), "404|no one|has no", id="404"),
    pytest.param(Fault("refuse", "X", status=503), "503", id="503"),
    pytest.param(Fault("silent", "X"), "no progress|timed out|could not be reached", id="silent"),
    pytest.param(Fault("html", "X"), "web page|invalid character '<'|did not match|corrupted", id="html"),
    pytest.param(Fault("redirect", "X"), "redirect", id="redirect"),
]


@pytest.mark.parametrize(("fault", "said"), LASTING)
@pytest.mark.parametrize("pattern", ["/v2/a/one/manifests/", ONE_LAYER], ids=["manifest", "blob"])
def test_what_lasts_at_the_source_is_named_and_others_go_on(
    ends: StartEnds, fault: Fault, said: str, pattern: str
) -> None:
    started = ends(source=(on(fault, pattern),))
    few = started.into.trying(2, 0.01, 0.02)
    report = few.report(*IMAGES)
    assert [str(copied.copy.entry.dest) for copied in report.copied] == ["b/two:1"]
    (failed,) = report.failed
    assert_says(failed.error, said)
    assert failed.down == ""
    assert storage_problems(started.into.archive) == set()


def assert_says(text: str, pattern: str) -> None:
    assert re.search(pattern, text), text


@pytest.mark.parametrize(
    ("status", "said"), [(403, "403|denied"), (401, "unauthorized|401|authentication required"), (503, "503")]
)
@pytest.mark.parametrize("pattern", ["POST /v2/a/one/", "PUT /v2/a/one/manifests/"])
def test_what_lasts_at_the_destination_is_named_and_others_go_on(
    ends: StartEnds, status: int, said: str, pattern: str
) -> None:
    started = ends(dest=(Fault("refuse", pattern, status=status),))
    report = started.bench.report(*IMAGES)
    assert [str(copied.copy.entry.dest) for copied in report.copied] == ["b/two:1"]
    (failed,) = report.failed
    assert_says(failed.error, said)
    assert_served(started.dest_host, {"b/two:1": IMAGES["b/two:1"]})
    assert storage_problems(started.dest_root) == set()


# --- what is not sent twice


def many(count: int, common: bytes) -> dict[str, Image]:
    return {f"team/{n}:1": make_image(f"i{n}", layers=[common, make_layer(f"own{n}")]) for n in range(count)}


def unique_bytes(images: Mapping[str, Image]) -> int:
    return sum(len(blob) for blob in {blob for image in images.values() for blob in image.blobs})


def test_every_byte_is_sent_once_from_registry_to_registry(ends: StartEnds) -> None:
    base = big_image("base", 3_000_000).blobs[1]
    middle = big_image("middle", 1_000_000).blobs[1]
    images = many(16, base)
    images |= {f"app/{n}:1": make_image(f"a{n}", layers=[base, middle, make_layer(f"app{n}")]) for n in range(16)}
    started = ends(images=images)
    report = started.bench.changed(jobs=16).synced(*images)
    unique = unique_bytes(images)
    blobs = {p: n for p, n in started.source.sent.items() if "/blobs/" in p}
    received = sum(n for path, n in started.dest.received.items() if "/blobs/" in path)
    assert sum(blobs.values()) / unique <= 1.01
    assert received / unique <= 1.01
    assert report.sent == unique
    started.assert_all_arrived(images)
    assert not list(started.dest_root.rglob("_uploads/*"))


def test_a_second_run_sends_only_what_was_missing(ends: StartEnds) -> None:
    images = many(6, big_image("common").blobs[1])
    started = ends(images=images, dest=(Fault("refuse", "PUT /v2/team/3/manifests/", times=4),))
    assert [str(failed.entry.dest) for failed in started.bench.report(*images).failed] == ["team/3:1"]
    before = sum(started.dest.received.values())
    report = started.bench.synced(*images)
    assert len(report.copied) == 1
    assert sum(started.dest.received.values()) - before == len(images["team/3:1"].raw)
    assert report.sent == 0
    started.assert_all_arrived(images)


def test_an_upload_that_the_registry_begins_instead_of_a_mount_is_cancelled(ends: StartEnds) -> None:
    started = ends()
    started.bench.synced(*IMAGES)
    probe = probe_of(started.dest.host)
    assert not probe.mount("c/new", LAYER, "no/such")
    assert probe.mount("c/new", LAYER, "a/one")
    assert probe.blob_size("c/new", LAYER) == len(IMAGES["a/one:1"].blobs[1])
    close(probe)
    assert not list(started.dest_root.rglob("_uploads/*/data"))  # docker-registry itself leaves a hash state of nothing


# --- rate limits


def test_a_host_that_is_down_fails_the_rest_at_once(ends: StartEnds) -> None:
    images = many(20, make_layer("common"))
    started = ends(images=images, source=(Fault("down", "/manifests/", first=5),))
    patient = started.into.trying(4, 0.2, 0.8).changed(jobs=2)
    report = patient.report(*images)
    assert {failed.down for failed in report.failed} == {started.source.host}
    assert all("is down" in failed.error and "refused" in failed.error for failed in report.failed)
    assert len(report.failed) + len(report.copied) == len(images)
    assert report.seconds < 10  # with retries for each image: 14 and more


def test_a_destination_that_is_down_does_not_cost_every_image_its_retries(ends: StartEnds) -> None:
    images = many(20, make_layer("common"))
    started = ends(images=images, dest=(Fault("down", "PUT .*/manifests/", first=3),))
    report = started.bench.changed(jobs=2).report(*images)
    own = [failed for failed in report.failed if failed.down != started.dest.host]
    assert len(own) <= 2  # over connections that are open yet it is only cut off, which three in a row make the host's
    assert len(report.failed) > len(own)
    assert len(report.copied) >= 1
    assert len(started.bench.skopeos) < 20


def test_one_dead_registry_leaves_the_others_alone(ends: StartEnds) -> None:
    started = ends()
    lines = [*(f"127.0.0.1:1/dead/{n}:1" for n in range(12)), *IMAGES]
    report = started.into.report(*lines)
    assert len(report.copied) == len(IMAGES)
    assert {failed.down for failed in report.failed} == {"127.0.0.1:1"}
    assert len(report.failed) == 12


def test_retry_after_is_obeyed_by_all(ends: StartEnds) -> None:
    images = many(6, make_layer("common"))
    busy = Fault("refuse", "HEAD .*/manifests/", first=2, times=1, status=429, headers=(("Retry-After", "1"),))
    started = ends(images=images, source=(busy,))
    patient = started.into.trying(4, 0.01, 5).changed(jobs=1)
    patient.synced(*images)
    heads = [
        when
        for request, when in zip(started.source.requests, started.source.times, strict=True)
        if request.startswith("HEAD /v2/") and "/manifests/" in request
    ]
    assert heads[2] - heads[1] >= 0.95


@contextmanager
def slow(proxy: FaultProxy, seconds: float) -> Iterator[None]:
    proxy.delay = seconds
    try:
        yield
    finally:
        proxy.delay = 0.0


def test_a_budget_bounds_what_a_registry_is_asked_at_the_same_time(ends: StartEnds) -> None:
    images = many(24, make_layer("common"))
    started = ends(images=images)
    source = started.into.job.source
    assert source is not None
    assert source.registry is not None
    bounded = replace(source, registry=replace(source.registry, max_connections=2))
    with slow(started.source, 0.01):
        started.into.changed(jobs=8, source=bounded).sync(*images)
    assert started.source.most_together <= 6  # a skopeo alone may have six


# --- tokens


def test_a_token_that_expires_in_the_middle_is_renewed_and_costs_no_attempt(ends: StartEnds) -> None:
    images = {f"team/{n}:1": make_image(f"i{n}") for n in range(12)}
    started = ends(images=images)
    started.source.token, started.source.lifetime = "token", 15
    report = started.into.synced(*images)
    assert {copied.attempts for copied in report.copied} == {1}
    assert len(started.source.asked("^GET .*/blobs/")) > 24  # some were refused
    assert storage_problems(started.into.archive) == set()


def test_what_travelled_for_images_that_failed_is_counted(ends: StartEnds) -> None:
    started = ends(source=(Fault("cut", ONE_LAYER, at=100_000),))
    report = started.into.trying(1, 0, 0).report(*IMAGES)
    travelled = sum(count for path, count in started.source.sent.items() if "/blobs/" in path)
    assert report.sent == travelled


# --- a blob goes on where it broke

SIZE = len(IMAGES["a/one:1"].blobs[1])


@pytest.mark.parametrize("piece", [1, 1000, 65_536, SIZE // 3, SIZE // 2, SIZE - 1, SIZE])
@pytest.mark.parametrize("kind", ["cut", "stall"])
def test_a_blob_that_is_cut_goes_on_there(ends: StartEnds, kind: Literal["cut", "stall"], piece: int) -> None:
    """Each byte of it travels once, wherever it breaks."""
    started = ends(source=(Fault(kind, ONE_LAYER, times=1, at=piece),))
    report = started.into.synced(*IMAGES)
    assert sum(count for path, count in started.source.sent.items() if LAYER.hex in path) == SIZE
    assert report.sent == unique_bytes(IMAGES)
    assert storage_problems(started.into.archive) == set()


def test_a_blob_that_is_cut_again_and_again_arrives(ends: StartEnds) -> None:
    """As many attempts as there are, each a piece further."""
    started = ends(source=(Fault("cut", ONE_LAYER, times=4, at=SIZE // 6),))
    (one,) = (c for c in started.into.trying(5, 0, 0).synced(*IMAGES).copied if c.copy.entry.dest.repository == "a/one")
    assert one.attempts == 5
    assert sum(count for path, count in started.source.sent.items() if LAYER.hex in path) == SIZE


def test_where_a_server_knows_no_ranges_a_blob_begins_again(ends: StartEnds) -> None:
    started = ends(source=(Fault("cut", ONE_LAYER, times=1, at=100_000),))
    started.source.knows_ranges = False
    report = started.into.synced(*IMAGES)
    assert {copied.attempts for copied in report.copied} == {1, 2}
    assert storage_problems(started.into.archive) == set()


def test_the_next_run_goes_on_where_a_dead_registry_stopped(ends: StartEnds) -> None:
    """Also when the registry is still dead in between."""
    started = ends(source=(Fault("cut", ONE_LAYER, times=1, at=100_000),))
    once = started.into.trying(1, 0, 0)
    (failed,) = once.report(*IMAGES).failed
    assert failed.sent == unique_bytes({"a/one:1": IMAGES["a/one:1"]}) - SIZE + 100_000
    assert len(once.changed(source=at("127.0.0.1:1")).report(*IMAGES).failed) == 2
    report = once.synced(*IMAGES)
    assert report.sent == SIZE - 100_000
    assert sum(count for path, count in started.source.sent.items() if LAYER.hex in path) == SIZE
    assert not (started.into.archive / ".regwrap/sync").exists()
