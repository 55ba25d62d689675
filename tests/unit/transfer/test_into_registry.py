"""Carrying one image into a registry that is in the test's own process: what is sent, counted, proved, and refused."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from regwrap.core.closure import Closure, closure_of
from regwrap.core.errors import IntegrityError, ToolError
from regwrap.core.location import Registry, Timeouts
from regwrap.core.model import Descriptor, Digest
from regwrap.registry.credentials import UnsureError
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.registry.probe import Probe
from regwrap.tools.skopeo import Skopeo
from regwrap.transfer.blob_index import BlobIndex
from regwrap.transfer.by_skopeo import prove
from regwrap.transfer.into_registry import PushCarrier
from regwrap.transfer.plan import Copy, Reason
from tests.builders import Image, make_image
from tests.fakeregistry import FakeRegistry, fake_registry
from tests.fakes import Scripted
from tests.unit.transfer.test_plan import entry

IMAGE = make_image("pushed")
BLOBS = {Digest.of(data): data for data in IMAGE.blobs}
SIZE = sum(map(len, IMAGE.blobs))


@dataclass
class Source:
    """Gives each blob in two pieces. `unsure`: as where only skopeo knows how to ask."""

    blobs: dict[Digest, bytes] = field(default_factory=lambda: dict(BLOBS))
    unsure: bool = False

    @contextmanager
    def opened(self, _copy: Copy, blob: Descriptor) -> Iterator["Pieces"]:
        if self.unsure:
            raise UnsureError("a credential helper")
        yield Pieces(self.blobs[blob.digest], blob.digest)


@dataclass(frozen=True)
class Pieces:
    data: bytes
    digest: Digest

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        half = (start + end) // 2
        yield from (self.data[start:half], self.data[half:end])

    anew = False

    def is_right(self) -> bool:
        return Digest.of(self.data) == self.digest


@dataclass
class Fallback:
    exclusive_repositories: bool = True
    carried: list[str] = field(default_factory=list)

    def carry(self, copy: Copy) -> None:
        self.carried.append(str(copy.entry.dest))

    def sent(self, copy: Copy) -> int:
        return 7 * self.carried.count(f"{copy.entry.dest}")

    def bytes_under_way(self) -> int:
        return 0


@dataclass
class Pushing:
    registry: FakeRegistry
    carrier: PushCarrier
    source: Source
    fallback: Fallback

    def sent(self, name: str) -> int:
        """What travelled for the image, which is carried there."""
        copy = copy_to(name)
        self.carrier.carry(copy)
        return self.carrier.sent(copy)


@pytest.fixture
def pushing(scripted: Scripted) -> Iterator[Pushing]:
    with fake_registry() as registry:
        where = Registry(host=registry.host, tls_verify=False, plain_http=True)
        probe = Probe(registry=where, timeout=10, connections=2)
        skopeo = Skopeo(runner=scripted.runner, home=scripted.runner.scratch, timeouts=Timeouts(), environment=())
        dest, source, fallback = RegistryEndpoint(registry=where, probe=probe, skopeo=skopeo), Source(), Fallback()
        carrier = PushCarrier(
            origin=source,
            dest=dest,
            proof=lambda copy: prove(dest, copy),
            fallback=fallback,
            index=BlobIndex(),
            stopping=threading.Event(),
        )
        yield Pushing(registry, carrier, source, fallback)
        probe.close()


def closure(image: Image) -> Closure:
    found = closure_of(image.top, {Digest.of(raw): raw for raw in image.manifests}.get)
    assert found is not None
    return found


def copy_to(name: str) -> Copy:
    whole = closure(IMAGE)
    return Copy(entry=entry(name), digest=IMAGE.top, reason=Reason.ABSENT, closure=whole, missing=whole.blobs)


def test_blobs_come_before_the_manifest_and_all_that_was_sent_is_counted(pushing: Pushing) -> None:
    assert pushing.sent("a/b:1") == SIZE
    assert {digest for _name, digest in pushing.registry.blobs} == {str(digest) for digest in BLOBS}
    assert pushing.registry.manifests["a/b", "1"][1] == IMAGE.raw
    puts = pushing.registry.asked("^PUT")
    assert [" /v2/a/b/manifests/1" in put for put in puts] == [False] * len(BLOBS) + [True]
    assert pushing.carrier.bytes_under_way() == 0


def test_what_a_failed_attempt_had_sent_is_not_under_way(pushing: Pushing) -> None:
    seen: list[int] = []

    def fails(request: str) -> int | None:
        if request.startswith("PUT") and "digest=" in request:
            seen.append(pushing.carrier.bytes_under_way())
            return 503 if len(seen) < 3 else None
        return None

    pushing.registry.fails = fails
    for _attempt in range(2):
        with pytest.raises(ToolError) as raised:
            pushing.carrier.carry(copy_to("a/b:1"))
        assert raised.value.transient
        assert pushing.carrier.bytes_under_way() == 0
    first = len(next(iter(IMAGE.blobs)))
    assert pushing.sent("a/b:1") == SIZE + 2 * first
    assert seen == [first, first, first, SIZE]


def test_a_blob_of_another_repository_is_mounted_and_one_that_is_there_is_not_sent(pushing: Pushing) -> None:
    pushing.carrier.carry(copy_to("a/b:1"))
    assert pushing.sent("c/d:1") == 0
    assert len(pushing.registry.asked("^POST .*c/d/blobs/uploads/.*mount=.*from=a%2Fb")) == len(BLOBS)
    assert pushing.sent("a/b:2") == 0
    assert len(pushing.registry.asked("^PUT .*digest=")) == len(BLOBS)


def test_a_mount_that_is_refused_is_an_upload(pushing: Pushing) -> None:
    digests = tuple(BLOBS)
    pushing.carrier.index.add("x/y", digests)
    assert pushing.sent("a/b:1") == SIZE
    assert len(pushing.registry.asked("^DELETE .*/uploads/")) == len(digests)


def test_where_the_probe_is_unsure_the_fallback_carries_the_image(pushing: Pushing) -> None:
    pushing.source.unsure = True
    assert pushing.sent("a/b:1") == 7
    assert pushing.fallback.carried == ["a/b:1"]


def test_damage_at_the_source_is_no_fault_of_the_registry(pushing: Pushing) -> None:
    victim = next(iter(BLOBS))
    pushing.source.blobs[victim] = b"x" * len(BLOBS[victim])
    with pytest.raises(IntegrityError, match="is damaged at the source"):
        pushing.carrier.carry(copy_to("a/b:1"))
    assert pushing.registry.manifests == {}


def test_a_registry_that_keeps_another_manifest_is_found_out(pushing: Pushing) -> None:
    other = make_image("other")
    pushing.registry.fails = lambda request: 201 if request == "PUT /v2/a/b/manifests/1" else None
    pushing.registry.manifests["a/b", "1"] = ("application/vnd.oci.image.manifest.v1+json", other.raw)
    with pytest.raises(IntegrityError, match=f"is {other.top} after the copy, expected {IMAGE.top}"):
        pushing.carrier.carry(copy_to("a/b:1"))


def test_nothing_more_is_sent_once_the_run_is_being_stopped(pushing: Pushing) -> None:
    pushing.carrier.stopping.set()
    with pytest.raises(ToolError, match="regwrap is stopping"):
        pushing.carrier.carry(copy_to("a/b:1"))
    assert pushing.registry.blobs == {}


@pytest.mark.parametrize(
    ("status", "hint"),
    [(403, "no permission for this"), (405, "make it writable"), (412, "use another tag"), (413, "body limit")],
)
def test_a_refusal_says_what_to_do(pushing: Pushing, status: int, hint: str) -> None:
    pushing.registry.fails = lambda request: status if request.startswith("PUT") else None
    with pytest.raises(ToolError, match=f"answered {status} to blob") as raised:
        pushing.carrier.carry(copy_to("a/b:1"))
    assert hint in raised.value.hint
    assert not raised.value.transient
