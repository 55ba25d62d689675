"""A whole sync with the real programs: what arrives, what is fetched again, and what faults lead to."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from regwrap.commands.sync import SyncOptions, SyncResult, sync_images
from regwrap.core.errors import ToolError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.location import Engine, Location, Registry, Timeouts
from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest
from regwrap.lists.imagelist import ImageList, parse_images
from regwrap.registry.probe import Probe
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.tools.runner import Runner
from regwrap.transfer.job import Job
from regwrap.transfer.plan import Copy, Reason
from regwrap.transfer.run import Copied, Failed, SyncReport
from tests.builders import (
    Image,
    flip,
    index_of,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    put,
    remove,
    storage_problems,
    truncate,
)
from tests.conftest import StartRegistry
from tests.faultserver import Fault, FaultProxy, faulty_proxy

pytestmark = pytest.mark.tools


@dataclass
class Heard(Silent):
    """Events of a run, and nobody to show them to."""

    retries: list[str] = field(default_factory=list)

    def started(self, copy: Copy) -> None: ...

    def retrying(self, copy: Copy, _attempt: int, error: ToolError) -> None:
        self.retries.append(f"{copy.entry.dest}: {error}")

    def copied(self, outcome: Copied) -> None: ...

    def failed(self, outcome: Failed) -> None: ...


@dataclass
class Bench:
    """Where a test syncs from and to. `commands` are the programs that were started."""

    job: Job
    archive: Path
    commands: list[str]
    heard: Heard

    def sync(self, *lines: str, hashed: bool = False) -> SyncResult:
        return sync_images(self.job, listed(*lines), SyncOptions(hashed=hashed))

    def report(self, *lines: str, hashed: bool = False) -> SyncReport:
        report = self.sync(*lines, hashed=hashed).report
        assert report is not None
        return report

    def synced(self, *lines: str, hashed: bool = False) -> SyncReport:
        """A sync that has to succeed."""
        report = self.report(*lines, hashed=hashed)
        assert [failed.error for failed in report.failed] == []
        return report

    def changed(self, **changes: Any) -> "Bench":
        return replace(self, job=replace(self.job, **changes))

    def trying(self, attempts: int, wait: float, max_wait: float) -> "Bench":
        """The same, with another patience."""
        policy = RetryPolicy(attempts=attempts, wait=wait, max_wait=max_wait)
        return self.changed(retry=replace(self.job.retry, policy=policy))

    def into(self, archive: Path) -> "Bench":
        """The same, into a directory."""
        return replace(self.changed(archive=in_directory(archive)), archive=archive)

    @property
    def skopeos(self) -> list[str]:
        return [command for command in self.commands if command.startswith("skopeo")]


def listed(*lines: str) -> ImageList:
    return parse_images("\n".join(lines).encode(), "images.list")


def at(host: str) -> Location:
    return Location(name=host, registry=Registry(host=host, tls_verify=False, plain_http=True))


def in_directory(root: Path) -> Location:
    return Location(name=str(root), storage=root)


def make_bench(tmp_path: Path, source: Location, archive: Location, *, jobs: int = 4) -> Bench:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    commands: list[str] = []
    heard, stopping = Heard(), threading.Event()
    job = Job(
        runner=Runner(
            ShLauncher(), scratch=scratch, search_path=os.environ["PATH"], stopping=stopping, log=commands.append
        ),
        scratch=scratch,
        source=source,
        archive=archive,
        location_of=at,
        jobs=jobs,
        retry=Retry(RetryPolicy(attempts=4, wait=0.01, max_wait=0.02), stopping),
        timeouts=Timeouts(stall=20, copy=60, request=10, lock=5),
        environment=(),
        listener=heard,
    )
    return Bench(job=job, archive=archive.storage or tmp_path / "none", commands=commands, heard=heard)


@dataclass(frozen=True)
class Served:
    """Images in a real registry, and an archive beside it."""

    host: str
    root: Path
    bench: Bench


@pytest.fixture
def serve(tmp_path: Path, loopback_registry: StartRegistry) -> Callable[[Mapping[str, Image]], Served]:
    def start(images: Mapping[str, Image]) -> Served:
        root = make_storage(tmp_path / "source", images)
        host = loopback_registry(root).host
        return Served(host, root, make_bench(tmp_path, at(host), in_directory(tmp_path / "archive")))

    return start


Serve = Callable[[Mapping[str, Image]], Served]


def chart(seed: str) -> Image:
    """An artifact of a manifest's shape, as Helm pushes it: its config and layer are no image's."""
    config, layer = json.dumps({"name": seed}).encode(), make_layer(seed)
    helm = "application/vnd.cncf.helm"
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _blob(f"{helm}.config.v1+json", config),
            "layers": [_blob(f"{helm}.chart.content.v1.tar+gzip", layer)],
        },
        indent=3,
    ).encode()
    return Image(manifests=(raw,), blobs=(config, layer))


def _blob(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


ALL_KINDS: dict[str, Image] = {
    "k/oci:1": make_image("oci"),
    "k/docker:1": make_image("docker", kind="docker"),
    "k/index:1": make_multi_image("index"),
    "k/list:1": make_multi_image("list", kind="docker"),
    "k/nested:1": index_of([make_multi_image("inner"), make_image("outer")]),
    "k/mixed:1": index_of([make_image("m1", kind="docker"), make_image("m2")], ["linux/amd64", "linux/arm64"]),
    "k/chart:1": chart("chart"),
    "deep/er/name:v1.2.3": make_image("deep"),
}


def assert_served(host: str, images: Mapping[str, Image]) -> None:
    """A real registry gives each image's manifests and blobs, all of the right bytes."""
    probe = Probe(registry=Registry(host=host, tls_verify=False, plain_http=True), timeout=10, connections=1)
    for name, image in images.items():
        repository, _, tag = name.rpartition(":")
        assert probe.manifest(repository, tag) == image.raw, name
        for raw in image.manifests:
            assert probe.manifest(repository, Digest.of(raw)) == raw, name
        for blob in image.blobs:
            assert probe.small_blob(repository, Digest.of(blob)) == blob, name


# --- what arrives


@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.COPY])
def test_every_kind_of_image_arrives_with_its_digest(
    serve: Serve, loopback_registry: StartRegistry, engine: Engine
) -> None:
    served = serve(ALL_KINDS)
    report = served.bench.changed(engine=engine).synced(*ALL_KINDS)
    assert len(report.copied) == len(ALL_KINDS)
    assert report.sent == sum({Digest.of(b): len(b) for image in ALL_KINDS.values() for b in image.blobs}.values())
    assert storage_problems(served.bench.archive) == set()
    assert_served(loopback_registry(served.bench.archive).host, ALL_KINDS)
    assert not (served.bench.archive / ".regwrap/sync").exists()


def test_a_second_run_starts_no_program(serve: Serve) -> None:
    served = serve(ALL_KINDS)
    served.bench.synced(*ALL_KINDS)
    served.bench.commands.clear()
    report = served.bench.synced(*ALL_KINDS)
    assert len(report.skipped) == len(ALL_KINDS)
    assert served.bench.commands == []


def test_a_dry_run_changes_nothing(serve: Serve) -> None:
    served = serve(ALL_KINDS)
    result = sync_images(served.bench.job, listed(*ALL_KINDS), SyncOptions(dry_run=True))
    assert result.report is None
    assert {copy.reason for copy in result.plan.copies} == {Reason.ABSENT}
    assert not served.bench.archive.exists()
    assert served.bench.commands == []


def test_only_the_chosen_platforms_come(serve: Serve) -> None:
    image = make_multi_image("three", ["linux/amd64", "linux/arm64", "linux/s390x"])
    served = serve({"a/b:1": image})
    served.bench.synced("a/b:1 platform=linux/arm64,linux/s390x")
    storage = Storage(served.bench.archive)
    assert storage.resolve("a/b", "1") == image.top
    assert [storage.has_revision("a/b", Digest.of(raw)) for raw in image.manifests] == [False, True, True, True]
    served.bench.commands.clear()
    assert len(served.bench.synced("a/b:1 platform=linux/arm64,linux/s390x").skipped) == 1
    later = served.bench.sync("a/b:1")
    assert [copy.reason for copy in later.plan.copies] == [Reason.DAMAGED]
    assert storage_problems(served.bench.archive) == set()


def test_a_line_may_name_another_registry_and_another_name(serve: Serve) -> None:
    image = make_image("one")
    served = serve({"a/b:1": image})
    served.bench.changed(source=None).synced(f"{served.host}/a/b:1 => x/y:2")
    assert Storage(served.bench.archive).resolve("x/y", "2") == image.top


def test_from_storage_to_storage_no_program_is_started(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "source", ALL_KINDS)
    bench = make_bench(tmp_path, in_directory(root), in_directory(tmp_path / "archive"))
    bench.synced(*ALL_KINDS)
    assert bench.commands == []
    assert storage_problems(bench.archive) == set()
    assert {name: tag_of(bench.archive, name) for name in ALL_KINDS} == {n: i.top for n, i in ALL_KINDS.items()}


def tag_of(root: Path, name: str) -> Digest | None:
    repository, _, tag = name.rpartition(":")
    return Storage(root).resolve(repository, tag)


PUSHABLE = {name: ALL_KINDS[name] for name in ("k/oci:1", "k/docker:1", "k/index:1", "k/list:1", "k/chart:1")}


@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.COPY, Engine.SYNC])
@pytest.mark.parametrize("from_storage", [False, True])
def test_into_a_registry_digests_are_proved(
    tmp_path: Path, loopback_registry: StartRegistry, from_storage: bool, engine: Engine
) -> None:
    root = make_storage(tmp_path / "source", PUSHABLE)
    source = in_directory(root) if from_storage else at(loopback_registry(root).host)
    dest = loopback_registry(tmp_path / "dest")
    bench = make_bench(tmp_path, source, at(dest.host)).changed(engine=engine)
    report = bench.synced(*PUSHABLE)
    assert len(report.copied) == len(PUSHABLE)
    assert_served(dest.host, PUSHABLE)
    assert storage_problems(dest.root) == set()
    assert len(bench.synced(*PUSHABLE).skipped) == len(PUSHABLE)


def test_from_storage_to_registry_the_files_are_sent_and_skopeo_does_not_run(
    tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    root = make_storage(tmp_path / "source", ALL_KINDS)
    dest = loopback_registry(tmp_path / "dest")
    bench = make_bench(tmp_path, in_directory(root), at(dest.host))
    bench.synced(*ALL_KINDS)
    assert_served(dest.host, ALL_KINDS)
    assert bench.skopeos == []


def test_within_one_registry_nothing_is_sent(serve: Serve) -> None:
    served = serve({"a/b:1": big_image("one", 300_000)})
    registry = Registry(host=served.host, tls_verify=False, plain_http=True, max_connections=1)
    same = Location(name=served.host, registry=registry)
    bench = served.bench.changed(source=same, archive=same)
    assert bench.synced("a/b:1 => c/d:2").sent == 0
    assert bench.skopeos == []
    assert_served(served.host, {"c/d:2": big_image("one", 300_000)})


# --- batches of skopeo sync


def test_images_of_one_directory_come_with_one_skopeo(tmp_path: Path, loopback_registry: StartRegistry) -> None:
    images = {f"team/{name}:1": make_image(name) for name in "abcd"} | {"other/e:1": make_image("e")}
    source = loopback_registry(make_storage(tmp_path / "source", images)).host
    dest = loopback_registry(tmp_path / "dest")
    bench = make_bench(tmp_path, at(source), at(dest.host)).changed(engine=Engine.SYNC)
    assert len(bench.synced(*images).copied) == len(images)
    assert_served(dest.host, images)
    assert [" sync " in command for command in bench.skopeos].count(True) == 1
    assert [" copy " in command for command in bench.skopeos].count(True) == 1


def test_names_that_skopeo_sync_would_mix_up_stay_apart(tmp_path: Path, loopback_registry: StartRegistry) -> None:
    images = {
        "a/x:1": make_image("ax"),
        "b/x:1": make_image("bx"),
        "a/y:1": make_image("ay"),
        "b/y:1": make_image("by"),
    }
    source = loopback_registry(make_storage(tmp_path / "source", images)).host
    dest = loopback_registry(tmp_path / "dest")
    lines = ("a/x:1 => p/x:1", "b/x:1 => p/z:1", "a/y:1 => p/y:1", "b/y:1 => p/y:2")
    make_bench(tmp_path, at(source), at(dest.host)).changed(engine=Engine.SYNC).synced(*lines)
    wanted = {"p/x:1": "a/x:1", "p/z:1": "b/x:1", "p/y:1": "a/y:1", "p/y:2": "b/y:1"}
    assert_served(dest.host, {name: images[origin] for name, origin in wanted.items()})


def test_a_batch_that_brings_a_moved_tag_is_put_right(tmp_path: Path, loopback_registry: StartRegistry) -> None:
    old, new, other = make_image("old"), make_image("new"), make_image("other")
    root = make_storage(tmp_path / "source", {"a/x:1": old, "a/y:1": other})
    make_storage(root, {"a/x:1": new})
    dest = loopback_registry(tmp_path / "dest")
    bench = make_bench(tmp_path, at(loopback_registry(root).host), at(dest.host)).changed(engine=Engine.SYNC)
    images = listed("a/x:1", "a/y:1")
    locked = tuple(
        replace(entry, source=replace(entry.source, digest=image.top), locked=True)
        for entry, image in zip(images.entries, (old, other), strict=True)
    )
    report = sync_images(bench.job, replace(images, entries=locked), SyncOptions()).report
    assert report is not None
    assert [failed.error for failed in report.failed] == []
    assert_served(dest.host, {"a/x:1": old, "a/y:1": other})


def test_a_batch_that_fails_fails_only_what_can_not_be_had(tmp_path: Path, loopback_registry: StartRegistry) -> None:
    images = {f"a/{name}:1": make_image(name) for name in "xyz"}
    root = make_storage(tmp_path / "source", images)
    (root / layout.blob_path(Digest.of(images["a/y:1"].blobs[1]))).unlink()
    dest = loopback_registry(tmp_path / "dest")
    bench = make_bench(tmp_path, at(loopback_registry(root).host), at(dest.host)).changed(engine=Engine.SYNC)
    report = bench.report(*images)
    assert [str(failed.entry.dest) for failed in report.failed] == ["a/y:1"]
    assert_served(dest.host, {name: images[name] for name in ("a/x:1", "a/z:1")})


def test_the_engine_sync_does_not_go_into_a_storage(serve: Serve) -> None:
    served = serve({"a/b:1": make_image("one")})
    with pytest.raises(UsageError, match="copies between registries"):
        served.bench.changed(engine=Engine.SYNC).sync("a/b:1")


@pytest.mark.parametrize(
    ("engine", "refused"), [(Engine.COPY, ["k/nested:1", "k/index:1"]), (Engine.STREAM, ["k/index:1"])]
)
def test_what_can_not_be_pushed_is_refused_and_the_rest_goes_on(
    tmp_path: Path, loopback_registry: StartRegistry, engine: Engine, refused: list[str]
) -> None:
    root = make_storage(tmp_path / "source", ALL_KINDS)
    bench = make_bench(tmp_path, at(loopback_registry(root).host), at(loopback_registry(tmp_path / "dest").host))
    report = bench.changed(engine=engine).report("k/nested:1", "k/index:1 platform=linux/amd64", "k/oci:1")
    assert [str(failed.entry.dest) for failed in report.failed] == refused
    assert "k/oci:1" in [str(copied.copy.entry.dest) for copied in report.copied]


# --- what can't be had


def test_a_missing_image_is_named_and_others_come(serve: Serve) -> None:
    served = serve({"a/b:1": make_image("one")})
    report = served.bench.report("a/b:9", "a/b:1", "no/such:1")
    assert [(f.entry.line, f.error) for f in report.failed] == [
        (1, f"{served.host} has no a/b:9"),
        (3, f"{served.host} has no no/such:1"),
    ]
    assert len(report.copied) == 1


def test_a_moved_tag_fails_with_both_digests(serve: Serve) -> None:
    image, other = make_image("now"), make_image("before")
    served = serve({"a/b:1": image})
    (failed,) = served.bench.report(f"a/b:1@{other.top}").failed
    assert str(image.top) in failed.error
    assert str(other.top) in failed.error
    assert "moved" in failed.hint


def test_an_index_without_one_of_its_children_fails(serve: Serve) -> None:
    image = make_multi_image("half")
    served = serve({"a/b:1": image})
    remove(served.root / layout.revision_link("a/b", Digest.of(image.manifests[1])))
    (failed,) = served.bench.report("a/b:1").failed
    assert "has missing manifests: linux/arm64" in failed.error


# --- faults on the way


def through(served: Served, proxy: FaultProxy, **changes: object) -> Bench:
    return served.bench.changed(source=at(proxy.host), **changes)


def big_image(seed: str, size: int = 600_000) -> Image:
    data = b"".join(Digest.of(f"{seed}{n}".encode()).hex.encode() for n in range(size // 64))
    return make_image(seed, layers=[make_layer(seed, data)])


def test_a_cut_blob_is_fetched_again_and_right(serve: Serve) -> None:
    image = big_image("cut")
    served = serve({"a/b:1": image})
    layer = Digest.of(image.blobs[1])
    with faulty_proxy(served.host, [Fault("cut", f"GET .*{layer.hex}", times=2, at=100_000)]) as proxy:
        bench = through(served, proxy)
        (copied,) = bench.synced("a/b:1").copied
        assert len(proxy.asked(f"GET .*{layer.hex}")) == 3
    # skopeo 1.18 asks again for the rest by itself, 1.9 never does
    assert copied.attempts in {2, 3}
    assert len(bench.heard.retries) == copied.attempts - 1
    assert storage_problems(served.bench.archive) == set()


def test_a_blob_that_arrives_flipped_is_fetched_again(serve: Serve) -> None:
    image = make_image("flipped")
    served = serve({"a/b:1": image})
    layer = Digest.of(image.blobs[1])
    with faulty_proxy(served.host, [Fault("flip", f"GET .*{layer.hex}", times=1)]) as proxy:
        assert through(served, proxy).synced("a/b:1").copied[0].attempts == 2
    assert storage_problems(served.bench.archive) == set()


@pytest.mark.parametrize("pattern", ["HEAD .*/manifests/", "GET .*/manifests/", "GET .*/blobs/"])
def test_503_is_tried_again(serve: Serve, pattern: str) -> None:
    served = serve({"a/b:0": make_image("zero"), "a/b:1": make_image("one")})
    served.bench.synced("a/b:0")  # of a repository that is there the tag is asked for first
    with faulty_proxy(served.host, [Fault("refuse", pattern, times=2)]) as proxy:
        through(served, proxy).synced("a/b:1")
        assert len(proxy.asked(pattern)) >= 3
    assert storage_problems(served.bench.archive) == set()


def test_a_blob_that_never_comes_fails_and_others_succeed(serve: Serve) -> None:
    stuck = make_image("stuck")
    served = serve({"a/stuck:1": stuck, "a/b:1": make_image("b"), "a/c:1": make_image("c")})
    layer = Digest.of(stuck.blobs[1])
    with faulty_proxy(served.host, [Fault("silent", f"GET .*{layer.hex}")]) as proxy:
        bench = through(served, proxy, timeouts=Timeouts(stall=1, copy=60, request=10, lock=5)).trying(1, 0, 0)
        report = bench.report("a/stuck:1", "a/b:1", "a/c:1")
    assert len(report.copied) == 2
    (failed,) = report.failed
    assert str(failed.entry.dest) == "a/stuck:1"
    assert "made no progress for 1 s" in failed.error
    assert storage_problems(served.bench.archive) == set()


def test_a_login_page_instead_of_the_registry_fails_with_a_hint(serve: Serve) -> None:
    served = serve({"a/b:1": make_image("one")})
    with faulty_proxy(served.host, [Fault("html", "/manifests/")]) as proxy:
        (failed,) = through(served, proxy).report("a/b:1").failed
    assert "this is a web page, not a manifest" in failed.error
    assert failed.hint == "check the address: a proxy or login page answered instead of the registry"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_wrong_digest_header_is_not_believed(serve: Serve, method: str) -> None:
    served = serve({"a/b:0": make_image("zero"), "a/b:1": make_image("one")})
    if method == "HEAD":
        served.bench.synced("a/b:0")  # of a repository that is there the tag is asked for first
    with faulty_proxy(served.host, [Fault("wrong-digest", f"{method} .*/manifests/1")]) as proxy:
        (failed,) = through(served, proxy).report("a/b:1").failed
    assert "sha256:" + "0" * 12 in failed.error
    assert Storage(served.bench.archive).resolve("a/b", "1") is None


# --- damage in the archive


def blob_file(root: Path, data: bytes) -> Path:
    return root / layout.blob_path(Digest.of(data))


@pytest.mark.parametrize("damage", [truncate, remove])
def test_a_damaged_blob_is_sent_again(serve: Serve, damage: Callable[[Path], None]) -> None:
    image = make_multi_image("one")
    served = serve({"a/b:1": image})
    served.bench.synced("a/b:1")
    damage(blob_file(served.bench.archive, image.blobs[1]))
    result = served.bench.sync("a/b:1")
    assert [(c.reason, [b.digest for b in c.missing]) for c in result.plan.copies] == [
        (Reason.DAMAGED, [Digest.of(image.blobs[1])])
    ]
    assert storage_problems(served.bench.archive) == set()


@pytest.mark.parametrize("link", [layout.layer_link, layout.revision_link])
def test_a_lost_link_is_made_again_without_a_program(serve: Serve, link: Callable[[str, Digest], str]) -> None:
    image = make_image("one")
    served = serve({"a/b:1": image})
    served.bench.synced("a/b:1")
    served.bench.commands.clear()
    remove(served.bench.archive / link("a/b", image.top if link is layout.revision_link else Digest.of(image.blobs[1])))
    assert len(served.bench.synced("a/b:1").copied) == 1
    assert served.bench.commands == []
    assert storage_problems(served.bench.archive) == set()


def test_rot_is_found_only_by_hashing(serve: Serve) -> None:
    image = make_image("one")
    served = serve({"a/b:1": image})
    served.bench.synced("a/b:1")
    flip(blob_file(served.bench.archive, image.blobs[1]))
    assert len(served.bench.synced("a/b:1").skipped) == 1
    assert len(served.bench.synced("a/b:1", hashed=True).copied) == 1
    assert storage_problems(served.bench.archive) == set()


def test_a_rotten_base_layer_is_noticed_when_a_new_image_uses_it(serve: Serve) -> None:
    base = make_layer("base")
    old, new = make_image("old", layers=[base]), make_image("new", layers=[base, make_layer("top")])
    served = serve({"a/old:1": old, "a/new:1": new})
    served.bench.synced("a/old:1")
    flip(blob_file(served.bench.archive, base))
    served.bench.synced("a/new:1")
    assert storage_problems(served.bench.archive) == set()


def test_a_rotten_manifest_is_sent_again(serve: Serve) -> None:
    image = make_image("one")
    served = serve({"a/b:1": image})
    served.bench.synced("a/b:1")
    flip(blob_file(served.bench.archive, image.raw))
    assert len(served.bench.synced("a/b:1").copied) == 1
    assert storage_problems(served.bench.archive) == set()


# --- what is fetched


def staged(archive: Path, data: bytes) -> Path:
    return archive / ".regwrap/sync/blobs/sha256" / Digest.of(data).hex


def test_what_a_killed_run_left_is_used_if_it_is_right(serve: Serve) -> None:
    image = make_image("one", layers=[make_layer("good"), make_layer("bad")])
    config, good, bad = image.blobs
    served = serve({"a/b:1": image})
    put(staged(served.bench.archive, good), good)
    put(staged(served.bench.archive, bad), b"g" * len(bad))
    put(staged(served.bench.archive, config), config)
    with faulty_proxy(served.host) as proxy:
        through(served, proxy).synced("a/b:1")
        assert proxy.sent[f"/v2/a/b/blobs/{Digest.of(good)}"] == 0
        assert proxy.sent[f"/v2/a/b/blobs/{Digest.of(bad)}"] == len(bad)
    assert storage_problems(served.bench.archive) == set()
    assert not (served.bench.archive / ".regwrap/sync").exists()


def test_what_the_archive_has_is_not_fetched_again(serve: Serve) -> None:
    base = make_layer("base")
    served = serve(
        {"a/old:1": make_image("old", layers=[base]), "b/new:1": make_image("n", layers=[base, make_layer("n")])}
    )
    with faulty_proxy(served.host) as proxy:
        bench = through(served, proxy)
        bench.synced("a/old:1")
        bench.synced("b/new:1")
        assert blob_bytes(proxy, base) == len(base)


def blob_bytes(proxy: FaultProxy, blob: bytes) -> int:
    return sum(size for path, size in proxy.sent.items() if path.endswith(Digest.of(blob).hex))


@pytest.mark.parametrize("jobs", [1, 16])
def test_a_shared_layer_is_fetched_once(serve: Serve, jobs: int) -> None:
    common = big_image("common").blobs[1]
    images = {f"team/{n}:1": make_image(f"i{n}", layers=[common, make_layer(f"own{n}")]) for n in range(16)}
    served = serve(images)
    with faulty_proxy(served.host) as proxy:
        report = through(served, proxy, jobs=jobs).synced(*images)
        assert blob_bytes(proxy, common) == len(common)
    assert len(report.copied) == len(images)
    assert storage_problems(served.bench.archive) == set()


def test_platforms_of_one_index_share_their_layers(serve: Serve) -> None:
    image = make_multi_image("multi", ["linux/amd64", "linux/arm64", "linux/s390x"])
    served = serve({"a/b:1": image})
    with faulty_proxy(served.host) as proxy:
        (copied,) = through(served, proxy).synced("a/b:1").copied
        assert all(blob_bytes(proxy, blob) == len(blob) for blob in image.blobs)
    assert copied.sent == sum(map(len, image.blobs))


def test_without_an_authfile_skopeo_uses_no_credentials(serve: Serve) -> None:
    served = serve({"a/b:1": make_image("one")})
    served.bench.changed(engine=Engine.COPY).synced("a/b:1")
    assert served.bench.skopeos != []
    assert all("no-creds" in command for command in served.bench.skopeos)
